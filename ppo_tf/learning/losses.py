"""Policy losses and value losses, per sample and unreduced: the learner takes the mean.

A policy loss takes new_dist and old_dist (TFP distributions of batch shape [n]), actions [n, ...]
and advantages float [n] by keyword, and returns (loss float [n], metrics). Lower is better, so the
objectives in the papers appear with a minus sign. r = pi_new(a|s) / pi_old(a|s) is the ratio of
this update. w = pi_old(a|s) / mu(a|s) is the importance weight of data that an earlier policy mu
has collected; without such data, w is 1 and not passed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import tensorflow as tf

from ppo_tf import ops
from ppo_tf.learning import diagnostics
from ppo_tf.learning.schedules import Schedule, check_positive, is_schedule, now
from ppo_tf.support import keywords
from ppo_tf.types import LOSS_KEYWORDS, Distribution, Loss, Metrics, Nest, Tensor

KL_ESTIMATES = ("exact", "k1", "k2", "k3")


def _log_prob(dist: Distribution, actions: Nest, advantages: Tensor) -> Tensor:
    log_prob = dist.log_prob(actions)
    if log_prob.shape != advantages.shape:
        raise ValueError(
            "A distribution must give one log-probability per sample. "
            f"Received: log_prob of shape {tuple(log_prob.shape)} from {dist}, "
            f"advantages of shape {tuple(advantages.shape)}"
        )
    return log_prob


def probability_ratio(
    new_dist: Distribution, old_dist: Distribution, actions: Nest, advantages: Tensor
) -> Tensor:
    """r = pi_new(a|s) / pi_old(a|s), float [n], from the difference of log-probabilities.

    Capped at e^20, beyond which the gradient is zero.
    """
    log_ratio = _log_prob(new_dist, actions, advantages) - _log_prob(old_dist, actions, advantages)
    return tf.exp(tf.minimum(log_ratio, ops.MAX_LOG_RATIO))


def _weighted(
    new_dist: Distribution,
    old_dist: Distribution,
    actions: Nest,
    advantages: Tensor,
    importance_weights: Tensor | None,
) -> tuple[Tensor, Tensor | float]:
    """Returns (w r, w), with w = 1 where the policy before the update is the one that acted."""
    ratio = probability_ratio(new_dist, old_dist, actions, advantages)
    if importance_weights is None:
        return ratio, 1.0
    return importance_weights * ratio, importance_weights


@dataclass(frozen=True)
class PolicyGradient:
    """L = -w log pi_new(a|s) A, whose gradient is the policy gradient (Williams 1992).

    Correct for a single gradient step only: the expectation is over the policy before the update,
    which is the policy being trained only until the first step.
    """

    def __call__(
        self,
        *,
        new_dist: Distribution,
        old_dist: Distribution,
        actions: Nest,
        advantages: Tensor,
        importance_weights: Tensor | None = None,
    ) -> tuple[Tensor, Metrics]:
        """Returns (loss [n], no metrics)."""
        del old_dist
        loss = -_log_prob(new_dist, actions, advantages) * advantages
        return loss if importance_weights is None else importance_weights * loss, {}


@dataclass(frozen=True)
class Surrogate:
    """L = -w r A, the importance-weighted surrogate that all others restrain.

    Kakade and Langford 2002; Schulman et al. 2017 (arXiv 1707.06347), eq. 6. Nothing in it keeps
    the ratio near 1: that is left to early stopping or to a trust region.
    """

    def __call__(
        self,
        *,
        new_dist: Distribution,
        old_dist: Distribution,
        actions: Nest,
        advantages: Tensor,
        importance_weights: Tensor | None = None,
    ) -> tuple[Tensor, Metrics]:
        """Returns (loss [n], no metrics)."""
        ratio, _ = _weighted(new_dist, old_dist, actions, advantages, importance_weights)
        return -ratio * advantages, {}


@dataclass(frozen=True)
class Clip:
    """L = -min(w r A, clip(w r, w - epsilon, w + epsilon_high) A), PPO's clipped surrogate.

    Schulman et al. 2017 (arXiv 1707.06347), eq. 7, where the data are those of the policy before
    the update and w is 1. For data of earlier policies, the interval lies around their w (Queeney
    et al. 2021, arXiv 2111.00072, GePPO), so that it bounds the step of this update; or around 1,
    the policy that acted, as PPO does when its data are old. Reports `clip_fraction`, the share of
    samples whose ratio left the interval.

    Args:
        epsilon: how far the ratio may fall, in (0, 1); also how far it may rise, unless
            epsilon_high is given. A number, or a Keras schedule over gradient steps.
        epsilon_high: how far the ratio may rise, positive; likewise.
        around: where the interval of weighted samples lies: "recent", around w, the policy before
            the update, or "behaviour", around 1, the policy that acted.
    """

    epsilon: float | Schedule = 0.2
    epsilon_high: float | Schedule | None = None
    around: Literal["recent", "behaviour"] = "recent"

    def __post_init__(self) -> None:
        if self.around not in ("recent", "behaviour"):
            raise ValueError(
                f"around must be recent or behaviour. Received: around={self.around!r}"
            )
        if not is_schedule(self.epsilon) and not 0.0 < self.epsilon < 1.0:
            raise ValueError(f"epsilon must be in (0, 1). Received: epsilon={self.epsilon}")
        check_positive("epsilon_high", self.epsilon_high)

    def __call__(
        self,
        *,
        new_dist: Distribution,
        old_dist: Distribution,
        actions: Nest,
        advantages: Tensor,
        importance_weights: Tensor | None = None,
        gradient_steps: Tensor | None = None,
    ) -> tuple[Tensor, Metrics]:
        """Returns (loss [n], {"clip_fraction": [n]})."""
        ratio, center = _weighted(new_dist, old_dist, actions, advantages, importance_weights)
        epsilon = now(self.epsilon, gradient_steps)
        high = epsilon if self.epsilon_high is None else now(self.epsilon_high, gradient_steps)
        center = center if self.around == "recent" else 1.0
        low, high = center - epsilon, center + high
        clipped = tf.clip_by_value(ratio, low, high)
        loss = -tf.minimum(ratio * advantages, clipped * advantages)
        outside = tf.cast((ratio < low) | (ratio > high), loss.dtype)
        return loss, {"clip_fraction": outside}


@dataclass(frozen=True)
class SPO:
    """L = -(w r A - |A| (w r - w)^2 / (2 epsilon)), simple policy optimisation.

    Xie et al. 2024 (arXiv 2401.16025). Instead of cutting the gradient off where the ratio leaves
    an interval, a parabola pulls it back: the loss of a sample is least where its ratio has moved
    by epsilon. Reports `clip_fraction`, the share of samples beyond that.

    Args:
        epsilon: how far the ratio of a sample moves at best, positive. A number, or a Keras
            schedule over gradient steps.
    """

    epsilon: float | Schedule = 0.2

    def __post_init__(self) -> None:
        check_positive("epsilon", self.epsilon)

    def __call__(
        self,
        *,
        new_dist: Distribution,
        old_dist: Distribution,
        actions: Nest,
        advantages: Tensor,
        importance_weights: Tensor | None = None,
        gradient_steps: Tensor | None = None,
    ) -> tuple[Tensor, Metrics]:
        """Returns (loss [n], {"clip_fraction": [n]})."""
        ratio, center = _weighted(new_dist, old_dist, actions, advantages, importance_weights)
        epsilon = now(self.epsilon, gradient_steps)
        moved = ratio - center
        pull = tf.abs(advantages) * tf.math.divide_no_nan(moved**2, 2.0 * epsilon)
        outside = tf.cast(tf.abs(moved) > epsilon, ratio.dtype)
        return pull - ratio * advantages, {"clip_fraction": outside}


class KLPenalty(tf.Module):
    """L = -(w r A - beta KL(old || new)), PPO's other surrogate, with beta fixed or adaptive.

    Schulman et al. 2017 (arXiv 1707.06347), eq. 8. Given a target, beta adapts after each update
    to the mean divergence d of that update: beta <- beta / 2 if d < target / 1.5, and
    beta <- 2 beta if d > 1.5 target. Reports `kl_coefficient` and the metrics of the surrogate.

    Args:
        coefficient: beta, or its initial value; at least 0, and positive with a target, since
            doubling 0 gives 0.
        target: divergence per update to aim for, in nats; None keeps beta fixed.
        estimate: how the divergence is computed: "exact", or from the actions by an estimator of
            `diagnostics.kl_estimates`, "k1", "k2" or "k3", which needs no formula.
        surrogate: what is penalised, by default `Surrogate()`; `Clip()` for both at once.

    Raises:
        ValueError: if an argument is out of range or, when called, if the distribution has no
            exact KL.
    """

    def __init__(
        self,
        coefficient: float = 1.0,
        target: float | None = None,
        *,
        estimate: str = "exact",
        surrogate: Loss | None = None,
    ):
        super().__init__(name="kl_penalty")
        check_positive("coefficient", coefficient, zero_allowed=target is None)
        check_positive("target", target)
        if estimate not in KL_ESTIMATES:
            names = ", ".join(KL_ESTIMATES)
            raise ValueError(f"estimate must be one of {names}. Received: estimate={estimate!r}")
        self.target = target
        self.estimate = estimate
        self.surrogate = surrogate or Surrogate()
        self.coefficient = tf.Variable(coefficient, trainable=False, dtype=tf.float32)
        self._call = keywords.taking(self.surrogate, LOSS_KEYWORDS, "surrogate")

    def __call__(
        self,
        *,
        new_dist: Distribution,
        old_dist: Distribution,
        actions: Nest,
        advantages: Tensor,
        observations: Nest | None = None,
        valid: Tensor | None = None,
        importance_weights: Tensor | None = None,
        gradient_steps: Tensor | None = None,
    ) -> tuple[Tensor, Metrics]:
        """Returns (loss [n], {"kl_coefficient": scalar} and the surrogate's metrics)."""
        batch = {"new_dist": new_dist, "old_dist": old_dist, "actions": actions}
        batch |= {"advantages": advantages, "observations": observations, "valid": valid}
        batch |= {"importance_weights": importance_weights, "gradient_steps": gradient_steps}
        loss, metrics = self._call(**batch)
        beta = self.coefficient.read_value()
        kl = self._divergence(old_dist, new_dist, actions, importance_weights)
        return beta * kl + loss, {"kl_coefficient": beta, **metrics}

    def _divergence(
        self,
        old_dist: Distribution,
        new_dist: Distribution,
        actions: Nest,
        importance_weights: Tensor | None,
    ) -> Tensor:
        """KL(old || new) in nats, float [n]."""
        if self.estimate != "exact":  # of actions that old drew, or weighted as if it had
            kl = diagnostics.kl_estimates(old_dist, new_dist, actions)[f"kl_{self.estimate}"]
            return kl if importance_weights is None else importance_weights * kl
        try:
            return old_dist.kl_divergence(new_dist)
        except NotImplementedError as error:
            raise ValueError(
                "KLPenalty needs a distribution with an exact KL divergence in TFP, or an estimate "
                f"of k1, k2 or k3. Received: {new_dist}"
            ) from error

    def after_update(self, kl: Tensor) -> None:
        """Adapts the coefficient to the mean KL(old || new) of the last update, in nats."""
        if self.target is None:
            return
        factor = tf.where(kl < self.target / 1.5, 0.5, tf.where(kl > self.target * 1.5, 2.0, 1.0))
        # Far beyond any useful value, but short of 0 and infinity, where beta would be stuck.
        self.coefficient.assign(tf.clip_by_value(self.coefficient * factor, 1e-10, 1e10))


@dataclass(frozen=True)
class EntropyBonus:
    """L = -coefficient H(new), which keeps the policy exploring (Schulman et al. 2017, eq. 9).

    Args:
        coefficient: weight of the entropy in nats, at least 0. A number, or a Keras schedule over
            gradient steps.

    Raises:
        ValueError: if an argument is out of range or, when called with a positive coefficient, if
            the distribution has no exact entropy.
    """

    coefficient: float | Schedule = 0.0

    def __post_init__(self) -> None:
        check_positive("coefficient", self.coefficient, zero_allowed=True)

    def __call__(
        self,
        *,
        new_dist: Distribution,
        old_dist: Distribution,
        actions: Nest,
        advantages: Tensor,
        importance_weights: Tensor | None = None,
        gradient_steps: Tensor | None = None,
    ) -> tuple[Tensor, Metrics]:
        """Returns (loss [n], no metrics, since the learner reports the entropy anyway)."""
        del old_dist, actions, importance_weights
        if not is_schedule(self.coefficient) and self.coefficient == 0:
            return tf.zeros_like(advantages), {}  # any distribution will do
        try:
            return -now(self.coefficient, gradient_steps) * new_dist.entropy(), {}
        except NotImplementedError as error:
            raise ValueError(
                "EntropyBonus needs a distribution with an exact entropy in TFP. "
                f"Received: {new_dist}"
            ) from error


class Sum(tf.Module):
    """The sum of losses, for instance `Sum([Clip(0.2), EntropyBonus(0.01)])`.

    Args:
        losses: one or more losses, whose metrics must have different names.

    Raises:
        ValueError: if there is no loss, or one requires a keyword that the learner does not offer.
    """

    def __init__(self, losses: Sequence[Loss]):
        super().__init__(name="sum")
        if not losses:
            raise ValueError("losses must hold at least one loss. Received: losses=[]")
        self.losses = tuple(losses)
        self._calls = [keywords.taking(loss, LOSS_KEYWORDS, "loss") for loss in losses]

    def __call__(
        self,
        *,
        new_dist: Distribution,
        old_dist: Distribution,
        actions: Nest,
        advantages: Tensor,
        observations: Nest | None = None,
        valid: Tensor | None = None,
        importance_weights: Tensor | None = None,
        gradient_steps: Tensor | None = None,
    ) -> tuple[Tensor, Metrics]:
        """Returns (loss [n], all metrics). Each loss gets the keywords it names."""
        batch = {"new_dist": new_dist, "old_dist": old_dist, "actions": actions}
        batch |= {"advantages": advantages, "observations": observations, "valid": valid}
        batch |= {"importance_weights": importance_weights, "gradient_steps": gradient_steps}
        total: Any = 0.0
        metrics: Metrics = {}
        for loss in self._calls:
            part, part_metrics = loss(**batch)
            if clash := metrics.keys() & part_metrics.keys():
                raise ValueError(
                    f"Two losses report metrics of one name. Received: {sorted(clash)}"
                )
            total += part
            metrics.update(part_metrics)
        return total, metrics

    def after_update(self, kl: Tensor) -> None:
        """Passes the mean KL(old || new) of the update on to the losses that adapt."""
        for loss in self.losses:
            if hasattr(loss, "after_update"):
                loss.after_update(kl)
