"""How every kind of observation becomes one vector of features."""

import gymnasium
import helpers
import keras
import numpy as np
import pytest
import tensorflow as tf
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

from ppo_tf import spaces
from ppo_tf.networks import features
from ppo_tf.networks.layers import RunningNormalization, learn_statistics

CAMERA = Box(0, 255, (8, 9, 3), np.uint8)
TABLE = Box(0, 255, (4, 7), np.uint8)
NESTED = Dict(
    {
        "arm": Tuple((Box(-2, 2, (2, 3)), Discrete(4, start=-1))),
        "arm_0": MultiDiscrete([[2, 3], [1, 4]], start=[[0, 5], [1, -2]]),
        "camera": CAMERA,
        "switches": MultiBinary((2, 2)),
    }
)


def model_of(space, **options):
    return keras.Model(*features.observation_features(space, **options))


def batch_of(space, rows=5, seed=0):
    """Observations [rows, ...], nested as ppo_tf nests them."""
    space.seed(seed)
    flat = [spaces.flatten(space, space.sample()) for _ in range(rows)]
    if isinstance(flat[0], dict):
        return {path: np.stack([row[path] for row in flat]) for path in flat[0]}
    return np.stack(flat)


def kinds():
    """{name: (space, observation, its features)} without normalisation."""
    eye = np.eye(9, dtype=np.float32)
    both = np.concatenate
    return {
        "box": (Box(-9, 9, (2, 2)), [[1, 2], [3, 4.5]], [1, 2, 3, 4.5]),
        "box_scalar": (Box(-9, 9, ()), 2.5, [2.5]),
        "box_float64": (Box(-9, 9, (2,), np.float64), [1, 2.5], [1, 2.5]),
        "box_int": (Box(-9, 9, (2,), np.int32), [-3, 4], [-3, 4]),
        "box_bytes": (Box(0, 255, (3,), np.uint8), [0, 255, 7], [0, 255, 7]),
        "box_uint8_of_other_bounds": (Box(0, 9, (1, 2, 1), np.uint8), [[[3], [4]]], [3, 4]),
        "discrete": (Discrete(4), 2, eye[2, :4]),
        "discrete_start": (Discrete(4, start=-3), -2, eye[1, :4]),
        "multi_discrete": (MultiDiscrete([2, 3]), [1, 0], both([eye[1, :2], eye[0, :3]])),
        "multi_discrete_start": (
            MultiDiscrete([[2, 3], [1, 4]], start=[[0, 5], [1, -2]]),
            [[1, 7], [1, 0]],
            both([eye[1, :2], eye[2, :3], eye[0, :1], eye[2, :4]]),
        ),
        "multi_binary": (MultiBinary((2, 2)), [[1, 0], [0, 1]], [1, 0, 0, 1]),
    }


@pytest.mark.parametrize("name", kinds())
def test_features_of_every_kind_are_as_documented(name):
    space, observation, expected = kinds()[name]
    observation = np.asarray(observation, space.dtype)
    assert space.contains(observation)
    model = model_of(space, normalize=False)
    assert model.input.dtype == np.dtype(space.dtype).name
    assert model.output.shape == (None, len(expected))
    result = model(np.stack([observation, observation]))
    assert result.dtype == "float32"
    np.testing.assert_array_equal(result, np.float32([expected, expected]))


def test_features_of_a_nest_are_concatenated_in_the_order_of_its_paths():
    model, batch = model_of(NESTED, seed=3), batch_of(NESTED)
    assert {path: x.dtype for path, x in model.input.items()} == {
        "arm/0": "float32",
        "arm/1": "int64",
        "arm_0": "int64",
        "camera": "uint8",
        "switches": "int8",
    }
    alone = {p: model_of(leaf, seed=3) for p, leaf in spaces.leaves(NESTED).items()}
    assert list(alone) == ["arm/0", "arm/1", "arm_0", "camera", "switches"]
    expected = np.concatenate([alone[p](batch[p]) for p in alone], axis=-1)
    assert expected.shape == (5, 6 + 4 + 10 + 256 + 4)
    np.testing.assert_allclose(model(batch), expected, rtol=1e-5, atol=1e-6)


def test_a_nest_builds_saves_and_loads_without_warnings(tmp_path, recwarn):
    model, batch = model_of(NESTED), batch_of(NESTED)
    expected = model(batch)
    model.save(tmp_path / "model.keras")
    restored = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(restored(batch), expected)
    assert {p: x.dtype for p, x in restored.input.items()} == {
        p: x.dtype for p, x in model.input.items()
    }
    ours = [w for w in recwarn if "must match the names" in str(w.message)]
    assert not ours


def test_keys_that_keras_does_not_accept_as_names():
    space = Dict({"a b": Box(-1, 1, (2,)), "a_b": Box(-1, 1, (2,)), "ü|": Box(-1, 1, (2,))})
    model = model_of(Dict({"x y": space}))
    assert list(model.input) == ["x y/a b", "x y/a_b", "x y/ü|"]
    assert tf.function(model)(batch_of(Dict({"x y": space}))).shape == (5, 6)


def test_only_boxes_that_are_not_images_learn_statistics():
    space = Dict(a=Box(-5, 5, (2,)), b=CAMERA, c=Discrete(3), d=MultiBinary(2), e=TABLE)
    model, batch = model_of(space), batch_of(space, 50)
    with learn_statistics(tf.ones([50])):
        model(batch)
    layers = [layer for layer in model.layers if isinstance(layer, RunningNormalization)]
    assert [layer.name for layer in layers] == ["normalization_a", "normalization_e"]
    for layer, key in zip(layers, "ae", strict=True):
        rows = batch[key].reshape(50, -1).astype(np.float64)
        np.testing.assert_allclose(layer.mean, rows.mean(axis=0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(layer.variance, rows.var(axis=0), rtol=1e-4)
    assert not any(isinstance(x, RunningNormalization) for x in model_of(CAMERA).layers)
    assert not any(
        isinstance(x, RunningNormalization) for x in model_of(space, normalize=False).layers
    )


def test_a_plain_box_costs_nothing_but_its_normalization():
    assert len(model_of(Box(-1, 1, (3,))).operations) == 2
    assert len(model_of(Box(-1, 1, (3,)), normalize=False).operations) == 1


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (CAMERA, True),
        (Box(0, 255, (1, 1, 1), np.uint8), True),
        (Box(0, 255, (8, 8), np.uint8), True),
        (Box(0, 255, (8, 7), np.uint8), False),
        (Box(0, 255, (128,), np.uint8), False),
        (Box(0, 255, (2, 8, 8, 3), np.uint8), False),
        (Box(0, 254, (8, 8, 3), np.uint8), False),
        (Box(1, 255, (8, 8, 3), np.uint8), False),
        (Box(0, 255, (8, 8, 3), np.int32), False),
        (Box(0, 255, (8, 8, 3), np.float32), False),
        (Discrete(3), False),
    ],
)
def test_which_spaces_are_images(space, expected):
    assert features.is_image(space) is expected


def test_channels_first_or_last_make_no_difference():
    last = batch_of(CAMERA)
    first = np.moveaxis(last, -1, 1)
    first_space = Box(0, 255, first.shape[1:], np.uint8)
    expected = model_of(CAMERA, seed=1)(last)
    np.testing.assert_array_equal(model_of(first_space, seed=1)(first), expected)
    assert np.std(expected) > 0


def received(shape, **options):
    """The shape that a network receives for an image of that shape."""
    shapes = []

    def network(images):
        shapes.append(images.shape[1:])
        return keras.ops.max(images, axis=(1, 2))

    model_of(Box(0, 255, shape, np.uint8), image_network=network, **options)
    return shapes[0]


def test_the_channel_axis():
    assert received((4, 8, 9)) == (8, 9, 4)
    assert received((8, 9, 4)) == (8, 9, 4)
    assert received((4, 9, 4)) == (4, 9, 4)
    assert received((8, 9)) == (8, 9, 1)
    assert received((4, 8, 9), image_channels="last") == (4, 8, 9)
    assert received((8, 9, 4), image_channels="first") == (9, 4, 8)
    with pytest.raises(ValueError, match=r"image_channels must be.*image_channels='middle'"):
        received((8, 9, 4), image_channels="middle")


def test_images_are_scaled_to_the_unit_interval():
    model = model_of(CAMERA, image_network=lambda images: keras.ops.max(images, axis=(1, 2)))
    images = np.zeros((1, 8, 9, 3), np.uint8)
    images[0, 2, 3] = [255, 51, 0]
    np.testing.assert_allclose(model(images), [[1.0, 0.2, 0.0]], rtol=1e-6)


@pytest.mark.parametrize(
    ("exclude", "kept"),
    [
        (["arm"], ["arm_0", "camera", "switches"]),
        (["arm/0", "camera"], ["arm/1", "arm_0", "switches"]),
        ("switches", ["arm/0", "arm/1", "arm_0", "camera"]),
    ],
)
def test_excluded_leaves_are_not_inputs(exclude, kept):
    assert list(model_of(NESTED, exclude=exclude).input) == kept


def test_masks_are_features_only_on_request():
    space = Dict(action_mask=Dict(move=MultiBinary(2)), action_masks=MultiBinary(2), x=Discrete(2))
    assert list(model_of(space).input) == ["action_masks", "x"]
    assert list(model_of(space, mask_key="x").input) == ["action_mask/move", "action_masks"]
    assert len(model_of(space, mask_key=None).input) == 3


def test_excluded_leaves_may_be_of_any_kind():
    space = Dict(text=gymnasium.spaces.Text(5), x=Discrete(2))
    assert list(model_of(space, exclude=["text"]).input) == ["x"]


@pytest.mark.parametrize(
    ("space", "options", "message"),
    [
        (NESTED, {"exclude": ["arms"]}, r"'arm', 'arm/0'.*'switches'\].*exclude=\['arms'\]"),
        (CAMERA, {"exclude": ["arm"]}, "Only parts of a Dict or Tuple.*exclude=.*Box"),
        (Dict(x=Discrete(2)), {"exclude": ["x"]}, "No part of the observation.*exclude="),
        (Dict(action_mask=MultiBinary(2)), {}, "No part of the observation.*mask_key="),
        (CAMERA, {"image_network": "vgg"}, "image_network must be one of.*'vgg'"),
        (Discrete(3), {"image_network": "vgg"}, "image_network must be one of.*'vgg'"),
        (CAMERA, {"image_network": "nature"}, "at least 36x36.*8x9"),
    ],
)
def test_invalid_options_are_refused(space, options, message):
    with pytest.raises(ValueError, match=message):
        model_of(space, **options)


@pytest.mark.parametrize(
    "leaf",
    [
        gymnasium.spaces.Text(5),
        gymnasium.spaces.Graph(helpers.box(2), None),
        gymnasium.spaces.Sequence(Discrete(2)),
        gymnasium.spaces.OneOf([Discrete(2)]),
    ],
)
def test_an_unsupported_leaf_is_refused_by_its_path(leaf):
    kind = type(leaf).__name__
    supported = "Box, Discrete, MultiDiscrete, MultiBinary, or a Dict or Tuple"
    with pytest.raises(ValueError, match=f"{supported}.*'arm/1' is {kind}"):
        model_of(Dict(arm=Tuple([Discrete(2), leaf])))
    with pytest.raises(ValueError, match=f"{supported}.*Received: {kind}"):
        model_of(leaf)
