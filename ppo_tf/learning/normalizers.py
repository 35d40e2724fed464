"""When normalisers learn, and what their move does to the policy."""

from __future__ import annotations

from collections.abc import Mapping

import keras
import tensorflow as tf

from ppo_tf import ops
from ppo_tf.networks import layers, recurrent
from ppo_tf.policies.policy import Policy
from ppo_tf.types import Nest, Tensor, Trajectory

Parameters = Mapping[str, Nest]


def old_distribution(
    policy: Policy,
    critic: keras.Model | None,
    trajectory: Trajectory,
    policy_state: list[Tensor],
    critic_state: list[Tensor],
    newest: Trajectory,
) -> tuple[Parameters, Parameters, list[Tensor]]:
    """Computes the distribution that acted, and lets the normalisers learn, once per update.

    They learn after the old distribution, the one that acted, is computed, and before all else. So
    ratios and KL include what their move does to the policy. Their first move, from no statistics
    at all, can be a leap that clipping would take for learning: ratios then start from the policy
    after it.

    Args:
        policy, critic: with the weights that acted.
        trajectory: [T, B].
        policy_state, critic_state: states before the first row.
        newest: what of the trajectory the normalisers have not seen yet.

    Returns:
        (parameters of the distribution that acted, parameters from which ratios start, the
        policy's states after each step), all [T, B, ...].
    """
    rows = (trajectory.observations, policy_state, trajectory.starts)
    noise = trajectory.layer_noise
    acted, states = policy.unroll(*rows, noise)
    learning = [layer for layer in layers.normalizations(policy) if layer.trainable]
    unseen = [tf.equal(layer.count, 0.0) for layer in learning]
    new = newest.observations
    with layers.learn_statistics(tf.cast(ops.merge_time(newest.valid), tf.float32)):
        recurrent.learn_statistics(policy.actor, new, policy_state, newest.starts)
        if critic is not None:
            recurrent.learn_statistics(critic, new, critic_state, newest.starts)
    if not unseen:
        return acted, acted, states
    first = tf.reduce_any(unseen)
    old = tf.cond(first, lambda: policy.unroll(*rows, noise)[0], lambda: acted)
    return acted, old, states
