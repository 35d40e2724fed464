"""From action spaces to distributions, and from raw actions to what the environment takes."""

import json
import warnings

import gymnasium
import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from ppo_tf.distributions import ClipAction, DiscreteAction, TanhAction, action_spec

Box, Discrete = gymnasium.spaces.Box, gymnasium.spaces.Discrete
INF = np.inf
BIGGEST = float(np.finfo(np.float32).max)

BOXES = {
    "symmetric": Box(-2.0, 2.0, (2,)),
    "asymmetric": Box(0.1, 0.7, (3,)),
    "different": Box(np.float32([-1, 0, -300.3]), np.float32([1, 5, 7.7])),
    "one-sided low": Box(0.3, INF, (2,)),
    "one-sided high": Box(-INF, -1.7, (2,)),
    "unbounded": Box(-INF, INF, (2,)),
    "mixed": Box(np.float32([-1, -INF, 2, -INF]), np.float32([3, 4, INF, INF])),
    "float64": Box(-0.1, 0.7, (2,), np.float64),
    "largest float": Box(-BIGGEST, BIGGEST, (2,)),
    "scalar": Box(-3.0, 1.0, ()),
    "rank 2": Box(np.float32([[-1, 0, 1], [2, 3, 4]]), np.float32([[5, 6, 7], [8, 9, 10]])),
}
each_box = pytest.mark.parametrize("space", BOXES.values(), ids=BOXES.keys())
each_bounds = pytest.mark.parametrize("bounds", ["clip", "tanh"])


def two_sided(space):
    return (space.low > -1e30) & (space.high < 1e30)


def size_of(space):
    return int(np.prod(space.shape))


def to_actions(space, bounds, raw):
    """Maps one raw number per row, the same for all elements; numpy [B, *shape]."""
    raw = np.repeat(np.float32(raw)[:, None], size_of(space), axis=1)
    actions = action_spec(space, bounds=bounds).action_map(tf.constant(raw)).numpy()
    assert actions.shape == (len(raw), *space.shape)
    assert actions.dtype == space.dtype
    return actions


@pytest.mark.parametrize(
    ("space", "first", "dtype"),
    [
        (Discrete(3), 0, "int64"),
        (Discrete(3, start=-2), -2, "int64"),
        (Discrete(3, start=5), 5, "int64"),
        (Discrete(3, start=-2, dtype=np.int32), -2, "int32"),
    ],
)
def test_discrete_actions_start_where_the_space_does(space, first, dtype):
    spec = action_spec(space)
    assert spec.family is tfp.distributions.Categorical
    assert spec.parameters == {"logits": 3}
    actions = spec.action_map(tf.constant([0, 1, 2])).numpy()
    assert actions.tolist() == [first, first + 1, first + 2]
    assert actions.dtype == dtype
    assert all(space.contains(action) for action in actions)


def test_every_sample_of_a_discrete_spec_is_in_the_space():
    space = Discrete(4, start=-2)
    spec = action_spec(space)
    raw = spec.family(logits=tf.zeros([100, 4])).sample(seed=(1, 2))
    actions = spec.action_map(raw).numpy()
    assert set(actions.tolist()) == {-2, -1, 0, 1}
    assert all(space.contains(action) for action in actions)


@each_bounds
@each_box
def test_the_spec_of_a_box_is_a_gaussian_over_its_elements(space, bounds):
    spec = action_spec(space, bounds=bounds)
    size = size_of(space)
    assert spec.family is tfp.distributions.MultivariateNormalDiag
    assert spec.parameters == {"loc": size, "scale_diag": size}
    assert type(spec.action_map) is {"clip": ClipAction, "tanh": TanhAction}[bounds]
    raw = spec.family(loc=tf.zeros([5, size]), scale_diag=tf.ones([5, size])).sample(seed=(1, 2))
    assert spec.action_map(raw).shape == (5, *space.shape)


@each_bounds
@each_box
def test_actions_lie_in_the_space(space, bounds):
    rng = np.random.default_rng(0)
    raw = np.float32(10.0 ** rng.uniform(-3, 3, 300) * rng.choice([-1, 1], 300))
    actions = to_actions(space, bounds, raw)
    assert np.isfinite(actions).all()
    for action in actions:
        assert space.contains(np.asarray(action)), action


@each_bounds
@each_box
def test_extreme_raw_actions_reach_the_bounds_and_stay_finite(space, bounds):
    lowest, highest = actions = to_actions(space, bounds, [-1e6, 1e6])
    assert np.isfinite(actions).all()
    assert space.contains(np.asarray(lowest)), lowest
    assert space.contains(np.asarray(highest)), highest
    has_low, has_high = space.low > -1e30, space.high < 1e30
    np.testing.assert_allclose(lowest[has_low], space.low[has_low], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(highest[has_high], space.high[has_high], rtol=1e-6, atol=1e-6)
    assert (lowest[~has_low] < -9e5).all()  # where nothing bounds it, the raw action goes through
    assert (highest[~has_high] > 9e5).all()


@each_bounds
@each_box
def test_larger_raw_actions_never_give_smaller_actions(space, bounds):
    actions = to_actions(space, bounds, np.linspace(-3, 3, 61))
    assert (np.diff(actions, axis=0) >= 0).all()
    assert (actions[-1] > actions[0]).all()


@each_bounds
@each_box
def test_raw_zero_is_the_centre_of_a_two_sided_box(space, bounds):
    (action,) = to_actions(space, bounds, [0.0])
    sides = two_sided(space)
    center = (space.low[sides].astype(np.float64) + space.high[sides]) / 2
    np.testing.assert_allclose(action[sides], center, rtol=1e-6, atol=1e-6)


@each_box
def test_clip_maps_raw_plus_minus_one_to_the_bounds(space):
    lowest, highest = to_actions(space, "clip", [-1.0, 1.0])
    sides = two_sided(space)
    np.testing.assert_allclose(lowest[sides], space.low[sides], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(highest[sides], space.high[sides], rtol=1e-6, atol=1e-6)


def test_golden_clip():
    # center .5, half-width 1.5: .5 + 1.5 * .5 = 1.25; .5 - 1.5 * 2 = -2.5, clipped to -1
    actions = to_actions(Box(-1.0, 2.0, (1,)), "clip", [0.5, -2.0])
    assert actions[:, 0].tolist() == [1.25, -1]


def test_golden_tanh():
    # center .5, half-width 1.5, tanh(.5) = .462117157: .5 + .693175736
    actions = to_actions(Box(-1.0, 2.0, (1,)), "tanh", [0.5])
    np.testing.assert_allclose(actions[:, 0], [1.193175736], rtol=1e-6)


def test_golden_softplus_where_one_side_is_bounded():
    # log(1 + e^.5) = .974076984; log(1 + e^-.5) = .474076984
    space = Box(np.float32([2, -INF]), np.float32([INF, -3]))
    actions = to_actions(space, "tanh", [0.5])
    np.testing.assert_allclose(actions, [[2.974076984, -3.474076984]], rtol=1e-6)


def test_clip_leaves_a_half_bounded_raw_action_as_it_is_up_to_the_bound():
    space = Box(np.float32([2, -INF]), np.float32([INF, -3]))
    actions = to_actions(space, "clip", [5.5, -4.5, 0.0])
    assert actions.tolist() == [[5.5, -3], [2, -4.5], [2, -3]]


@each_bounds
def test_an_unbounded_raw_action_is_the_action(bounds):
    actions = to_actions(BOXES["unbounded"], bounds, [-1234.5, 0.25])
    assert actions.tolist() == [[-1234.5, -1234.5], [0.25, 0.25]]


@each_bounds
def test_elements_keep_their_places(bounds):
    space = BOXES["rank 2"]
    raw = tf.constant([[9.0, -9.0, 9.0, -9.0, 9.0, -9.0]])
    action = action_spec(space, bounds=bounds).action_map(raw).numpy()
    np.testing.assert_allclose(action, [[[5, 0, 7], [2, 9, 4]]], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("space", "name"),
    [
        (gymnasium.spaces.MultiDiscrete([2, 3]), "MultiDiscrete"),
        (Box(0, 255, (2,), np.uint8), "Box.*uint8"),
        (gymnasium.spaces.Dict({"move": Discrete(2)}), "Dict.*move"),
        (gymnasium.spaces.MultiBinary(3), "MultiBinary"),
    ],
)
def test_unsupported_spaces_raise_with_their_name(space, name):
    with pytest.raises(ValueError, match=f"Discrete or a Box of floats. Received: {name}"):
        action_spec(space)


def test_unknown_bounds_raise_with_their_value():
    with pytest.raises(ValueError, match=r"bounds must .*Received: bounds='squash'"):
        action_spec(Discrete(2), bounds="squash")


@each_bounds
@each_box
def test_making_a_spec_warns_of_nothing(space, bounds):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        action_spec(space, bounds=bounds)
    assert not caught


@each_bounds
@each_box
def test_a_box_map_survives_keras_serialization_through_json(space, bounds):
    action_map = action_spec(space, bounds=bounds).action_map
    saved = json.dumps(keras.saving.serialize_keras_object(action_map))
    restored = keras.saving.deserialize_keras_object(json.loads(saved))
    assert type(restored) is type(action_map)
    assert restored.get_config() == action_map.get_config()
    raw = tf.constant(np.random.default_rng(0).normal(size=(9, size_of(space))).astype("float32"))
    np.testing.assert_array_equal(restored(raw), action_map(raw))


def test_a_discrete_map_survives_keras_serialization_through_json():
    action_map = action_spec(Discrete(3, start=-2, dtype=np.int32)).action_map
    saved = json.dumps(keras.saving.serialize_keras_object(action_map))
    restored = keras.saving.deserialize_keras_object(json.loads(saved))
    assert restored == action_map == DiscreteAction(-2, "int32")


@pytest.mark.parametrize("space", [Discrete(3, start=5), *BOXES.values()], ids=str)
def test_a_map_is_rebuilt_from_its_config(space):
    action_map = action_spec(space).action_map
    config = json.loads(json.dumps(action_map.get_config()))
    assert type(action_map)(**config).get_config() == action_map.get_config()
