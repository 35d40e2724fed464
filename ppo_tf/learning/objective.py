"""The objective of an update: values, advantages, and the losses of policy and critic."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import keras
import numpy as np
import tensorflow as tf

from ppo_tf import ops
from ppo_tf.learning.batch import Batch
from ppo_tf.networks import models, recurrent
from ppo_tf.networks.noise import LayerNoise, find_noise
from ppo_tf.policies.policy import Policy
from ppo_tf.support import keywords, seeds
from ppo_tf.types import (
    ESTIMATOR_KEYWORDS,
    LOSS_KEYWORDS,
    VALUE_LOSS_KEYWORDS,
    Distribution,
    Estimator,
    Loss,
    Metrics,
    Nest,
    Tensor,
    Trajectory,
    ValueLoss,
)

Standardization = Literal["minibatch", "batch", "off"]


class Terms(NamedTuple):
    """The losses on a minibatch of n samples, and what they were computed from.

    Attributes:
        policy_loss: scalar, mean over the valid samples.
        value_loss: scalar, mean over the valid samples; None without a critic.
        model_loss: scalar, the sum of Keras' `model.losses` of actor and critic (regularizers and
            `add_loss`); None if there are none.
        metrics: these losses and the metrics of the policy loss, scalars by name.
        old_dist, new_dist: distributions of batch shape [n], before the update and now.
        actions: [n, ...], raw.
        valid: bool [n], the samples that count.
    """

    policy_loss: Tensor
    value_loss: Tensor | None
    model_loss: Tensor | None
    metrics: Metrics
    old_dist: Distribution
    new_dist: Distribution
    actions: Nest
    valid: Tensor


@dataclass(frozen=True)
class Objective:
    """Computes advantages and losses from the components that `Learner` documents.

    Raises:
        ValueError: a component needs an argument that its protocol does not have.
    """

    policy: Policy
    critic: keras.Model | None
    estimator: Estimator
    loss: Loss
    value_loss: ValueLoss
    value_coefficient: float
    standardize_advantages: Standardization

    def __post_init__(self) -> None:
        if self.standardize_advantages not in get_args(Standardization):
            raise ValueError(
                f"standardize_advantages must be one of {get_args(Standardization)}. "
                f"Received: standardize_advantages={self.standardize_advantages!r}"
            )
        # Inspects the signatures now, so that a component that needs too much is refused early.
        _ = self._advantages, self._policy_loss, self._errors, self.layer_noise

    @functools.cached_property
    def _advantages(self) -> Callable[..., tuple[Tensor, Tensor]]:
        return keywords.taking(self.estimator, ESTIMATOR_KEYWORDS, "estimator")

    @property
    def weighs_steps(self) -> bool:
        """Whether the estimator needs importance weights."""
        names = keywords.accepted(self.estimator, ESTIMATOR_KEYWORDS, "estimator")
        return "importance_weights" in names

    @functools.cached_property
    def _policy_loss(self) -> Callable[..., tuple[Tensor, Metrics]]:
        return keywords.taking(self.loss, LOSS_KEYWORDS, "loss")

    @functools.cached_property
    def _errors(self) -> Callable[..., Tensor]:
        return keywords.taking(self.value_loss, VALUE_LOSS_KEYWORDS, "value_loss")

    @functools.cached_property
    def layer_noise(self) -> LayerNoise:
        """What the layers with noise draw for the samples: the actor's first, then those that only
        the critic has."""
        sites = self.policy.layer_noise.sites
        of_actor = {id(site.layer) for site in sites}
        of_critic = find_noise(self.critic).sites
        return LayerNoise([*sites, *(s for s in of_critic if id(s.layer) not in of_actor)])

    def with_layer_noise(self, trajectory: Trajectory, seed: int, iteration: int) -> Trajectory:
        """Adds what the critic's own layers draw, if any.

        Raises:
            ValueError: the trajectory has not what the actor's layers drew.
        """
        sites, given = self.layer_noise.sites, trajectory.layer_noise
        count = len(self.policy.layer_noise.sites)
        if len(given) != count:
            raise ValueError(
                "layer_noise must have what each layer with noise in the actor drew, "
                f"{[site.layer.name for site in sites[:count]]}, as a VectorCollector gives it. "
                f"Received: {len(given)} draws"
            )
        own: tuple[np.ndarray, ...] = ()
        if len(sites) > count:
            generator = seeds.derive_generator(seed, "critic's layer noise", iteration)
            own = LayerNoise(sites[count:]).draw(generator, *np.shape(trajectory.rewards))
        return trajectory._replace(layer_noise=(*given, *own))

    @functools.cached_property
    def joint(self) -> keras.Model | None:
        """Actor and critic as one model if they share layers, otherwise None."""
        return models.joint_model(self.policy.actor, self.critic)

    def values(
        self, observations: Nest, state: list[Tensor], starts: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """Returns V(s), float [T, B], and the critic's states after each step."""
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
        self,
        trajectory: Trajectory,
        rewards: Tensor,
        state: list[Tensor],
        importance_weights: Tensor | tuple[()] = (),
    ) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
        """Estimates values, advantages and targets with the critic's current weights.

        Args:
            trajectory: [T, B].
            rewards: float [T, B], rewards for the estimator.
            state: the critic's state before the first row.
            importance_weights: float [T, B], or empty.

        Returns:
            (values, advantages, targets, states), the first three float [T, B].

        Raises:
            ValueError: the estimator needs importance weights, and there are none.
        """
        if self.weighs_steps and isinstance(importance_weights, tuple):
            raise ValueError(
                "The estimator needs importance weights, so the trajectory needs log_probs, those "
                "of the policy that acted: make the collector with log_probs=True. "
                f"Received: estimator={self.estimator}, log_probs=()"
            )
        values, states = self.values(trajectory.observations, state, trajectory.starts)
        # V(s') continues from the state after s, whether or not s' is the next row.
        next_values, _ = self.values(
            tf.nest.map_structure(lambda x: x[None], ops.merge_time(trajectory.next_observations)),
            ops.merge_time(states),
            tf.zeros([1, math.prod(rewards.shape)], tf.bool),
        )
        # Before a row that is not a transition, the sum must end as at a truncation.
        cut = tf.concat([~trajectory.valid[1:], tf.zeros_like(trajectory.valid[:1])], axis=0)
        advantages, targets = self._advantages(
            rewards=rewards,
            values=values,
            next_values=tf.reshape(next_values, rewards.shape),
            terminated=trajectory.terminated,
            truncated=trajectory.truncated | cut,
            valid=trajectory.valid,
            starts=trajectory.starts,
            importance_weights=importance_weights,
        )
        if self.standardize_advantages == "batch":
            advantages = ops.standardize(advantages, trajectory.valid)
        return values, advantages, targets, states

    def terms(self, batch: Batch, gradient_steps: Tensor | None = None) -> Terms:
        """Computes the losses of policy and critic on a minibatch with their current weights.

        Args:
            batch: the minibatch.
            gradient_steps: int scalar, taken so far, for schedules.
        """
        with self.layer_noise.given(ops.merge_time(tuple(batch.layer_noise))):
            parameters, values = self._forward(batch)
        observations, actions, valid, old_parameters, parameters, advantages = ops.merge_time(
            (
                *(batch.observations, batch.actions, batch.valid),
                *(batch.old_parameters, parameters, batch.advantages),
            )
        )
        if self.standardize_advantages == "minibatch":
            advantages = ops.standardize(advantages, valid)
        new_dist = self.policy.family(**parameters)
        old_dist = self.policy.family(**old_parameters)
        facts: dict[str, Any] = {"observations": observations, "valid": valid}
        facts["gradient_steps"] = gradient_steps
        weights: Any = batch.importance_weights
        losses, loss_metrics = self._policy_loss(
            new_dist=new_dist,
            old_dist=old_dist,
            actions=actions,
            advantages=advantages,
            importance_weights=None if isinstance(weights, tuple) else tf.reshape(weights, [-1]),
            **facts,
        )
        policy_loss, value_loss = ops.masked_mean(losses, valid), None
        metrics = {"policy_loss": policy_loss}
        if self.critic is not None:
            values, old_values, targets = ops.merge_time((values, batch.old_values, batch.targets))
            errors = self._errors(values=values, old_values=old_values, targets=targets, **facts)
            metrics["value_loss"] = value_loss = ops.masked_mean(errors, valid)
        model_loss = self._model_loss()
        if model_loss is not None:
            metrics["model_loss"] = model_loss
        for name, value in loss_metrics.items():
            metrics[name] = ops.masked_mean(value, valid) if value.shape.rank else value
        return Terms(
            *(policy_loss, value_loss, model_loss, metrics),
            *(old_dist, new_dist, actions, valid),
        )

    def _model_loss(self) -> Tensor | None:
        """The sum of the losses that the models added in the forward pass just made."""
        parts = [self.joint] if self.joint is not None else [self.policy.actor, self.critic]
        losses = [loss for part in parts if part is not None for loss in part.losses]
        return tf.add_n(losses) if losses else None

    def _forward(self, batch: Batch) -> tuple[Mapping[str, Nest], Tensor]:
        """Returns the distribution's parameters and V(s), [L, n, ...]."""
        if self.joint is not None:
            return recurrent.unroll(self.joint, batch.observations, [], batch.starts)[0]
        parameters, _ = self.policy.unroll(batch.observations, batch.policy_state, batch.starts)
        values, _ = self.values(batch.observations, batch.critic_state, batch.starts)
        return parameters, values
