"""Trust regions as update rules: the natural policy gradient and TRPO.

Schulman et al. 2015 (arXiv 1502.05477), section 6 and appendix C. With L the policy's loss, g its
gradient at the weights theta_0, and F the Fisher matrix, the Hessian at theta_0 of the mean
KL(theta_0 || theta):

    solve F x = g                              conjugate gradient, from products F v alone
    s = sqrt(2 delta / (x F x))                KL(theta_0 || theta_0 - s x) = delta, to second order
    theta <- theta_0 - s x                     the natural policy gradient ends here (Kakade 2001)
    while KL > delta or L has not fallen:      TRPO makes sure of both
        shorten the step

The critic is then fitted by first-order steps of its own.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from ppo_tf import ops
from ppo_tf.learning import diagnostics
from ppo_tf.learning.batch import Batch
from ppo_tf.learning.objective import Objective, Terms
from ppo_tf.learning.schedules import check_positive
from ppo_tf.learning.updates.minibatch import MinibatchUpdate
from ppo_tf.learning.updates.rule import plain
from ppo_tf.support.checks import check_at_least_one
from ppo_tf.types import Metrics, Tensor


class CriticRegression(MinibatchUpdate):
    """Fits the critic to the targets, and leaves the policy alone."""

    def _loss(
        self, objective: Objective, batch: Batch, gradient_steps: Tensor
    ) -> tuple[Tensor, Terms]:
        """c1 L_value + L_models, see `minibatch.total_loss`."""
        terms = objective.terms(batch, gradient_steps)
        assert terms.value_loss is not None
        loss = objective.value_coefficient * terms.value_loss
        if terms.model_loss is not None:
            loss += terms.model_loss
        return loss, terms._replace(metrics={"value_loss": terms.value_loss})


class _Point(NamedTuple):
    """Where the policy is: its loss, and its mean divergence from where the update began, nats."""

    loss: Tensor
    kl: Tensor


@dataclass(frozen=True)
class TrustRegionUpdate:
    """One step of the policy within a trust region, then gradient steps of the critic.

    The policy's loss is that of the learner, on the whole batch: `Surrogate()` in the papers. The
    region lies around the policy that the update starts from, after its normalisers have moved.

    Args:
        trust_region: largest mean KL(old || new) of an update, delta, in nats.
        line_search: whether the step is shortened until it keeps to the region and lowers the loss,
            as in TRPO; without, it is the natural policy gradient, which trusts the second order.
        epochs, minibatch_size, recompute_advantages: of the critic, as in `MinibatchUpdate`.
        cg_iterations: iterations of the conjugate gradient.
        damping: added to the diagonal of the Fisher matrix.
        backtracks: how often the line search shortens the step, to 0.8 of it, before it gives up
            and leaves the policy as it was.

    Raises:
        ValueError: an argument is out of range.
    """

    trust_region: float = 0.01
    line_search: bool = True
    epochs: int = 10
    minibatch_size: int = 64
    recompute_advantages: bool = False
    cg_iterations: int = 10
    damping: float = 0.1
    backtracks: int = 15

    def __post_init__(self) -> None:
        for name in ("trust_region", "damping"):
            check_positive(name, getattr(self, name))
        check_at_least_one(cg_iterations=self.cg_iterations, backtracks=self.backtracks)
        _ = self.critic  # whose arguments are checked now

    @functools.cached_property
    def critic(self) -> CriticRegression:
        """How the critic learns."""
        return CriticRegression(self.epochs, self.minibatch_size, self.recompute_advantages)

    def check(self, objective: Objective) -> None:
        """Raises ValueError if actor and critic share weights, which would leave the region."""
        if objective.critic is None:
            return
        critic = {id(weight) for weight in objective.critic.trainable_variables}
        shared = [w.path for w in objective.policy.trainable_variables if id(w) in critic]
        if shared:
            raise ValueError(
                "A trust region needs an actor and a critic without common weights. "
                f"Received: both have {shared[0]}"
            )

    def check_batch(self, horizon: int, num_envs: int, sequence_length: int) -> None:
        """Raises ValueError unless minibatches divide a trajectory of [horizon, num_envs]."""
        self.critic.check_batch(horizon, num_envs, sequence_length)

    def draw(self, sequences: int, sequence_length: int, seed: int, iteration: int) -> np.ndarray:
        """Shuffles the sequences for each gradient step of the critic; see `MinibatchUpdate`."""
        return self.critic.draw(sequences, sequence_length, seed, iteration)

    def __call__(
        self,
        batch: Batch,
        objective: Objective,
        variables: Sequence[keras.Variable],
        optimizer: keras.optimizers.Optimizer,
        draws: Tensor,
        reestimate: Callable[[], Batch],
    ) -> Metrics:
        """Improves the policy, then the critic; see `UpdateRule`.

        Returns:
            Of the policy: `policy_loss` before the step and the loss's own metrics; `gradient_norm`
            of g; `improvement`, by how much the step lowered the loss; `step_scale`, the part of
            the full step that was taken, 0 if none was. Of the critic: as `MinibatchUpdate`.
        """
        actor, critic = self._split(objective, variables)
        metrics = self._improve_policy(batch, objective, actor, optimizer.iterations)
        if objective.critic is not None:
            metrics |= self._renamed(
                self.critic(batch, objective, critic, optimizer, draws, reestimate)
            )
        return metrics

    @plain
    def _split(
        self, objective: Objective, variables: Sequence[keras.Variable]
    ) -> tuple[list[keras.Variable], list[keras.Variable]]:
        """Returns the weights of the policy and those of the critic."""
        policy = {id(weight) for weight in objective.policy.trainable_variables}
        return (
            [v for v in variables if id(v) in policy],
            [v for v in variables if id(v) not in policy],
        )

    @plain
    def _renamed(self, metrics: Metrics) -> Metrics:
        """The critic's metrics, without those that would be taken for the policy's."""
        names = {"loss": "critic_loss", "gradient_norm": "critic_gradient_norm"}
        return {names.get(name, name): value for name, value in metrics.items()}

    @plain
    def _improve_policy(
        self,
        batch: Batch,
        objective: Objective,
        actor: list[keras.Variable],
        gradient_steps: Tensor,
    ) -> Metrics:
        """Takes one step of the policy; returns its metrics."""
        with tf.GradientTape() as tape:
            terms = objective.terms(batch, gradient_steps)
            loss = _policy_loss(terms)
        gradient = _flat(tape.gradient(loss, [v.value for v in actor]), actor)
        start = _values(actor)
        # The region's center is a constant: what the policy is now, whatever it becomes.
        center = tf.nest.map_structure(tf.stop_gradient, self._parameters(batch, objective))
        family = objective.policy.family

        def measure() -> _Point:
            terms = objective.terms(batch, gradient_steps)
            kl = diagnostics.divergence(family(**center), terms.new_dist, terms.actions)
            return _Point(_policy_loss(terms), ops.masked_mean(kl, terms.valid))

        step = self._natural_step(batch, objective, actor, center, gradient)
        if self.line_search:
            scale, after = self._search(actor, start, step, loss, measure)
        else:
            _assign(actor, start - step)
            scale, after = tf.constant(1.0), measure()
        metrics = {name: x for name, x in terms.metrics.items() if name != "value_loss"}
        return metrics | {
            "gradient_norm": tf.norm(gradient),
            "improvement": loss - after.loss,
            "step_scale": scale,
        }

    def _natural_step(
        self,
        batch: Batch,
        objective: Objective,
        actor: list[keras.Variable],
        center: dict[str, Any],
        gradient: Tensor,
    ) -> Tensor:
        """Returns s x, float [weights of the actor], where F x = g and s reaches the border."""

        def fisher_product(vector: Tensor) -> Tensor:
            with tf.GradientTape() as outer:
                with tf.GradientTape() as inner:
                    kl = self._divergence(batch, objective, center)
                slope = _flat(inner.gradient(kl, [v.value for v in actor]), actor)
                product = tf.reduce_sum(slope * tf.stop_gradient(vector))
            curvature = _flat(outer.gradient(product, [v.value for v in actor]), actor)
            return curvature + self.damping * vector

        operator = _Fisher(fisher_product, gradient.shape[0])
        direction = tf.linalg.experimental.conjugate_gradient(
            operator, gradient, tol=1e-10, max_iter=self.cg_iterations
        ).x
        curvature = tf.reduce_sum(direction * fisher_product(direction))
        # Without a gradient there is no direction, and nothing to do.
        scale = tf.sqrt(tf.math.divide_no_nan(2.0 * self.trust_region, curvature))
        return tf.where(curvature > 0, scale * direction, tf.zeros_like(direction))

    def _search(
        self,
        actor: list[keras.Variable],
        start: Tensor,
        step: Tensor,
        loss: Tensor,
        measure: Callable[[], _Point],
    ) -> tuple[Tensor, _Point]:
        """Shortens the step until it is good; returns its scale, and where the policy is then."""

        def is_bad(point: _Point) -> Tensor:
            good = (point.kl <= self.trust_region) & (point.loss < loss)
            return ~good  # also if one of them is not a number

        def shorten(tries: Tensor, _: _Point) -> tuple[Tensor, _Point]:
            _assign(actor, start - 0.8 ** tf.cast(tries, tf.float32) * step)
            return tries + 1, measure()

        tries, point = tf.while_loop(
            lambda tries, point: (tries < self.backtracks) & is_bad(point),
            shorten,
            (tf.constant(0), _Point(loss, tf.zeros_like(loss))),  # no step is no good step
        )
        given_up = is_bad(point)
        _assign(actor, tf.where(given_up, start, _values(actor)))
        scale = tf.where(given_up, 0.0, 0.8 ** tf.cast(tries - 1, tf.float32))
        return scale, _Point(tf.where(given_up, loss, point.loss), point.kl)

    def _parameters(self, batch: Batch, objective: Objective) -> dict[str, Any]:
        """The parameters of the policy's distribution on the batch, [L * N, ...]."""
        with objective.layer_noise.given(ops.merge_time(tuple(batch.layer_noise))):
            parameters, _ = objective.policy.unroll(
                batch.observations, batch.policy_state, batch.starts
            )
        return dict(ops.merge_time(parameters))

    def _divergence(self, batch: Batch, objective: Objective, center: dict[str, Any]) -> Tensor:
        """Mean KL(center || now) over the valid samples, in nats."""
        family = objective.policy.family
        now = family(**self._parameters(batch, objective))
        actions, valid = ops.merge_time((batch.actions, batch.valid))
        kl = diagnostics.divergence(family(**center), now, actions)
        return ops.masked_mean(kl, valid)


class _Fisher(tf.linalg.LinearOperator):
    """The Fisher matrix [n, n], known only by its products with vectors."""

    def __init__(self, product: Callable[[Tensor], Tensor], size: int):
        super().__init__(
            tf.float32, is_self_adjoint=True, is_positive_definite=True, is_square=True
        )
        self._product, self._size = product, size

    def _shape(self) -> tf.TensorShape:
        return tf.TensorShape([self._size, self._size])

    def _matmul(self, x: Tensor, adjoint: bool = False, adjoint_arg: bool = False) -> Tensor:
        return self._product(x[:, 0])[:, None]  # the method asks for single vectors


def _policy_loss(terms: Terms) -> Tensor:
    """L_policy + L_models: what a step of the policy is to lower."""
    return terms.policy_loss if terms.model_loss is None else terms.policy_loss + terms.model_loss


def _flat(gradients: Sequence[Tensor | None], variables: Sequence[keras.Variable]) -> Tensor:
    """Gradients as one vector; a weight that does not matter has one of 0."""
    pairs = zip(gradients, variables, strict=True)
    return tf.concat([tf.reshape(tf.zeros(v.shape) if g is None else g, [-1]) for g, v in pairs], 0)


def _values(variables: Sequence[keras.Variable]) -> Tensor:
    """The weights as one vector."""
    return tf.concat([tf.reshape(tf.identity(v), [-1]) for v in variables], 0)


def _assign(variables: Sequence[keras.Variable], vector: Tensor) -> None:
    """The inverse of `_values`."""
    sizes = [math.prod(v.shape) for v in variables]
    for variable, part in zip(variables, tf.split(vector, sizes), strict=True):
        variable.assign(tf.reshape(part, variable.shape))
