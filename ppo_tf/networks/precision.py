"""In which precision models compute: float32, or hidden layers in bfloat16."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


def check_precision(model: keras.Model, argument: str) -> None:
    """Refuses layers that compute or keep weights in another precision.

    Weights are float32. So are computations, or bfloat16 as with Keras' policy "mixed_bfloat16":
    that has the range of float32, so losses need no scaling.

    Args:
        model: actor or critic.
        argument: name that errors give it.

    Raises:
        ValueError: a layer has another precision, or Keras' own default has.
    """
    if keras.config.floatx() != "float32":
        raise ValueError(
            "Keras' default float must be float32, in which everything else here computes. "
            f"Received: {argument} with keras.config.floatx()={keras.config.floatx()!r}"
        )
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.InputLayer):
            continue  # as the environment has it, cast by what follows
        computes = {"float32"} if _in_a_memory(layer) else {"float32", "bfloat16"}
        if not _is_float(layer.compute_dtype):
            continue
        if layer.compute_dtype not in computes or layer.variable_dtype != "float32":
            raise ValueError(
                "Layers must compute in float32, or in mixed_bfloat16 outside of a memory. "
                f"Received: {argument} with the layer {layer.name!r} of "
                f"{layer.dtype_policy.name}"
            )


def as_float32(outputs: Any) -> Any:
    """Casts what is bfloat16 in a model's outputs, nested or not: densities and losses need more
    digits. Other outputs stay as they are."""
    return tf.nest.map_structure(
        lambda x: tf.cast(x, tf.float32) if x.dtype == tf.bfloat16 else x, outputs
    )


def _in_a_memory(layer: keras.layers.Layer) -> bool:
    """Whether a layer is a recurrent cell, or a model around one."""
    return hasattr(layer, "state_size") or hasattr(layer, "initial_state")


def _is_float(dtype: str) -> bool:
    return "float" in dtype
