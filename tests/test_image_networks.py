"""Image networks: sizes counted by hand, initialisation, and the choice by image size."""

import math

import keras
import numpy as np
import pytest

import ppo_tf
from ppo_tf.networks.image_networks import image_features


def model(network, *shape, **options):
    images = keras.Input(shape)
    return keras.Model(images, network(images, **options))


def test_the_nature_network_has_the_weights_of_the_paper():
    network = model(ppo_tf.nature_cnn, 84, 84, 4)
    # 84 -> (84 - 8) / 4 + 1 = 20 -> (20 - 4) / 2 + 1 = 9 -> 7; 7 * 7 * 64 = 3136.
    assert [w.shape for w in network.weights[::2]] == [
        (8, 8, 4, 32),
        (4, 4, 32, 64),
        (3, 3, 64, 64),
        (3136, 512),
    ]
    # 8224 + 32832 + 36928 + 1606144, with biases.
    assert network.count_params() == 1_684_128
    assert network.output_shape == (None, 512)


def test_the_impala_network_has_the_weights_of_the_paper():
    network = model(ppo_tf.impala_resnet, 64, 64, 3)
    # Sections 448 + 4 * 2320, 4640 + 4 * 9248, 9248 + 4 * 9248; 8 * 8 * 32 = 2048 to 256: 524544.
    assert network.count_params() == 622_144
    assert network.output_shape == (None, 256)
    assert sum(isinstance(layer, keras.layers.Conv2D) for layer in network.layers) == 15
    assert sum(isinstance(layer, keras.layers.MaxPooling2D) for layer in network.layers) == 3


def test_the_impala_network_equals_its_equations():
    network = model(ppo_tf.impala_resnet, 9, 10, 2, seed=0)
    weights = iter(network.weights)
    images = np.random.default_rng(0).random((2, 9, 10, 2), np.float32)

    def convolve(x):
        return keras.ops.conv(x, next(weights), padding="same") + next(weights)

    relu, x = keras.ops.relu, images
    for _ in range(3):
        x = keras.ops.max_pool(convolve(x), 3, 2, padding="same")
        for _ in range(2):
            x = x + convolve(relu(convolve(relu(x))))
    expected = relu(relu(x).numpy().reshape(2, -1) @ next(weights) + next(weights))
    np.testing.assert_allclose(network(images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(8, 8, 3), (1, 1, 1), (35, 84, 1)])
def test_the_small_network_takes_any_image(shape):
    network = model(ppo_tf.small_cnn, *shape)
    height, width = (math.ceil(math.ceil(side / 2) / 2) for side in shape[:2])
    assert network.layers[-1].kernel.shape == (height * width * 64, 256)


@pytest.mark.parametrize("network", [ppo_tf.nature_cnn, ppo_tf.small_cnn])
def test_kernels_are_orthogonal_with_gain_sqrt_2(network):
    built = model(network, 40, 40, 1, seed=3)
    assert len(built.weights) == 8
    for kernel, bias in zip(built.weights[::2], built.weights[1::2], strict=True):
        matrix = kernel.numpy().reshape(-1, kernel.shape[-1])
        gram = matrix.T @ matrix if matrix.shape[0] >= matrix.shape[1] else matrix @ matrix.T
        np.testing.assert_allclose(gram, 2.0 * np.eye(len(gram)), atol=1e-4)
        assert not bias.numpy().any()


@pytest.mark.parametrize("network", [ppo_tf.nature_cnn, ppo_tf.small_cnn, ppo_tf.impala_resnet])
def test_the_seed_determines_the_weights(network):
    first, same, other = (model(network, 36, 36, 1, seed=s).get_weights() for s in (1, 1, 2))
    for a, b, c in zip(first, same, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.ndim == 1 or not np.allclose(a, c)
    kernels = [w.ravel()[:9] for w in first if w.ndim > 1]
    assert len(np.unique(kernels, axis=0)) == len(kernels)  # no seed is used twice


def features(network, *shape):
    return image_features(keras.Input(shape), network, 0)


def test_auto_is_nature_if_it_fits():
    assert features("auto", 36, 36, 1).shape == (None, 512)
    assert features("auto", 36, 35, 1).shape == (None, 256)
    with pytest.raises(ValueError, match=r"at least 36x36.*Received: 36x35"):
        features("nature", 36, 35, 1)


def test_a_custom_network():
    layer = keras.layers.GlobalAveragePooling2D()
    assert features(layer, 9, 9, 5).shape == (None, 5)
    with pytest.raises(ValueError, match=r"features \[B, n\].*\(None, 9, 9, 5\)"):
        features(lambda images: images, 9, 9, 5)


@pytest.mark.parametrize("network", ["resnet", None, 3])
def test_an_unknown_network_is_refused(network):
    with pytest.raises(ValueError, match=r"image_network must be one of.*Received"):
        features(network, 9, 9, 5)
