"""Log-probabilities of a rollout's actions, for learners whose policy is not the one that acted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ppo_tf import ops
from ppo_tf.policies.policy import Policy
from ppo_tf.types import Nest, Tensor, Trajectory


def log_probs_of(policy: Policy, parameters: Mapping[str, Nest], actions: Nest) -> Tensor:
    """Returns log pi(a|s), float [T, B], of raw actions [T, B, ...].

    Args:
        policy: whose distribution it is.
        parameters: the distribution's, by name, [T, B, ...].
        actions: the actions.
    """
    steps, envs = tf.nest.flatten(actions)[0].shape[:2]
    merged: Any = ops.merge_time((parameters, actions))
    return tf.reshape(policy.family(**merged[0]).log_prob(merged[1]), [steps, envs])


def make_log_probs(policy: Policy) -> Callable[[Trajectory, Sequence[np.ndarray]], np.ndarray]:
    """Returns a function from a trajectory and weights to log mu(a|s) by them, float32 [T, B].

    The weights are those of the actor, in the order of `PolicyStep.read_weights`.

    Raises:
        ValueError: the policy has a memory, whose state at the first row a trajectory lacks.
    """
    if policy.recurrent:
        raise ValueError(
            "log_probs cannot be combined with a memory. Received: a policy with a memory"
        )
    variables = policy.actor.weights

    @tf.function(autograph=False)
    def compute(
        weights: Sequence[Tensor], observations: Nest, actions: Nest, starts: Tensor, noise: Any
    ) -> Tensor:
        with keras.StatelessScope(state_mapping=list(zip(variables, weights, strict=True))):
            parameters, _ = policy.unroll(observations, [], starts, noise)
            return log_probs_of(policy, parameters, actions)

    def log_probs(trajectory: Trajectory, weights: Sequence[np.ndarray]) -> np.ndarray:
        t = trajectory
        data: Any = (list(weights), t.observations, t.actions, t.starts, tuple(t.layer_noise))
        return np.asarray(compute(*tf.nest.map_structure(tf.convert_to_tensor, data)))

    return log_probs
