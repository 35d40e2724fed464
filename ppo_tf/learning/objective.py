"""What a gradient step minimises: the losses of policy and critic on a minibatch."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import keras
import tensorflow as tf

from ppo_tf import ops
from ppo_tf.learning import diagnostics
from ppo_tf.learning.batch import Batch
from ppo_tf.networks import models, recurrent
from ppo_tf.policies.policy import Policy
from ppo_tf.types import Estimator, Loss, Metrics, Nest, Tensor, Trajectory, ValueLoss


@dataclass(frozen=True)
class Objective:
    """Values, advantages and the total loss, from the parts that `Learner` documents."""

    policy: Policy
    critic: keras.Model | None
    estimator: Estimator
    loss: Loss
    value_loss: ValueLoss
    value_coefficient: float
    standardize_advantages: bool
    early_stopping_kl: float | None

    @functools.cached_property
    def joint(self) -> keras.Model | None:
        """Actor and critic in one model where they share layers."""
        return models.joint_model(self.policy.actor, self.critic)

    def values(
        self, observations, state: list[Tensor], starts: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """V(s) float [T, B] and the critic's states after each step."""
        if self.critic is None:
            return tf.zeros(starts.shape), []
        values, states = recurrent.unroll(self.critic, observations, state, starts)
        if values.shape.rank != 2:
            shape = ", ".join(["n", *map(str, values.shape[2:])])
            raise ValueError(
                f"The critic must return values of shape [n]. Received: values of shape [{shape}]"
            )
        return values, states

    def estimate(
        self, trajectory: Trajectory, rewards: Tensor, state: list[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        """Values, advantages and targets by the critic's present weights.

        Args:
            trajectory: [T, B].
            rewards: float [T, B], as the estimator shall see them.
            state: the critic's, before the first row.

        Returns:
            (values, advantages, targets, states), the first three float [T, B].
        """
        values, states = self.values(trajectory.observations, state, trajectory.starts)
        # V(s') is one step on from the state after s, whether or not s' is the next row.
        next_values, _ = self.values(
            tf.nest.map_structure(lambda x: x[None], ops.merge_time(trajectory.next_observations)),
            ops.merge_time(states),
            tf.zeros([1, math.prod(rewards.shape)], tf.bool),
        )
        # Where a row that is no transition follows, the sum must end: as at a truncation.
        cut = tf.concat([~trajectory.valid[1:], tf.zeros_like(trajectory.valid[:1])], axis=0)
        advantages, targets = self.estimator(
            rewards=rewards,
            values=values,
            next_values=tf.reshape(next_values, rewards.shape),
            terminated=trajectory.terminated,
            truncated=trajectory.truncated | cut,
        )
        return values, advantages, targets, states

    def _forward(self, batch: Batch) -> tuple[Nest, Tensor]:
        """The distribution's parameters and V(s), [L, n, ...]."""
        if self.joint is not None:
            return recurrent.unroll(self.joint, batch.observations, [], batch.starts)[0]
        parameters, _ = self.policy.unroll(batch.observations, batch.policy_state, batch.starts)
        values, _ = self.values(batch.observations, batch.critic_state, batch.starts)
        return parameters, values

    def losses(self, batch: Batch) -> tuple[Tensor, Metrics, Tensor]:
        """Total loss, metrics and mean KL(old || new) of a minibatch, scalars.

        The divergence is 0 where no `early_stopping_kl` asks for it.
        """
        new_parameters, values = self._forward(batch)
        actions, valid, old_parameters, new_parameters, advantages = ops.merge_time(
            (batch.actions, batch.valid, batch.old_parameters, new_parameters, batch.advantages)
        )
        if self.standardize_advantages:
            advantages = ops.standardize(advantages, valid)
        new_dist = self.policy.family(**new_parameters)
        old_dist = self.policy.family(**old_parameters)
        loss, loss_metrics = self.loss(
            new_dist=new_dist, old_dist=old_dist, actions=actions, advantages=advantages
        )
        policy_loss = ops.masked_mean(loss, valid)
        metrics = {"policy_loss": policy_loss}
        total = policy_loss
        if self.critic is not None:
            values, old_values, targets = ops.merge_time((values, batch.old_values, batch.targets))
            errors = self.value_loss(values=values, old_values=old_values, targets=targets)
            metrics["value_loss"] = ops.masked_mean(errors, valid)
            total += self.value_coefficient * metrics["value_loss"]
        for name, value in loss_metrics.items():
            metrics[name] = ops.masked_mean(value, valid) if value.shape.rank else value
        kl = tf.constant(0.0)
        if self.early_stopping_kl is not None:
            kl = ops.masked_mean(diagnostics.divergence(old_dist, new_dist, actions), valid)
        return total, metrics | {"loss": total}, kl
