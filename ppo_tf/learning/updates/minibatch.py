"""PPO's update rule: several epochs of gradient steps over shuffled minibatches.

Schulman et al. 2017 (arXiv 1707.06347), Algorithm 1, with the batch collected and the advantages
estimated:

    for epoch in 1 .. K:
        shuffle the samples and split them into minibatches
        for each minibatch:
            L = L_policy + c1 L_value - c2 H       (eq. 9, with the signs of a loss)
            theta <- theta - optimizer(grad L)
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from ppo_tf import ops
from ppo_tf.learning import diagnostics, undo
from ppo_tf.learning.batch import Batch
from ppo_tf.learning.objective import Objective, Terms
from ppo_tf.learning.replicas import Measured, Replicas, Share
from ppo_tf.learning.updates.rule import plain
from ppo_tf.support import seeds
from ppo_tf.support.checks import check_at_least_one
from ppo_tf.types import Metrics, Tensor


@dataclass(frozen=True)
class MinibatchUpdate:
    """First-order gradient steps over shuffled minibatches.

    Args:
        epochs: passes over the batch per update, K.
        minibatch_size: samples per gradient step; must divide horizon * num_envs. With a memory,
            minibatches consist of whole sequences.
        recompute_advantages: whether to re-estimate advantages and targets before each epoch.
        early_stopping_kl: ends the update after a gradient step whose minibatch had a mean
            KL(old || new) above it, in nats; None never does.

    Raises:
        ValueError: an argument is out of range.
    """

    epochs: int = 10
    minibatch_size: int = 64
    recompute_advantages: bool = False
    early_stopping_kl: float | None = None

    def __post_init__(self) -> None:
        check_at_least_one(epochs=self.epochs, minibatch_size=self.minibatch_size)
        if self.early_stopping_kl is not None and not self.early_stopping_kl > 0:
            raise ValueError(
                "early_stopping_kl must be positive. "
                f"Received: early_stopping_kl={self.early_stopping_kl}"
            )

    def check(self, objective: Objective) -> None:
        """Raises ValueError if minibatches of this size can't improve the objective."""
        # A single standardised advantage is always 0, so nothing would be learned.
        if objective.standardize_advantages == "minibatch" and self.minibatch_size < 2:
            raise ValueError(
                "minibatch_size must be at least 2 if advantages are standardised in each. "
                f"Received: minibatch_size={self.minibatch_size}"
            )

    def check_batch(self, horizon: int, num_envs: int, sequence_length: int) -> None:
        """Raises ValueError unless minibatches divide a trajectory of [horizon, num_envs]."""
        if horizon % sequence_length or self.minibatch_size % sequence_length:
            raise ValueError(
                "sequence_length must divide the horizon and minibatch_size. Received: "
                f"sequence_length={sequence_length}, horizon={horizon}, "
                f"minibatch_size={self.minibatch_size}"
            )
        if (horizon * num_envs) % self.minibatch_size:
            raise ValueError(
                "minibatch_size must divide horizon * num_envs. Received: "
                f"minibatch_size={self.minibatch_size}, horizon * num_envs={horizon * num_envs}"
            )

    def draw(self, sequences: int, sequence_length: int, seed: int, iteration: int) -> np.ndarray:
        """Shuffles the sequences for each gradient step, int32 [epochs, minibatches, n]."""
        order = seeds.shuffled(self.epochs, sequences, seed, "shuffle", iteration)
        return order.reshape(self.epochs, -1, self.minibatch_size // sequence_length)

    def __call__(
        self,
        batch: Batch,
        objective: Objective,
        variables: Sequence[keras.Variable],
        optimizer: keras.optimizers.Optimizer,
        draws: Tensor,
        reestimate: Callable[[], Batch],
        replicas: Replicas | None = None,
    ) -> Metrics:
        """Takes all gradient steps of an update; see `UpdateRule`.

        Returns:
            Means over the gradient steps of `total_loss`'s metrics and of `gradient_norm`, before
            clipping; the numbers of `epochs` and `gradient_steps` that ran.
        """
        step, totals = self._prepare(batch, objective, variables, optimizer, draws, replicas)
        epoch, steps, stop = tf.constant(0), tf.constant(0), tf.constant(False)

        # Loop conditions instead of `break`, which would make every step a branch.
        while epoch < self.epochs and not stop:
            data = self._data(batch, reestimate)
            minibatch = tf.constant(0)
            while minibatch < draws.shape[1] and not stop:
                metrics, kl = step(data, draws[epoch, minibatch])
                totals = _added(totals, metrics)
                stop = self._ends(metrics, kl)
                minibatch += 1
            steps += minibatch
            epoch += 1

        means = {name: total / tf.cast(steps, tf.float32) for name, total in totals.items()}
        return means | {"epochs": epoch, "gradient_steps": steps}

    # AutoGraph converts only the two loops: its conversions took a third of the tracing time.

    @plain
    def _prepare(
        self,
        batch: Batch,
        objective: Objective,
        variables: Sequence[keras.Variable],
        optimizer: keras.optimizers.Optimizer,
        draws: Tensor,
        replicas: Replicas | None,
    ) -> tuple[Callable[[Batch, Tensor], tuple[Metrics, Tensor]], Metrics]:
        """Returns the traced gradient step, and zeros to which its metrics are added."""
        step = functools.partial(self._gradient_step, objective, variables, optimizer, replicas)
        if not tf.inside_function():
            return step, {}
        # A loop's variables must exist before it; tracing tells which metrics there will be.
        traced = tf.function(step, autograph=False).get_concrete_function(batch, draws[0, 0])
        metrics, _ = traced.structured_outputs
        return traced, {name: tf.zeros(x.shape, x.dtype) for name, x in metrics.items()}

    @plain
    def _data(self, batch: Batch, reestimate: Callable[[], Batch]) -> Batch:
        """Returns the batch for an epoch; in epoch 0, new estimates equal the old ones."""
        return reestimate() if self.recompute_advantages else batch

    @plain
    def _gradient_step(
        self,
        objective: Objective,
        variables: Sequence[keras.Variable],
        optimizer: keras.optimizers.Optimizer,
        replicas: Replicas | None,
        batch: Batch,
        rows: Tensor,
    ) -> tuple[Metrics, Tensor]:
        """Takes one step of the optimizer on the sequences `rows`, int [n].

        Returns:
            (metrics, mean KL(old || new) before the step in nats, or 0 without early stopping).
        """
        minibatch = batch.take(rows)
        measure = functools.partial(self._measure, variables, optimizer.iterations)
        if replicas is None:
            gradients, metrics, kl = measure(objective, minibatch)
        else:
            gradients, metrics, kl = replicas.total(measure, objective, minibatch)
        metrics["gradient_norm"] = tf.linalg.global_norm(gradients)
        optimizer.apply(gradients, variables)
        return metrics, kl

    @plain
    def _measure(
        self,
        variables: Sequence[keras.Variable],
        gradient_steps: Tensor,
        objective: Objective,
        batch: Batch,
        share: Share | None = None,
    ) -> Measured:
        """Returns the gradients of the loss, the metrics and the mean KL(old || new).

        Those of one replica's part of a minibatch, given its share, add up to the minibatch's.
        """
        with tf.GradientTape() as tape:
            loss, terms = self._loss(objective, batch, gradient_steps)
            if share is not None:
                loss, terms = share.of(loss, terms)
        gradients = tape.gradient(loss, [v.value for v in variables])
        kl = self._divergence(terms)
        metrics = terms.metrics | {"loss": loss}
        return gradients, metrics, kl if share is None else share.samples * kl

    def _loss(
        self, objective: Objective, batch: Batch, gradient_steps: Tensor
    ) -> tuple[Tensor, Terms]:
        return total_loss(objective, batch, gradient_steps)

    @plain
    def _divergence(self, terms: Terms) -> Tensor:
        if self.early_stopping_kl is None:
            return tf.constant(0.0)
        kl = diagnostics.divergence(terms.old_dist, terms.new_dist, terms.actions)
        return ops.masked_mean(kl, terms.valid)

    @plain
    def _ends(self, metrics: Metrics, kl: Tensor) -> Tensor:
        """Whether to stop: a metric is not finite, or the policy has moved too far."""
        stop = ~undo.all_finite(list(metrics.values()))
        if self.early_stopping_kl is not None:
            stop |= kl > self.early_stopping_kl
        return stop


def total_loss(
    objective: Objective, batch: Batch, gradient_steps: Tensor | None = None
) -> tuple[Tensor, Terms]:
    """Computes L = L_policy + c1 L_value - c2 H + L_models on a minibatch, a scalar, and its terms.

    The entropy bonus -c2 H is itself a policy loss (`EntropyBonus`), so it is part of the policy
    loss here: `Sum([Clip(), EntropyBonus(c2)])` computes L_policy - c2 H. L_models is the sum of
    Keras' `model.losses`: regularizers and `add_loss`.
    """
    terms = objective.terms(batch, gradient_steps)
    loss = terms.policy_loss
    if terms.value_loss is not None:
        loss += objective.value_coefficient * terms.value_loss
    if terms.model_loss is not None:
        loss += terms.model_loss
    return loss, terms


@plain
def _added(totals: Metrics, metrics: Metrics) -> Metrics:
    return {name: totals[name] + x if name in totals else x for name, x in metrics.items()}
