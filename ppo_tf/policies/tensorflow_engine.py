"""The general engine: a policy's step as one compiled TensorFlow function."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from ppo_tf import ops
from ppo_tf.policies.engines import Arguments, Results
from ppo_tf.policies.policy_step import PolicyStep
from ppo_tf.support import quiet
from ppo_tf.types import Nest, Tensor


class CompiledStep(tf.Module):
    """A policy's step, compiled by XLA, with weights of its own.

    As inputs of the function the weights would cost about 15 us each at every step, because
    TensorFlow checks all inputs in Python.

    Args:
        step: what to compile.

    Attributes:
        weights: variables, in the order of `PolicyStep.read_weights`.
        act: function of observations, memory, starts and noise, which returns `Results`.
        initial_state: the memory before an episode, variables.
        paths: of the observations that the step takes; None: a single one, without path.
    """

    def __init__(self, step: PolicyStep):
        super().__init__(name="step")
        example = step.example
        self.weights = [tf.Variable(weight, trainable=False) for weight in example.weights]
        self.initial_state = [tf.Variable(part, trainable=False) for part in example.state]

        def act(
            observations: Nest, state: Sequence[Tensor], starts: Tensor, noise: Nest
        ) -> Results:
            weights = [variable.read_value() for variable in self.weights]
            return step(Arguments(weights, observations, ops.emptied(starts, state), noise))

        def specs(nest: Any) -> Any:
            return tf.nest.map_structure(lambda x: tf.TensorSpec(x.shape, x.dtype), nest)

        self.paths = list(example.observations) if isinstance(example.observations, dict) else None
        num_envs = len(tf.nest.flatten(example.observations)[0])
        signature = [
            specs(example.observations),
            specs(list(example.state)),
            tf.TensorSpec((num_envs,), tf.bool),
            specs(example.noise),
        ]
        self.act = tf.function(act, input_signature=signature, jit_compile=True, autograph=False)


class TensorFlowEngine:
    """An `Engine` that runs a `CompiledStep`.

    Args:
        compiled: the step, made here or loaded from a SavedModel.
        function: its concrete function; skips tf.function's work on every call's arguments.
        paths: of the observations that the step takes; None: a single one, without path.

    Attributes:
        state: the memory after the last step, each part [B, units]; empty without one.
    """

    def __init__(self, compiled: Any, function: Any, paths: Sequence[str] | None):
        self._paths = paths
        self._weights = list(compiled.weights)
        self.state: Sequence[Tensor] = [part.read_value() for part in compiled.initial_state]
        self._function = function

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


def make_tensorflow_engine(step: PolicyStep) -> TensorFlowEngine:
    """Compiles a policy's step."""
    compiled = CompiledStep(step)
    return TensorFlowEngine(compiled, compiled.act.get_concrete_function(), compiled.paths)


@dataclass(frozen=True)
class SavedStep:
    """A `CompiledStep` as a SavedModel: plain data that can be pickled, run where TensorFlow is.

    Attributes:
        files: {path in the SavedModel: content}.
        paths: as of `CompiledStep`.
    """

    files: Mapping[str, bytes]
    paths: Sequence[str] | None

    def make(self) -> TensorFlowEngine:
        """Returns an engine; see `EngineModel`."""
        with tempfile.TemporaryDirectory() as folder:
            for name, content in self.files.items():
                path = Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            loaded = tf.saved_model.load(folder)
        (function,) = loaded.act.concrete_functions
        return TensorFlowEngine(loaded, function, self.paths)


def save_step(step: PolicyStep) -> SavedStep:
    """Compiles a policy's step for other processes.

    Raises:
        ValueError: a layer of the policy has random numbers of its own, which nobody can replay.
    """
    compiled = CompiledStep(step)
    compiled.act.get_concrete_function()
    if step.draws_by_itself:
        raise ValueError(
            "collectors cannot be combined with a policy whose layers draw random numbers by "
            "themselves: they would draw the same in every process. Received: a policy with such "
            "a layer"
        )
    with tempfile.TemporaryDirectory() as folder, quiet.held_back(show_if_failed=True):
        tf.saved_model.save(compiled, folder)
        paths = [path for path in Path(folder).rglob("*") if path.is_file()]
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    return SavedStep(files, compiled.paths)
