"""The fast engine: a policy's step as a LiteRT model on one thread, without TensorFlow.

`litert_conversion` makes the model. This module needs NumPy and ai-edge-litert only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppo_tf.policies.engines import Arguments, Results
from ppo_tf.types import Arrays, Nest


@dataclass(frozen=True)
class LiteRTModel:
    """A policy's step, converted: plain data that can be pickled and run in any process.

    Attributes:
        content: the model, a flatbuffer.
        inputs: the names of its inputs.
        outputs: the names of its outputs.
        initial_state: the memory before an episode, each part float32 [B, units].
    """

    content: bytes
    inputs: Arguments
    outputs: Results
    initial_state: Sequence[np.ndarray]

    def make(self) -> LiteRTEngine:
        """Returns an engine; see `EngineModel`."""
        return LiteRTEngine(self)


class LiteRTEngine:
    """An `Engine` that runs a `LiteRTModel`.

    Args:
        model: what to run.

    Attributes:
        state: the memory after the last step, each part [B, units]; empty without one.
    """

    def __init__(self, model: LiteRTModel):
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(model_content=model.content, num_threads=1)
        self._interpreter.allocate_tensors()
        runner = self._interpreter.get_signature_runner()
        inputs, outputs = runner.get_input_details(), runner.get_output_details()
        # Indices of tensors, in place of the tensors.
        self._inputs: Any = Arguments(*(_indices(names, inputs) for names in model.inputs))
        self._outputs: Any = Results(*(_indices(names, outputs) for names in model.outputs))
        observed: Any = self._inputs.observations
        self._observations: list[tuple[int, str | None]] = (
            [(index, path) for path, index in observed.items()]
            if isinstance(observed, dict)
            else [(observed, None)]
        )
        self._noise: list[tuple[int, np.ndarray]] = []
        self.state = [part.copy() for part in model.initial_state]

    def begin(self, weights: Sequence[np.ndarray], noise: Nest) -> None:
        """Takes the weights and the noise [T, B, ...] of a rollout; the memory stays as it is."""
        for index, weight in zip(self._inputs.weights, weights, strict=True):
            self._interpreter.set_tensor(index, weight)
        self._noise = list(_pairs(self._inputs.noise, noise))

    def __call__(self, observations: Nest, step: int, starts: np.ndarray) -> tuple[Nest, Nest]:
        """Returns raw actions and the environment's actions for observations [B, ...] at step."""
        interpreter = self._interpreter
        for index, path in self._observations:
            interpreter.set_tensor(index, observations if path is None else observations[path])
        for index, noise in self._noise:
            interpreter.set_tensor(index, noise[step])
        if self.state:
            for index, part in zip(self._inputs.state, self.state, strict=True):
                part[starts] = 0.0
                interpreter.set_tensor(index, part)
        interpreter.invoke()
        if self.state:
            self.state = [interpreter.get_tensor(index) for index in self._outputs.state]
        return self._read(self._outputs.raw), self._read(self._outputs.action)

    def _read(self, outputs: Any) -> Arrays:
        if isinstance(outputs, dict):
            return {path: self._interpreter.get_tensor(index) for path, index in outputs.items()}
        return self._interpreter.get_tensor(outputs)


def _indices(names: Any, details: dict[str, dict[str, Any]]) -> Any:
    """The indices of tensors, nested like their names."""
    if isinstance(names, dict):
        return {key: _indices(part, details) for key, part in names.items()}
    if isinstance(names, list | tuple):
        return [_indices(part, details) for part in names]
    return details[names]["index"]


def _pairs(indices: Any, values: Any) -> Iterator[tuple[int, np.ndarray]]:
    """Each index with its value; both nests have the same structure."""
    if isinstance(indices, dict):
        for key in indices:
            yield from _pairs(indices[key], values[key])
    elif isinstance(indices, list):
        for index, value in zip(indices, values, strict=True):
            yield from _pairs(index, value)
    else:
        yield indices, values
