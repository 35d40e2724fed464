"""What of Keras PPO can't honour, refused by name when the learner is made."""

from __future__ import annotations

from typing import Any

import keras

from ppo_tf.networks.noise import draws_noise, is_noisy
from ppo_tf.networks.precision import check_precision

# An update compares the policy that acted with the policy that learns, sample by sample. Layers
# that compute something else while they train make the two differ for another reason than learning,
# unless their noise is kept with the sample (`networks/noise.py`).
_MOVING = (keras.layers.BatchNormalization, keras.layers.SpectralNormalization)


def check_model(model: keras.Model, argument: str) -> None:
    """Refuses layers that would do nothing, because models always run with training=False.

    Keras' dropout and noise layers act with noise that is given to them, outside of memories.

    Args:
        model: actor or critic.
        argument: name that errors give it.

    Raises:
        ValueError: the model has a layer with noise while it trains, with statistics of its own, or
            of a precision that `check_precision` refuses.
    """
    check_precision(model, argument)
    layers = model._flatten_layers()
    repeated = {id(x) for layer in layers if _repeats(layer) for x in layer._flatten_layers()}
    for layer in layers:
        if _is_noisy(layer) and (id(layer) in repeated or not is_noisy(layer)):
            raise ValueError(
                f"{type(layer).__name__} is noisy while training, and its noise can't be kept with "
                "the samples, as that of Keras' own dropout layers can, outside of memories. "
                f"Received: {argument} with the layer {layer.name!r}"
            )
        if isinstance(layer, _MOVING):
            raise ValueError(
                f"{type(layer).__name__} has statistics that would never move here; use "
                "ppo_tf.RunningNormalization or keras.layers.LayerNormalization. Received: "
                f"{argument} with the layer {layer.name!r}"
            )


def _repeats(layer: keras.Layer) -> bool:
    """Whether a layer calls those in it once per time step."""
    return hasattr(layer, "state_size") or isinstance(
        layer, keras.layers.RNN | keras.layers.TimeDistributed | keras.layers.Bidirectional
    )


def _is_noisy(layer: keras.Layer) -> bool:
    """Whether a layer, or a recurrent cell with dropout, draws noise while it trains."""
    rates = (getattr(layer, name, None) for name in ("dropout", "recurrent_dropout"))
    return draws_noise(layer) or any(isinstance(rate, float) and rate > 0 for rate in rates)


def check_optimizer(optimizer: Any) -> None:
    """Refuses optimizers that expect a scaled loss.

    Raises:
        ValueError: a LossScaleOptimizer, or an optimizer with a loss_scale_factor.
    """
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        raise ValueError(
            "LossScaleOptimizer is for float16, in which PPO's ratios have no digits to spare; "
            f"give the optimizer inside it. Received: optimizer={optimizer}"
        )
    if optimizer.loss_scale_factor is not None:
        raise ValueError(
            "The loss is not scaled here, so gradients must not be unscaled. Received: "
            f"optimizer with loss_scale_factor={optimizer.loss_scale_factor}"
        )
