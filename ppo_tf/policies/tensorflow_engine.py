"""The general engine: a policy's step as one compiled TensorFlow function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ppo_tf import ops
from ppo_tf.policies.engines import Arguments, Results
from ppo_tf.policies.policy_step import PolicyStep
from ppo_tf.types import Nest, Tensor


class TensorFlowEngine:
    """An `Engine` that compiles a policy's step by XLA.

    Args:
        step: what to compile.

    Attributes:
        state: the memory after the last step, each part [B, units]; empty without one.
    """

    def __init__(self, step: PolicyStep):
        example = step.example
        self._paths = list(example.observations) if isinstance(example.observations, dict) else None
        self.state: Sequence[Tensor] = [tf.constant(part) for part in example.state]
        # The engine's own. As inputs of the function they would cost about 15 us each at every
        # step, because TensorFlow checks all inputs in Python.
        self._weights = [tf.Variable(weight, trainable=False) for weight in example.weights]

        def act(
            observations: Nest, state: Sequence[Tensor], starts: Tensor, noise: Nest
        ) -> Results:
            weights = [variable.read_value() for variable in self._weights]
            return step(Arguments(weights, observations, ops.emptied(starts, state), noise))

        def specs(nest: Any) -> Any:
            return tf.nest.map_structure(lambda x: tf.TensorSpec(x.shape, x.dtype), nest)

        num_envs = len(tf.nest.flatten(example.observations)[0])
        # The concrete function skips tf.function's work on every call's arguments.
        self._function = tf.function(act, jit_compile=True, autograph=False).get_concrete_function(
            specs(example.observations),
            specs(example.state),
            tf.TensorSpec((num_envs,), tf.bool),
            specs(example.noise),
        )

    def begin(self, weights: Sequence[np.ndarray], noise: Nest) -> None:
        """Takes the weights and the noise [T, B, ...] of a rollout; the memory stays as it is."""
        for variable, weight in zip(self._weights, weights, strict=True):
            # A third of the time of variable.assign().
            tf.raw_ops.AssignVariableOp(resource=variable.handle, value=weight)
        self._noise = noise

    def __call__(self, observations: Nest, step: int, starts: np.ndarray) -> tuple[Nest, Nest]:
        """Returns raw actions and the environment's actions for observations [B, ...] at step."""
        if self._paths is None:
            observations = tf.constant(observations)
        else:
            observations = {path: tf.constant(observations[path]) for path in self._paths}
        noise = tf.nest.map_structure(lambda x: tf.constant(x[step]), self._noise)
        raw, action, self.state = self._function(
            observations, self.state, tf.constant(starts), noise
        )
        return tf.nest.map_structure(lambda x: x.numpy(), (raw, action))
