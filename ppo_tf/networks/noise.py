"""Dropout and other layers with noise, with what they draw given from outside.

PPO compares two distributions of one sample: that of the policy that acted and that of the policy
that learns. Both must be computed with the same noise z in the layers: the policy is then
pi(a | s, z) with a z that no weight decides, like a part of the state, and its first ratio is 1. So
what a layer would draw is drawn in advance, one row per sample, and kept with the sample. Where
nothing is given, the layers do nothing, as in Keras outside of training.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from ppo_tf.networks import recurrent
from ppo_tf.types import Tensor

_ROWS = 3  # of the pass that finds the sites; an axis of the same length is checked for


class Site(NamedTuple):
    """A call of a layer with noise.

    Attributes:
        layer: which.
        shape: of what it draws for one row.
    """

    layer: keras.layers.Layer
    shape: tuple[int, ...]


class LayerNoise:
    """What the layers of a model draw in one forward pass.

    Args:
        sites: the calls of layers with noise, in order.

    Attributes:
        sites: as given.
    """

    def __init__(self, sites: Sequence[Site]):
        self.sites = tuple(sites)

    def draw(self, generator: np.random.Generator, *shape: int) -> tuple[np.ndarray, ...]:
        """Draws for a batch of a shape such as [T, B]: an array [T, B, ...] for each site."""
        return tuple(
            _KINDS[type(site.layer)].draw(generator, site.layer, (*shape, *site.shape))
            for site in self.sites
        )

    @contextlib.contextmanager
    def given(self, draws: Sequence[Tensor]) -> Iterator[None]:
        """Within, the layers compute with these draws; with none, they do nothing.

        Args:
            draws: for each site [n, ...], n being the rows of the batch; further ones are those of
                other models.

        Raises:
            ValueError: there are too few.
        """
        if not draws or not self.sites:
            yield
            return
        if len(draws) < len(self.sites):
            raise ValueError(
                "There must be draws for every call of a layer with noise, "
                f"{[site.layer.name for site in self.sites]}. Received: {len(draws)} draws"
            )
        by_layer: dict[int, list[Tensor]] = {}
        for site, drawn in zip(self.sites, draws, strict=False):
            by_layer.setdefault(id(site.layer), []).append(drawn)
        calls = dict.fromkeys(by_layer, 0)

        def compute(layer: keras.layers.Layer, inputs: Tensor) -> Tensor:
            drawn, call = by_layer[id(layer)], calls[id(layer)]
            calls[id(layer)] += 1  # another model with the layer, such as a critic, starts over
            return _KINDS[type(layer)].apply(layer, inputs, drawn[call % len(drawn)])

        with _replaced([site.layer for site in self.sites], compute):
            yield


def find_noise(model: keras.Model | None) -> LayerNoise:
    """Finds the calls of layers with noise in a model, by a forward pass on zeros.

    Raises:
        ValueError: the model has such layers, but does not say what it observes; or one of them
            does not draw for each row separately.
    """
    layers = [] if model is None else [x for x in model._flatten_layers() if is_noisy(x)]
    if model is None or not layers:
        return LayerNoise([])
    zeros = recurrent.zero_observations(model, _ROWS)
    if zeros is None:
        raise ValueError(
            "A model with noise must say the shape of its observations: start it with a "
            f"keras.Input. Received: {model.name} with the layer {layers[0].name!r}"
        )
    sites: list[Site] = []

    def record(layer: keras.layers.Layer, inputs: Tensor) -> Tensor:
        sites.append(Site(layer, _row_shape(layer, inputs)))
        return inputs

    with _replaced(layers, record):
        recurrent.step(model, zeros, recurrent.initial_state(model, _ROWS))
    return LayerNoise(sites)


def is_noisy(layer: keras.layers.Layer) -> bool:
    """Whether a layer is one whose noise can be given; a subclass may compute something else."""
    return type(layer) in _KINDS and draws_noise(layer)


def draws_noise(layer: keras.layers.Layer) -> bool:
    """Whether a layer is one with noise, of Keras or a subclass."""
    return isinstance(layer, tuple(_KINDS)) and _strength(layer) > 0


@contextlib.contextmanager
def _replaced(
    layers: Sequence[keras.layers.Layer], compute: Callable[[keras.layers.Layer, Tensor], Tensor]
) -> Iterator[None]:
    """Within, the layers compute something else. They stay where they are in their models."""

    def call(layer: keras.layers.Layer, inputs: Tensor, **_: Any) -> Tensor:
        return compute(layer, inputs)

    for layer in layers:
        vars(layer)["call"] = functools.partial(call, layer)  # hides the method of the class
    try:
        yield
    finally:
        for layer in layers:
            vars(layer).pop("call", None)


def _row_shape(layer: keras.layers.Layer, inputs: Tensor) -> tuple[int, ...]:
    """The shape of what a layer draws for one row of inputs [_ROWS, ...]."""
    full = tuple(inputs.shape)
    if hasattr(layer, "_get_noise_shape"):  # SpatialDropout's: whole channels
        shape = layer._get_noise_shape(inputs)
    else:
        shape = getattr(layer, "noise_shape", None) or full
    shape = tuple(n if own is None else int(own) for own, n in zip(shape, full, strict=True))
    if (full[0], shape[0]) != (_ROWS, _ROWS) or (getattr(layer, "noise_shape", None) or [None])[0]:
        raise ValueError(
            "A layer with noise must draw for each row of a batch separately. "
            f"Received: the layer {layer.name!r}, inputs of shape {full}, draws of shape {shape}"
        )
    return shape[1:]


class _Kind(NamedTuple):
    """A class of layers: what it draws, and what it computes from that."""

    draw: Callable[[np.random.Generator, Any, tuple[int, ...]], np.ndarray]
    apply: Callable[[Any, Tensor, Tensor], Tensor]


def _strength(layer: Any) -> float:
    return float(getattr(layer, "rate", getattr(layer, "stddev", 0.0)))


def _kept(generator: np.random.Generator, layer: Any, shape: tuple[int, ...]) -> np.ndarray:
    return generator.random(shape, np.float32) >= layer.rate


def _normal(generator: np.random.Generator, layer: Any, shape: tuple[int, ...]) -> np.ndarray:
    return generator.standard_normal(shape, np.float32)


def _drop(layer: Any, inputs: Tensor, kept: Tensor) -> Tensor:
    """x k / (1 - rate)   (Srivastava et al. 2014, section 10, scaled while training)."""
    return inputs * _as(inputs, kept) * (1.0 / ((1.0 - layer.rate) or 1.0))


def _multiply(layer: Any, inputs: Tensor, normal: Tensor) -> Tensor:
    """x (1 + sqrt(rate / (1 - rate)) z)   (Srivastava et al. 2014, section 10)."""
    return inputs * (1.0 + math.sqrt(layer.rate / (1.0 - layer.rate)) * _as(inputs, normal))


def _add(layer: Any, inputs: Tensor, normal: Tensor) -> Tensor:
    """x + stddev z."""
    return inputs + layer.stddev * _as(inputs, normal)


def _drop_to_lowest(layer: Any, inputs: Tensor, kept: Tensor) -> Tensor:
    """a (x k + l (1 - k)) + b, l = -scale alpha of SELU   (Klambauer et al. 2017, section 2)."""
    kept, lowest = _as(inputs, kept), -1.7580993408473766
    a = ((1.0 - layer.rate) * (1.0 + layer.rate * lowest**2)) ** -0.5
    return a * (inputs * kept + lowest * (1.0 - kept)) - a * lowest * layer.rate


def _as(inputs: Tensor, drawn: Tensor) -> Tensor:
    return tf.cast(drawn, inputs.dtype)


_DROPOUT = _Kind(_kept, _drop)
_KINDS: Mapping[type, _Kind] = {
    keras.layers.Dropout: _DROPOUT,
    keras.layers.SpatialDropout1D: _DROPOUT,
    keras.layers.SpatialDropout2D: _DROPOUT,
    keras.layers.SpatialDropout3D: _DROPOUT,
    keras.layers.AlphaDropout: _Kind(_kept, _drop_to_lowest),
    keras.layers.GaussianDropout: _Kind(_normal, _multiply),
    keras.layers.GaussianNoise: _Kind(_normal, _add),
}
