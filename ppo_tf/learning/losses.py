"""Policy losses and value losses, per sample and unreduced: the learner takes the mean.

A policy loss takes new_dist and old_dist (TFP distributions of batch shape [n]), actions [n, ...]
and advantages float [n] by keyword, and returns (loss float [n], metrics). Lower is better, so the
objectives in the papers appear with a minus sign. `ratio` is pi_new(a|s) / pi_old(a|s).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from ppo_tf import ops
from ppo_tf.support import keywords
from ppo_tf.types import LOSS_KEYWORDS, Distribution, Loss, Metrics, Nest, Tensor


def _check_positive(name: str, value: float, *, zero_allowed: bool = False) -> None:
    good = value >= 0 if zero_allowed else value > 0
    if not (good and math.isfinite(value)):
        bound = "at least 0" if zero_allowed else "positive"
        raise ValueError(f"{name} must be {bound} and finite. Received: {name}={value}")


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


@dataclass(frozen=True)
class PolicyGradient:
    """L = -log pi_new(a|s) A, whose gradient is the policy gradient (Williams 1992).

    Correct for a single gradient step on fresh data only: the expectation is over the policy that
    acted, which is the policy being trained only until the first step.
    """

    def __call__(
        self,
        *,
        new_dist: Distribution,
        old_dist: Distribution,
        actions: Nest,
        advantages: Tensor,
    ) -> tuple[Tensor, Metrics]:
        """Returns (loss [n], no metrics)."""
        del old_dist
        return -_log_prob(new_dist, actions, advantages) * advantages, {}


@dataclass(frozen=True)
class Clip:
    """L = -min(r A, clip(r, 1 - epsilon, 1 + epsilon_high) A), PPO's clipped surrogate.

    Schulman et al. 2017 (arXiv 1707.06347), eq. 7. Reports `clip_fraction`, the share of samples
    whose ratio left the interval.

    Args:
        epsilon: how far the ratio may fall below 1, in (0, 1); also how far it may rise above 1,
            unless epsilon_high is given.
        epsilon_high: how far the ratio may rise above 1, positive.
    """

    epsilon: float = 0.2
    epsilon_high: float | None = None

    def __post_init__(self) -> None:
        if not 0.0 < self.epsilon < 1.0:
            raise ValueError(f"epsilon must be in (0, 1). Received: epsilon={self.epsilon}")
        if self.epsilon_high is not None:
            _check_positive("epsilon_high", self.epsilon_high)

    def __call__(
        self,
        *,
        new_dist: Distribution,
        old_dist: Distribution,
        actions: Nest,
        advantages: Tensor,
    ) -> tuple[Tensor, Metrics]:
        """Returns (loss [n], {"clip_fraction": [n]})."""
        ratio = probability_ratio(new_dist, old_dist, actions, advantages)
        low = 1.0 - self.epsilon
        high = 1.0 + (self.epsilon if self.epsilon_high is None else self.epsilon_high)
        clipped = tf.clip_by_value(ratio, low, high)
        loss = -tf.minimum(ratio * advantages, clipped * advantages)
        outside = tf.cast((ratio < low) | (ratio > high), loss.dtype)
        return loss, {"clip_fraction": outside}


class KLPenalty(tf.Module):
    """L = -(r A - beta KL(old || new)), PPO's other surrogate, with beta fixed or adaptive.

    Schulman et al. 2017 (arXiv 1707.06347), eq. 8. Given a target, beta adapts after each update
    to the mean divergence d of that update: beta <- beta / 2 if d < target / 1.5, and
    beta <- 2 beta if d > 1.5 target. Reports `kl_coefficient`. With coefficient 0 the loss is the
    plain importance-weighted surrogate r A.

    Args:
        coefficient: beta, or its initial value; at least 0, and positive with a target, since
            doubling 0 gives 0.
        target: divergence per update to aim for, in nats; None keeps beta fixed.

    Raises:
        ValueError: if an argument is out of range or, when called, if the distribution has no
            exact KL.
    """

    def __init__(self, coefficient: float = 1.0, target: float | None = None):
        super().__init__(name="kl_penalty")
        _check_positive("coefficient", coefficient, zero_allowed=target is None)
        if target is not None:
            _check_positive("target", target)
        self.target = target
        self.coefficient = tf.Variable(coefficient, trainable=False, dtype=tf.float32)

    def __call__(
        self,
        *,
        new_dist: Distribution,
        old_dist: Distribution,
        actions: Nest,
        advantages: Tensor,
    ) -> tuple[Tensor, Metrics]:
        """Returns (loss [n], {"kl_coefficient": scalar})."""
        ratio = probability_ratio(new_dist, old_dist, actions, advantages)
        try:
            kl = old_dist.kl_divergence(new_dist)  # KL(old || new), nats
        except NotImplementedError as error:
            raise ValueError(
                "KLPenalty needs a distribution with an exact KL divergence in TFP. "
                f"Received: {new_dist}"
            ) from error
        beta = self.coefficient.read_value()
        return beta * kl - ratio * advantages, {"kl_coefficient": beta}

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
        coefficient: weight of the entropy in nats, at least 0.

    Raises:
        ValueError: if an argument is out of range or, when called with a positive coefficient, if
            the distribution has no exact entropy.
    """

    coefficient: float = 0.0

    def __post_init__(self) -> None:
        _check_positive("coefficient", self.coefficient, zero_allowed=True)

    def __call__(
        self,
        *,
        new_dist: Distribution,
        old_dist: Distribution,
        actions: Nest,
        advantages: Tensor,
    ) -> tuple[Tensor, Metrics]:
        """Returns (loss [n], no metrics, since the learner reports the entropy anyway)."""
        del old_dist, actions
        if self.coefficient == 0:  # any distribution will do
            return tf.zeros_like(advantages), {}
        try:
            return -self.coefficient * new_dist.entropy(), {}
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
    ) -> tuple[Tensor, Metrics]:
        """Returns (loss [n], all metrics). Each loss gets the keywords it names."""
        batch = {"new_dist": new_dist, "old_dist": old_dist, "actions": actions}
        batch |= {"advantages": advantages, "observations": observations, "valid": valid}
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


@dataclass(frozen=True)
class SquaredError:
    """L = (V - target)^2 (Schulman et al. 2017, L^VF)."""

    def __call__(self, *, values: Tensor, old_values: Tensor, targets: Tensor) -> Tensor:
        """All arguments float [n]; returns float [n]."""
        del old_values
        return (values - targets) ** 2


@dataclass(frozen=True)
class ClippedError:
    """L = max((V - target)^2, (V_old + clip(V - V_old, +-epsilon) - target)^2).

    The value clipping of OpenAI Baselines. Of doubtful use: Andrychowicz et al. 2021
    (arXiv 2006.05990) found that it hurts.

    Args:
        epsilon: how far a value may move per update before its gradient vanishes, in units of
            return.
    """

    epsilon: float = 0.2

    def __post_init__(self) -> None:
        _check_positive("epsilon", self.epsilon)

    def __call__(self, *, values: Tensor, old_values: Tensor, targets: Tensor) -> Tensor:
        """All arguments float [n]; returns float [n]."""
        moved = tf.clip_by_value(values - old_values, -self.epsilon, self.epsilon)
        return tf.maximum((values - targets) ** 2, (old_values + moved - targets) ** 2)


@dataclass(frozen=True)
class Huber:
    """L = e^2 where |e| <= delta, else 2 delta |e| - delta^2, with e = V - target (Huber 1964).

    Args:
        delta: error beyond which the loss grows linearly, in units of return.
    """

    delta: float = 1.0

    def __post_init__(self) -> None:
        _check_positive("delta", self.delta)

    def __call__(self, *, values: Tensor, old_values: Tensor, targets: Tensor) -> Tensor:
        """All arguments float [n]; returns float [n]."""
        del old_values
        error = tf.abs(values - targets)
        return tf.where(error <= self.delta, error**2, 2.0 * self.delta * error - self.delta**2)
