"""What an update computes with the weights before it, and hands to its update rule as a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import tensorflow as tf

from ppo_tf import ops
from ppo_tf.learning.batch import Batch, first_states
from ppo_tf.learning.memories import Memories
from ppo_tf.learning.normalizers import old_distribution
from ppo_tf.learning.objective import Objective
from ppo_tf.learning.reuse import Rollouts, importance_weights
from ppo_tf.learning.updates.rule import plain
from ppo_tf.policies.log_probs import log_probs_of
from ppo_tf.types import Nest, Tensor, Trajectory


class Start(NamedTuple):
    """What an update computes with the weights before it."""

    rewards: Tensor  # [T, B], those of the estimator
    log_probs: Tensor | tuple[()]  # [T, B], of the actions, if rollouts are kept or weighted
    importance_weights: Tensor | tuple[()]  # [T, B]
    policy_state: list[Tensor]  # before the first row, [B, units] each
    critic_state: list[Tensor]
    policy_states: list[Tensor]  # after each row, [T, B, units] each
    critic_states: list[Tensor]
    acted: Mapping[str, Nest]  # parameters of the distribution before the update, [T, B, ...]
    explained_variance: Tensor
    batch: Batch


@dataclass(frozen=True)
class Preparation:
    """Turns a trajectory into a batch, with the parts of a `Learner`."""

    objective: Objective
    memories: Memories
    rollouts: Rollouts
    transform: Callable[..., Tensor] | None  # of rewards
    sequence_length: int

    @plain
    def __call__(self, trajectory: Trajectory) -> Start:
        """Computes everything that needs the weights before the update."""
        rewards = self._rewards(trajectory)
        policy_state, critic_state = self.memories.read()
        acted, old_parameters, policy_states = old_distribution(
            *(self.objective.policy, self.objective.critic, trajectory),
            *(policy_state, critic_state, self.rollouts.newest(trajectory._replace(log_probs=()))),
        )
        log_probs, weights = self._weights(acted, trajectory)
        values, advantages, targets, critic_states = self.objective.estimate(
            trajectory, rewards, critic_state, weights
        )
        length = self.sequence_length
        facts = (trajectory.observations, trajectory.actions, trajectory.valid, trajectory.starts)
        estimates = (old_parameters, values, advantages, targets)
        others = (trajectory.layer_noise, weights)
        steps: Any = ops.to_sequences((*facts, *estimates, *others), length)
        states: Any = (
            first_states(policy_state, policy_states, length),
            first_states(critic_state, critic_states, length),
        )
        return Start(
            rewards=rewards,
            log_probs=log_probs,
            importance_weights=weights,
            policy_state=policy_state,
            critic_state=critic_state,
            policy_states=policy_states,
            critic_states=critic_states,
            acted=acted,
            explained_variance=ops.explained_variance(values, targets, trajectory.valid),
            batch=Batch(*steps, *states),
        )

    @plain
    def reestimated(self, start: Start, trajectory: Trajectory) -> Batch:
        """Returns the batch with advantages and targets by the critic's current weights."""
        _, advantages, targets, _ = self.objective.estimate(
            trajectory, start.rewards, start.critic_state, start.importance_weights
        )
        advantages, targets = ops.to_sequences((advantages, targets), self.sequence_length)
        return start.batch._replace(advantages=advantages, targets=targets)

    def _rewards(self, trajectory: Trajectory) -> Tensor:
        """Returns the estimator's rewards [T, B]: transformed once, and 0 on invalid rows."""
        rewards = tf.cast(trajectory.rewards, tf.float32)
        if self.transform is not None:
            newest = self.rollouts.newest(trajectory._replace(rewards=rewards, log_probs=()))
            old = rewards[:, newest.rewards.shape[1] :]
            rewards = self.transform(**newest._asdict())
            if self.rollouts.count > 1:
                rewards = tf.concat([rewards, old], axis=1)
        return tf.where(trajectory.valid, rewards, tf.zeros_like(rewards))

    def _weights(
        self, acted: Mapping[str, Nest], trajectory: Trajectory
    ) -> tuple[Tensor | tuple[()], Tensor | tuple[()]]:
        """Returns (log-probabilities of the actions, importance weights), both [T, B] or empty."""
        if isinstance(trajectory.log_probs, tuple):
            return (), ()
        log_probs = log_probs_of(self.objective.policy, acted, trajectory.actions)
        return log_probs, importance_weights(log_probs, trajectory)
