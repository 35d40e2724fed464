"""From an observation space to Keras inputs and one vector of float features per observation."""

from __future__ import annotations

import math
import re
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

# A byte array of two axes is an image from this height and width on; smaller ones are tables.
IMAGE_MIN_SIDE = 8


def observation_features(
    space: gymnasium.Space,
    *,
    normalize: bool = True,
    exclude: Sequence[str] = (),
    mask_key: str | None = masks.MASK_KEY,
    image_network: ImageNetwork = "auto",
    image_channels: ImageChannels = "auto",
    seed: int | Seeds | None = None,
) -> tuple[Nest, Tensor]:
    """Inputs for observations of a space, and the flat float features made of them.

    By kind of leaf: `Discrete` and `MultiDiscrete` (any start) are one-hot; `MultiBinary` becomes
    float; a `Box` is flattened and, unless it is an image, normalised. Images are `Box` of uint8
    with bounds 0 and 255, of three axes, or of two with at least 8 entries each (one channel);
    they are scaled to [0, 1] and go through `image_network`. Features of several leaves are
    concatenated in the order of `spaces.leaves`.

    Args:
        space: of one observation; `Dict` and `Tuple` nested however deep.
        normalize: whether Box features pass through a `RunningNormalization`.
        exclude: keys or paths of leaves that are not used, for instance "secret" or "arm/0".
        mask_key: key of the invalid-action masks, which are no features; None: there are none.
        image_network: "nature", "impala", "small", "auto" or a callable; see `image_networks`.
        image_channels: which axis of an image of three axes holds its channels: "first", "last"
            or, with "auto", the smaller of the two, the last if they are equal.
        seed: of the image networks' initialisation; None draws one.

    Returns:
        (inputs, features): of a plain space a keras.Input named "observation", of a composite one
        a dict {path: input} of the leaves that are used; a Keras tensor float [B, n].

    Raises:
        ValueError: a leaf of another kind, an unknown key in exclude, no leaf left, or an option
            that does not exist.
    """
    check_image_network(image_network)
    if image_channels not in ("auto", "first", "last"):
        raise ValueError(
            "image_channels must be 'auto', 'first' or 'last'. "
            f"Received: image_channels={image_channels!r}"
        )
    seeds = seed if isinstance(seed, Seeds) else Seeds(seed)

    def features_of(leaf: gymnasium.Space, inputs: Tensor, normalization: str) -> Tensor:
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
    names = layer_names(all_leaves)
    parts = [
        features_of(leaf, inputs[path], f"normalization_{names[path]}")
        for path, leaf in used.items()
    ]
    return inputs, parts[0] if len(parts) == 1 else keras.ops.concatenate(parts, axis=-1)


def encoded_leaves(
    space: gymnasium.Space, exclude: Sequence[str], mask_key: str | None
) -> spaces.Leaves:
    """The leaves that features are made of: neither excluded nor masks, all of a kind with an
    encoder.

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
        _encoder("", found)  # raises if there is none
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
            "Nothing of the observation is left to make features of. "
            f"Received: exclude={exclude}, mask_key={mask_key!r}, observation space {space}"
        )
    for path, leaf in used.items():
        _encoder(path, leaf)
    return used


def leaf_inputs(space: gymnasium.Space, paths: Iterable[str]) -> dict[str, Tensor]:
    """Inputs {path: Keras tensor [B, ...]} for leaves of a composite space, of their dtypes."""
    leaves: Any = spaces.leaves(space)
    names = layer_names(leaves)
    return {
        path: LeafInput(
            path,
            leaves[path].shape,
            np.dtype(leaves[path].dtype).name,
            name=f"observation_{names[path]}",
        ).output
        for path in paths
    }


def layer_names(paths: Iterable[str]) -> dict[str, str]:
    """A name that Keras and TensorFlow take for every path, all different: "arm/0" is "arm_0"."""
    names: dict[str, str] = {}
    for path in paths:
        name = re.sub(r"[^A-Za-z0-9_.-]", "_", path)
        while name in names.values():
            name += "_"
        names[path] = name
    return names


def is_image(leaf: gymnasium.Space) -> bool:
    """Whether a space holds images: see `observation_features`."""
    if not isinstance(leaf, gymnasium.spaces.Box) or leaf.dtype != np.uint8:
        return False
    if not (np.all(leaf.low == 0) and np.all(leaf.high == 255)):
        return False
    is_gray = len(leaf.shape) == 2 and min(leaf.shape) >= IMAGE_MIN_SIDE
    return is_gray or len(leaf.shape) == 3


def _scaled_images(leaf, inputs, channels):
    """uint8 [B, ...] to float [B, height, width, channels] in [0, 1]."""
    if len(leaf.shape) == 2:
        inputs = keras.ops.expand_dims(inputs, -1)
    elif channels == "first" or (channels == "auto" and leaf.shape[0] < leaf.shape[-1]):
        inputs = keras.ops.transpose(inputs, (0, 2, 3, 1))
    return keras.ops.cast(inputs, "float32") * (1.0 / 255.0)


def _one_hot(leaf, inputs):
    """Integers [B] to float [B, n]."""
    index = inputs - int(leaf.start) if leaf.start else inputs
    return keras.ops.one_hot(index, int(leaf.n), dtype="float32")


def _one_hot_each(leaf, inputs):
    """Integers [B, *shape] to float [B, sum(nvec)], one segment per element in C order."""
    sizes, starts = np.ravel(leaf.nvec), np.ravel(leaf.start)
    element = np.repeat(np.arange(len(sizes)), sizes)  # of each entry of the result
    category = np.concatenate(
        [start + np.arange(n) for n, start in zip(sizes, starts, strict=True)]
    )
    values = keras.ops.take(_flat(leaf, inputs), element.astype(np.int32), axis=1)
    return keras.ops.cast(keras.ops.equal(values, category.astype(leaf.dtype)), "float32")


def _floats(leaf, inputs):
    """Numbers [B, *shape] to float [B, n]."""
    return _flat(leaf, inputs if inputs.dtype == "float32" else keras.ops.cast(inputs, "float32"))


def _flat(leaf, x):
    return x if len(leaf.shape) == 1 else keras.ops.reshape(x, (-1, math.prod(leaf.shape)))


# What makes float features [B, n] of a leaf's values; images have networks instead.
ENCODERS: dict[type[gymnasium.Space], Callable[[Any, Tensor], Tensor]] = {
    gymnasium.spaces.Box: _floats,
    gymnasium.spaces.Discrete: _one_hot,
    gymnasium.spaces.MultiDiscrete: _one_hot_each,
    gymnasium.spaces.MultiBinary: _floats,
}


def _encoder(path: str, leaf: gymnasium.Space) -> Callable[[Any, Tensor], Tensor]:
    for kind, encode in ENCODERS.items():
        if isinstance(leaf, kind):
            return encode
    raise ValueError(
        f"The observation space must be {', '.join(k.__name__ for k in ENCODERS)}, or a Dict or "
        f"Tuple of these. Received: {f'{path!r} is ' if path else ''}{leaf}; leave a part of a "
        "Dict or Tuple out by exclude, or give Policy and Learner your own Keras models"
    )
