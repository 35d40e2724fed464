"""Convolutional networks: images float [B, height, width, channels] in, features [B, n] out.

Each is a function of Keras tensors, for use in any functional model. It expects images scaled to
[0, 1], as `observation_features` does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import keras

from ppo_tf.networks.initialization import HIDDEN_GAIN, Seeds, dense
from ppo_tf.types import Tensor

ImageNetwork = Literal["auto", "nature", "impala", "small"] | Callable[[Tensor], Tensor]

# The shortest side that survives the strides of `nature_cnn`: 36 -> 8 -> 3 -> 1.
NATURE_MIN_SIDE = 36


def nature_cnn(images: Tensor, *, units: int = 512, seed: int | None = None) -> Tensor:
    """Three convolutions and a dense layer, all with ReLU (Mnih et al. 2015, Methods).

    32 filters 8x8 with stride 4, 64 of 4x4 with stride 2, 64 of 3x3 with stride 1, no padding.
    Kernels are orthogonal with gain sqrt(2) ("The 37 implementation details of PPO", detail 2).

    Args:
        images: Keras tensor float [B, height, width, channels], height and width at least 36.
        units: size of the dense layer.
        seed: seed of the initialisation; None draws one.

    Returns:
        Keras tensor float [B, units].

    Raises:
        ValueError: the images are smaller than that.
    """
    height, width = images.shape[1:3]
    if min(height, width) < NATURE_MIN_SIDE:
        raise ValueError(
            f"The Nature network needs images of at least {NATURE_MIN_SIDE}x{NATURE_MIN_SIDE}. "
            f"Received: {height}x{width}; 'auto' chooses a network that fits"
        )
    filters = [(32, 8, 4), (64, 4, 2), (64, 3, 1)]
    return _convolutions(images, filters, units, "valid", Seeds(seed))


def small_cnn(images: Tensor, *, units: int = 256, seed: int | None = None) -> Tensor:
    """A smaller `nature_cnn` for small images such as grid worlds; accepts any size.

    32 filters 3x3 with stride 1, 64 with stride 2, 64 with stride 2, padded, and a dense layer.

    Args:
        images: Keras tensor float [B, height, width, channels].
        units: size of the dense layer.
        seed: seed of the initialisation; None draws one.

    Returns:
        Keras tensor float [B, units].
    """
    filters = [(32, 3, 1), (64, 3, 2), (64, 3, 2)]
    return _convolutions(images, filters, units, "same", Seeds(seed))


def impala_resnet(images: Tensor, *, units: int = 256, seed: int | None = None) -> Tensor:
    """Fifteen convolutions with residual connections (Espeholt et al. 2018, fig. 3 right).

    Three sections of 16, 32 and 32 channels, each a 3x3 convolution, 3x3 max pooling with stride 2,
    and two residual blocks x + conv(relu(conv(relu(x)))). Then ReLU, a dense layer and ReLU.
    Convolutions are initialised by Keras' default (Glorot), since orthogonal kernels of gain
    sqrt(2) would double the variance in every block; the dense layer is orthogonal.

    Args:
        images: Keras tensor float [B, height, width, channels], of any size.
        units: size of the dense layer.
        seed: seed of the initialisation; None draws one.

    Returns:
        Keras tensor float [B, units].
    """
    seeds = Seeds(seed)

    def convolution(channels: int) -> keras.layers.Layer:
        initializer = keras.initializers.GlorotUniform(seed=seeds.next())
        return keras.layers.Conv2D(
            channels, 3, padding="same", kernel_initializer=initializer, data_format="channels_last"
        )

    x = images
    for channels in (16, 32, 32):
        x = convolution(channels)(x)
        x = keras.layers.MaxPooling2D(3, 2, padding="same", data_format="channels_last")(x)
        for _ in range(2):
            inner = convolution(channels)(keras.ops.relu(x))
            x = x + convolution(channels)(keras.ops.relu(inner))
    return _flat_dense(keras.ops.relu(x), units, seeds)


NETWORKS: dict[str, Callable[..., Tensor]] = {
    "nature": nature_cnn,
    "impala": impala_resnet,
    "small": small_cnn,
}


def check_image_network(network: Any) -> None:
    """Checks that `network` is a valid `image_network`.

    Raises:
        ValueError: it is neither a callable nor a known name.
    """
    if not (callable(network) or network == "auto" or network in NETWORKS):
        raise ValueError(
            f"image_network must be one of {['auto', *NETWORKS]} or a callable from images to "
            f"features. Received: image_network={network!r}"
        )


def image_features(images: Tensor, network: ImageNetwork, seed: int | None) -> Tensor:
    """Computes features of images with a network, given by name or as a callable.

    Args:
        images: Keras tensor float [B, height, width, channels].
        network: a key of `NETWORKS`; "auto", which takes "nature" if the images are large enough
            and "small" otherwise; or any callable from images to features, such as a Keras layer.
        seed: seed of a named network's initialisation; None draws one.

    Returns:
        Keras tensor float [B, n].

    Raises:
        ValueError: the network does not exist, or its result is not [B, n].
    """
    check_image_network(network)
    if callable(network):
        features = network(images)
        shape = getattr(features, "shape", None)
        if shape is None or len(shape) != 2 or shape[-1] is None:
            raise ValueError(
                "image_network must return features [B, n] with a known n. "
                f"Received: {shape} for images {images.shape}"
            )
        return features
    if network == "auto":
        network = "nature" if min(images.shape[1:3]) >= NATURE_MIN_SIDE else "small"
    return NETWORKS[network](images, seed=seed)


def _convolutions(
    x: Tensor, filters: Sequence[tuple[int, int, int]], units: int, padding: str, seeds: Seeds
) -> Tensor:
    for channels, size, stride in filters:
        x = keras.layers.Conv2D(
            channels,
            size,
            stride,
            padding=padding,
            activation="relu",
            kernel_initializer=keras.initializers.Orthogonal(HIDDEN_GAIN, seed=seeds.next()),
            data_format="channels_last",
        )(x)
    return _flat_dense(x, units, seeds)


def _flat_dense(x: Tensor, units: int, seeds: Seeds) -> Tensor:
    flat = keras.layers.Flatten(data_format="channels_last")(x)
    return dense(units, HIDDEN_GAIN, seeds, activation="relu")(flat)
