"""Observation spaces as Keras inputs, and one vector of float features per observation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import gymnasium
import keras
import numpy as np

from ppo_tf import spaces
from ppo_tf.networks.image_networks import ImageNetwork, check_image_network, image_features
from ppo_tf.networks.initialization import Seeds
from ppo_tf.networks.layers import LeafInput, RunningNormalization
from ppo_tf.spaces import masks
from ppo_tf.types import Nest, Tensor

ImageChannels = Literal["auto", "first", "last"]

# A two-axis byte array is an image if both sides are at least this long, and a table otherwise.
IMAGE_MIN_SIDE = 8


def observation_features(
    space: gymnasium.Space[Any],
    *,
    normalize: bool = True,
    exclude: Sequence[str] = (),
    mask_key: str | None = masks.MASK_KEY,
    image_network: ImageNetwork = "auto",
    image_channels: ImageChannels = "auto",
    seed: int | Seeds | None = None,
) -> tuple[Nest, Tensor]:
    """Creates the inputs for an observation space and the flat float features computed from them.

    `Discrete` and `MultiDiscrete` leaves (with any start) are one-hot encoded; `MultiBinary` is
    cast to float; a `Box` is flattened and, unless it is an image, normalised. An image is a uint8
    `Box` with bounds 0 and 255 and either three axes, or two axes with at least 8 entries each (one
    channel). Images are scaled to [0, 1] and passed through `image_network`. The features of
    several leaves are concatenated in the order of `spaces.leaves`.

    Args:
        space: space of one observation; `Dict` and `Tuple` may be nested to any depth.
        normalize: whether Box features pass through a `RunningNormalization`.
        exclude: keys or paths of leaves to leave out, for instance "secret" or "arm/0".
        mask_key: key of the invalid-action masks, which are not features; None if there are none.
        image_network: "nature", "impala", "small", "auto" or a callable; see `image_networks`.
        image_channels: the channel axis of a three-axis image: "first", "last" or "auto", which
            takes the smaller of the two, or the last if they are equal.
        seed: seed of the image networks' initialisation; None draws one.

    Returns:
        (inputs, features). For a plain space, inputs is a keras.Input named "observation"; for a
        composite one, a dict {path: input} of the leaves used. features is a Keras tensor
        float [B, n].

    Raises:
        ValueError: a leaf's space is not supported, exclude has an unknown key or leaves nothing,
            or an option does not exist.
    """
    check_image_network(image_network)
    if image_channels not in ("auto", "first", "last"):
        raise ValueError(
            "image_channels must be 'auto', 'first' or 'last'. "
            f"Received: image_channels={image_channels!r}"
        )
    seeds = seed if isinstance(seed, Seeds) else Seeds(seed)

    def features_of(leaf: gymnasium.Space[Any], inputs: Tensor, normalization: str) -> Tensor:
        if is_image(leaf):
            network_seed = None if callable(image_network) else seeds.next()
            return image_features(
                _scaled_images(leaf, inputs, image_channels), image_network, network_seed
            )
        features = _encoder("", leaf)(leaf, inputs)
        if normalize and isinstance(leaf, gymnasium.spaces.Box):
            return RunningNormalization(name=normalization)(features)
        return features

    used = encoded_leaves(space, exclude, mask_key)
    if not isinstance(used, dict):
        inputs = keras.Input(shape=used.shape, dtype=np.dtype(used.dtype).name, name="observation")
        return inputs, features_of(used, inputs, "normalization")
    inputs = leaf_inputs(space, used)
    all_leaves: Any = spaces.leaves(space)
    names = spaces.layer_names(all_leaves)
    parts = [
        features_of(leaf, inputs[path], f"normalization_{names[path]}")
        for path, leaf in used.items()
    ]
    return inputs, parts[0] if len(parts) == 1 else keras.ops.concatenate(parts, axis=-1)


def encoded_leaves(
    space: gymnasium.Space[Any], exclude: Sequence[str], mask_key: str | None
) -> spaces.Leaves:
    """Returns the leaves that become features: all but masks and what is excluded.

    Raises:
        ValueError: see `observation_features`.
    """
    exclude = [exclude] if isinstance(exclude, str) else list(exclude)
    found = spaces.leaves(space)
    if not isinstance(found, dict):
        if exclude:
            raise ValueError(
                "Only parts of a Dict or Tuple can be excluded. "
                f"Received: exclude={exclude}, observation space {space}"
            )
        _encoder("", found)  # raises if the space is not supported
        return found
    known = {"/".join(p.split("/")[:n]) for p in found for n in range(1, p.count("/") + 2)}
    if not known.issuperset(exclude):
        raise ValueError(
            f"exclude must name keys or paths of the observation, {sorted(known)}. "
            f"Received: exclude={exclude}"
        )
    used = {
        path: leaf
        for path, leaf in found.items()
        if not masks.is_mask(path, mask_key) and not any(masks.is_mask(path, e) for e in exclude)
    }
    if not used:
        raise ValueError(
            "No part of the observation is left for features. "
            f"Received: exclude={exclude}, mask_key={mask_key!r}, observation space {space}"
        )
    for path, leaf in used.items():
        _encoder(path, leaf)
    return used


def leaf_inputs(space: gymnasium.Space[Any], paths: Iterable[str]) -> dict[str, Tensor]:
    """Creates inputs {path: Keras tensor [B, ...]} for leaves of a composite space."""
    leaves: Any = spaces.leaves(space)
    names = spaces.layer_names(leaves)
    return {
        path: LeafInput(
            path,
            leaves[path].shape,
            np.dtype(leaves[path].dtype).name,
            name=f"observation_{names[path]}",
        ).output
        for path in paths
    }


def is_image(leaf: gymnasium.Space[Any]) -> bool:
    """Whether a space holds images: see `observation_features`."""
    if not isinstance(leaf, gymnasium.spaces.Box) or leaf.dtype != np.uint8:
        return False
    if not (np.all(leaf.low == 0) and np.all(leaf.high == 255)):
        return False
    is_gray = len(leaf.shape) == 2 and min(leaf.shape) >= IMAGE_MIN_SIDE
    return is_gray or len(leaf.shape) == 3


def _scaled_images(leaf: Any, inputs: Tensor, channels: ImageChannels) -> Tensor:
    """uint8 [B, ...] to float [B, height, width, channels] in [0, 1]."""
    if len(leaf.shape) == 2:
        inputs = keras.ops.expand_dims(inputs, -1)
    elif channels == "first" or (channels == "auto" and leaf.shape[0] < leaf.shape[-1]):
        inputs = keras.ops.transpose(inputs, (0, 2, 3, 1))
    return keras.ops.cast(inputs, "float32") * (1.0 / 255.0)


def _one_hot(leaf: Any, inputs: Tensor) -> Tensor:
    """Integers [B] to float [B, n]."""
    index = inputs - int(leaf.start) if leaf.start else inputs
    return keras.ops.one_hot(index, int(leaf.n), dtype="float32")


def _one_hot_each(leaf: Any, inputs: Tensor) -> Tensor:
    """Integers [B, *shape] to float [B, sum(nvec)], one segment per element in C order."""
    sizes, starts = np.ravel(leaf.nvec), np.ravel(leaf.start)
    element = np.repeat(np.arange(len(sizes)), sizes)  # of each entry of the result
    category = np.concatenate(
        [start + np.arange(n) for n, start in zip(sizes, starts, strict=True)]
    )
    values = keras.ops.take(_flat(leaf, inputs), element.astype(np.int32), axis=1)
    return keras.ops.cast(keras.ops.equal(values, category.astype(leaf.dtype)), "float32")


def _floats(leaf: Any, inputs: Tensor) -> Tensor:
    """Numbers [B, *shape] to float [B, n]."""
    return _flat(leaf, inputs if inputs.dtype == "float32" else keras.ops.cast(inputs, "float32"))


def _flat(leaf: Any, x: Tensor) -> Tensor:
    return x if len(leaf.shape) == 1 else keras.ops.reshape(x, (-1, math.prod(leaf.shape)))


# Encoders of a leaf's values as float features [B, n]; images have networks instead.
ENCODERS: dict[type[gymnasium.Space[Any]], Callable[[Any, Tensor], Tensor]] = {
    gymnasium.spaces.Box: _floats,
    gymnasium.spaces.Discrete: _one_hot,
    gymnasium.spaces.MultiDiscrete: _one_hot_each,
    gymnasium.spaces.MultiBinary: _floats,
}


def _encoder(path: str, leaf: gymnasium.Space[Any]) -> Callable[[Any, Tensor], Tensor]:
    for kind, encode in ENCODERS.items():
        if isinstance(leaf, kind):
            if 0 in (leaf.shape or ()):
                raise ValueError(
                    "An observation must have at least one element. "
                    f"Received: {f'{path!r} is ' if path else ''}{leaf}"
                    + ("; exclude this part" if path else "")
                )
            return encode
    raise ValueError(
        f"The observation space must be {', '.join(k.__name__ for k in ENCODERS)}, or a Dict or "
        f"Tuple of these. Received: {f'{path!r} is ' if path else ''}{leaf}; exclude this part of "
        "a Dict or Tuple, or give Policy and Learner your own Keras models"
    )
