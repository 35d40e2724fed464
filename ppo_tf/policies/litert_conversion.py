"""From a policy's step to a LiteRT model, checked against Keras."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import tensorflow as tf

from ppo_tf.policies.engines import Results
from ppo_tf.policies.litert_engine import LiteRTEngine, LiteRTModel
from ppo_tf.policies.policy_step import PolicyStep
from ppo_tf.support import quiet
from ppo_tf.types import Tensor


class CannotServeError(Exception):
    """Why LiteRT can't run a policy."""


def make_litert_model(step: PolicyStep) -> LiteRTModel:
    """Converts a policy's step and compares it with Keras on a batch.

    Raises:
        CannotServeError: LiteRT can't convert the step, or computes something else.
    """
    if step.sampled_by_tfp:
        raise CannotServeError("its distribution is sampled by TFP")
    if importlib.util.find_spec("ai_edge_litert") is None:
        raise CannotServeError("ai-edge-litert is not installed")
    try:
        with quiet.held_back(show_if_failed=False):
            model = convert(step)
            engine = model.make()
    except Exception as error:  # the converter's own, of many kinds
        first_line = str(error).strip().split("\n")[0][:80]
        raise CannotServeError(f"LiteRT can't convert it: {first_line}") from error
    if not _agrees(engine, step):
        raise CannotServeError("LiteRT's actions differ from Keras'")
    return model


def convert(step: PolicyStep) -> LiteRTModel:
    """Converts a policy's step, its weights being inputs; raises whatever the converter raises."""
    structure: Results | None = None

    def flat(**tensors: Tensor) -> dict[str, Tensor]:
        nonlocal structure
        flat_arguments = [tensors[name] for name in inputs]
        structure = step(tf.nest.pack_sequence_as(step.example, flat_arguments))
        return {f"out_{i}": tf.identity(x) for i, x in enumerate(tf.nest.flatten(structure))}

    examples = tf.nest.flatten(step.example)
    inputs = [f"in_{i}" for i in range(len(examples))]
    specs = {
        name: tf.TensorSpec(x.shape, x.dtype, name=name)
        for name, x in zip(inputs, examples, strict=True)
    }
    function = tf.function(flat, autograph=False).get_concrete_function(**specs)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], tf.Module())
    outputs = [f"out_{i}" for i in range(len(tf.nest.flatten(structure)))]
    return LiteRTModel(
        converter.convert(),
        tf.nest.pack_sequence_as(step.example, inputs),
        tf.nest.pack_sequence_as(structure, outputs),
        [np.asarray(part) for part in step.example.state],
    )


def _agrees(engine: LiteRTEngine, step: PolicyStep) -> bool:
    """Whether a conversion computes what Keras does; one that is off must not act."""
    example: Any = step.example  # of NumPy arrays
    weights, observations, state, noise = example
    engine.begin(weights, tf.nest.map_structure(lambda x: x[None], noise))
    starts = np.zeros(len(tf.nest.flatten(observations)[0]), bool)
    made = (*engine(observations, 0, starts), engine.state)
    engine.state = [part.copy() for part in state]
    expected = step(tf.nest.map_structure(tf.constant, example))
    return all(
        one.dtype == other.dtype and np.allclose(one, other, rtol=1e-4, atol=1e-4)
        for one, other in zip(
            tf.nest.flatten(made),
            [x.numpy() for x in tf.nest.flatten(expected)],
            strict=True,
        )
    )
