"""The batch of experience that an update learns from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import tensorflow as tf

from ppo_tf import ops
from ppo_tf.types import Nest, Tensor


class Batch(NamedTuple):
    """N sequences of L steps, time-major; L is 1 for models without a memory.

    Attributes:
        observations, actions, valid, starts: [L, N, ...], as in `Trajectory`.
        old_parameters: [L, N, ...], parameters of the distribution that acted.
        old_values: float [L, N], the critic's values before the update.
        advantages, targets: float [L, N].
        layer_noise: [L, N, ...] for each call of a layer with noise, the actor's first.
        importance_weights: float [L, N], pi_old(a|s) / mu(a|s) of the policy before the update over
            the one that acted; empty where they are one.
        policy_state, critic_state: lists of [N, units], the states before the first step of each
            sequence; empty without a memory.
    """

    observations: Nest
    actions: Nest
    valid: Tensor
    starts: Tensor
    old_parameters: Mapping[str, Nest]
    old_values: Tensor
    advantages: Tensor
    targets: Tensor
    layer_noise: Sequence[Tensor]
    importance_weights: Tensor | tuple[()]
    policy_state: list[Tensor]
    critic_state: list[Tensor]

    def take(self, rows: Tensor) -> Batch:
        """Returns the sequences at the indices `rows`, int [n]."""
        steps = tf.nest.map_structure(lambda x: tf.gather(x, rows, axis=1), self[:-2])
        states = tf.nest.map_structure(lambda x: tf.gather(x, rows), self[-2:])
        return Batch(*steps, *states)

    def part(self, start: int, stop: int) -> Batch:
        """Returns the sequences from `start` up to `stop`."""
        steps = tf.nest.map_structure(lambda x: x[:, start:stop], self[:-2])
        states = tf.nest.map_structure(lambda x: x[start:stop], self[-2:])
        return Batch(*steps, *states)


def first_states(initial: list[Tensor], states: list[Tensor], length: int) -> list[Tensor]:
    """Returns the state before each of the sequences that `ops.to_sequences` cuts.

    Args:
        initial: states before the first step, each [B, units].
        states: states after each step, each [T, B, units].
        length: number of steps in a sequence.

    Returns:
        A list of [T / length * B, units].
    """
    before = [tf.concat([i[None], s[:-1]], 0) for i, s in zip(initial, states, strict=True)]
    return [ops.merge_time(s[::length]) for s in before]
