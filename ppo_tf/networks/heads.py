"""The last layers of actors and critics: features in, distribution parameters or values out.

They compute in float32, whatever the layers before them do: small differences between two
distributions are what PPO works on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import keras

from ppo_tf import spaces
from ppo_tf.actions.distributions import FullGaussian, inverse_softplus
from ppo_tf.networks.initialization import POLICY_GAIN, VALUE_GAIN, Seeds, dense
from ppo_tf.networks.layers import ExplorationDirections, MaskLogits, StateIndependentScale
from ppo_tf.types import Tensor

Parameters = Mapping[str, Any]  # {parameter name: size}, or {action path: {parameter name: size}}


class _Request(NamedTuple):
    """A parameter to make: the input of every head."""

    features: Tensor  # float [B, F]
    size: int
    name: str  # of the layer
    made: dict[str, Tensor]  # the action's linear parameters, by name
    seeds: Seeds
    initial_scale: float
    state_dependent_scale: bool


def _linear(request: _Request) -> Tensor:
    """A dense layer with a small orthogonal gain: in every state, training starts from the
    distribution's default."""
    layer = dense(request.size, POLICY_GAIN, request.seeds, name=request.name, dtype="float32")
    return layer(request.features)


def _scale_diag(request: _Request) -> Tensor:
    """One weight per element, or softplus of a linear output."""
    if not request.state_dependent_scale:
        if "loc" not in request.made:
            raise ValueError(
                "A state-independent 'scale_diag' needs a parameter 'loc' for the same action. "
                f"Received: {sorted(request.made)}"
            )
        layer = StateIndependentScale(request.initial_scale, name=request.name, dtype="float32")
        return layer(request.made["loc"])
    # softplus(x + shift) is initial_scale at x = 0; the floor keeps the density finite.
    shift = inverse_softplus(request.initial_scale)
    return keras.ops.softplus(_linear(request) + shift) + 1e-5


def _scale_tril(request: _Request) -> Tensor:
    """Linear, and `initial_scale` times the identity where the features are 0."""
    layer = dense(request.size, POLICY_GAIN, request.seeds, name=request.name, dtype="float32")
    output = layer(request.features)
    if request.initial_scale != 1.0:  # the identity is at 0
        n = math.isqrt(2 * request.size)  # size = n (n + 1) / 2
        layer.bias.assign(FullGaussian.raw_scale(n, request.initial_scale))
    return output


def _directions(request: _Request) -> Tensor:
    """Each feature's share of the noise: generalised state-dependent exploration."""
    size, initial = request.size, request.initial_scale
    layer = ExplorationDirections(size, initial, name=request.name, dtype="float32")
    return layer(request.features)


# Heads of the parameters that set a scale, by the parameter's name. The others are linear.
HEADS: dict[str, Callable[[_Request], Tensor]] = {
    "scale_diag": _scale_diag,
    "scale_tril": _scale_tril,
    "directions": _directions,
}


def parameter_heads(
    features: Tensor,
    parameters: Parameters,
    *,
    masks: Mapping[str, Tensor] | None = None,
    initial_scale: float = 1.0,
    state_dependent_scale: bool = False,
    seeds: Seeds | None = None,
) -> dict[str, Any]:
    """Creates a distribution's parameters: those in `HEADS` as given there, others linear.

    Args:
        features: Keras tensor float [B, F].
        parameters: `ActionSpec.parameters`.
        masks: masks of the valid categories, Keras tensors [B, n] by action path ("" for a plain
            action); applied to the parameter "logits".
        initial_scale: initial standard deviation of a Gaussian, in raw action units.
        state_dependent_scale: whether "scale_diag" is a function of the state (softplus of an
            output) instead of a separate weight; "scale_tril" and "directions" always are.
        seeds: source of the initializers' seeds.

    Returns:
        Keras tensors float [B, size] ("directions": [B, F, size]), nested like parameters.

    Raises:
        ValueError: initial_scale is not positive, the distribution has no scale that the options
            could set, or a mask does not fit the "logits".
    """
    if not initial_scale > 0:
        raise ValueError(f"initial_scale must be positive. Received: initial_scale={initial_scale}")
    _check_scale(parameters, initial_scale, state_dependent_scale)
    masks, seeds = masks or {}, seeds or Seeds()

    def heads_of(path: str, sizes: Mapping[str, int], prefix: str) -> dict[str, Tensor]:
        made: dict[str, Tensor] = {}
        for name in sorted(sizes, key=HEADS.__contains__):  # linear ones first: others use them
            request = _Request(
                features,
                int(sizes[name]),
                prefix + name,
                made,
                seeds,
                initial_scale,
                state_dependent_scale,
            )
            made[name] = HEADS.get(name, _linear)(request)
        if path in masks:
            _check_mask(path, sizes, masks[path])
            layer = MaskLogits(name=f"{prefix}logits_masked", dtype="float32")
            made["logits"] = layer(made["logits"], masks[path])
        return {name: made[name] for name in sizes}

    if not any(isinstance(sizes, Mapping) for sizes in parameters.values()):
        return heads_of("", parameters, "")
    names = spaces.layer_names(parameters)
    return {path: heads_of(path, p, f"action_{names[path]}_") for path, p in parameters.items()}


def value_head(features: Tensor, seeds: Seeds) -> Tensor:
    """Returns values float [B], linear in features float [B, F]."""
    return keras.ops.squeeze(
        dense(1, VALUE_GAIN, seeds, name="value", dtype="float32")(features), -1
    )


def has_scale(parameters: Parameters) -> bool:
    """Whether `initial_scale` and `state_dependent_scale` mean something for the parameters."""
    return any(
        has_scale(size) if isinstance(size, Mapping) else name in HEADS
        for name, size in parameters.items()
    )


def _check_scale(parameters: Parameters, initial_scale: float, state_dependent_scale: bool) -> None:
    if has_scale(parameters):
        return
    options = {
        "initial_scale": initial_scale != 1.0,
        "state_dependent_scale": state_dependent_scale,
    }
    if is_set := [name for name, value in options.items() if value]:
        raise ValueError(
            f"{' and '.join(is_set)} cannot be set: the distribution has no {', '.join(HEADS)}. "
            f"Received: initial_scale={initial_scale}, "
            f"state_dependent_scale={state_dependent_scale}, parameters {dict(parameters)}"
        )


def _check_mask(path: str, sizes: Mapping[str, int], mask: Tensor) -> None:
    if sizes.get("logits") != mask.shape[-1]:
        raise ValueError(
            "A masked action needs a parameter 'logits' of the mask's size. "
            f"Received: parameters {dict(sizes)}{f' of {path!r}' if path else ''}, "
            f"mask of size {mask.shape[-1]}"
        )
