"""Maps from raw actions to what the environment takes."""

import json
import warnings

import gymnasium
import keras
import numpy as np
import pytest
import tensorflow as tf

from ppo_tf.actions.maps import ClipAction, DiscreteAction, JointAction, TanhAction, UnitAction

Box, Discrete = gymnasium.spaces.Box, gymnasium.spaces.Discrete
MultiDiscrete = gymnasium.spaces.MultiDiscrete
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
MAPS = {"clip": ClipAction, "tanh": TanhAction}
each_bounds = pytest.mark.parametrize("bounds", MAPS)


def two_sided(space):
    return (space.low > -1e30) & (space.high < 1e30)


def size_of(space):
    return int(np.prod(space.shape))


def to_actions(space, bounds, raw):
    """Maps one raw number per row, the same for all elements; numpy [B, *shape]."""
    raw = np.repeat(np.float32(raw)[:, None], size_of(space), axis=1)
    actions = MAPS[bounds].from_space(space)(tf.constant(raw)).numpy()
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
    actions = DiscreteAction.from_space(space)(tf.constant([0, 1, 2])).numpy()
    assert actions.tolist() == [first, first + 1, first + 2]
    assert actions.dtype == dtype
    assert all(space.contains(action) for action in actions)


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
    assert (lowest[~has_low] < -9e5).all()  # without a bound, the raw action passes through
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


@each_bounds
@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_a_box_so_narrow_that_rounding_would_leave_it(dtype, bounds):
    low = np.full(2, 0.1, dtype)
    for high in (low, np.nextafter(low, np.array(1.0, dtype))):
        space = Box(low, high, (2,), dtype)
        for action in to_actions(space, bounds, [-1e6, -0.5, 0.0, 0.5, 1e6]):
            assert space.contains(action), action


@each_bounds
def test_bounds_that_are_float16_are_reached(bounds):
    space = Box(-0.1, 0.7, (2,), np.float16)
    actions = to_actions(space, bounds, [-1e6, 0.0, 1e6])
    assert all(space.contains(action) for action in actions)
    np.testing.assert_array_equal(actions[[0, 2]], [space.low, space.high])


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


def test_clip_keeps_a_half_bounded_raw_action_up_to_the_bound():
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
    action = MAPS[bounds].from_space(space)(raw).numpy()
    np.testing.assert_allclose(action, [[[5, 0, 7], [2, 9, 4]]], rtol=1e-5, atol=1e-5)


@each_bounds
@each_box
def test_making_a_map_gives_no_warning(space, bounds):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        MAPS[bounds].from_space(space)
    assert not caught


@each_bounds
@each_box
def test_a_box_map_survives_keras_serialization_through_json(space, bounds):
    action_map = MAPS[bounds].from_space(space)
    saved = json.dumps(keras.saving.serialize_keras_object(action_map))
    restored = keras.saving.deserialize_keras_object(json.loads(saved))
    assert type(restored) is type(action_map)
    assert restored.get_config() == action_map.get_config()
    raw = tf.constant(np.random.default_rng(0).normal(size=(9, size_of(space))).astype("float32"))
    np.testing.assert_array_equal(restored(raw), action_map(raw))


INTEGERS = {
    "discrete": Discrete(3, start=-2, dtype=np.int32),
    "multi discrete": MultiDiscrete([2, 5, 3], start=[1, -4, 0]),
    "multi discrete rank 2": MultiDiscrete([[2, 3], [4, 1]], dtype=np.int32),
    "multi discrete bytes": MultiDiscrete([3, 200], dtype=np.uint8),
    "multi binary": gymnasium.spaces.MultiBinary(4),
    "multi binary rank 2": gymnasium.spaces.MultiBinary([2, 3]),
}
each_integers = pytest.mark.parametrize("space", INTEGERS.values(), ids=INTEGERS.keys())


@each_integers
def test_integers_start_and_end_where_the_space_does(space):
    sizes = np.ravel(getattr(space, "nvec", getattr(space, "n", 2)))
    if isinstance(space, gymnasium.spaces.MultiBinary):
        sizes = np.full(size_of(space), 2)
    raw = np.int32([np.zeros(len(sizes)), sizes - 1]).reshape(2, *(space.shape and (-1,)))
    lowest, highest = actions = DiscreteAction.from_space(space)(tf.constant(raw)).numpy()
    assert actions.dtype == space.dtype
    assert space.contains(lowest) and space.contains(highest)
    start = np.broadcast_to(getattr(space, "start", 0), space.shape)
    np.testing.assert_array_equal(lowest, start)
    np.testing.assert_array_equal(highest, start + sizes.reshape(space.shape) - 1)
    if space.shape:
        assert not space.contains(highest + np.ones_like(highest))


def test_golden_integers():
    # [1, 4, 2] + [1, -4, 0]
    action_map = DiscreteAction.from_space(INTEGERS["multi discrete"])
    assert action_map(tf.constant([[1, 4, 2]])).numpy().tolist() == [[2, 0, 2]]


@each_integers
def test_an_integer_map_survives_keras_serialization_through_json(space):
    action_map = DiscreteAction.from_space(space)
    saved = json.dumps(keras.saving.serialize_keras_object(action_map))
    assert keras.saving.deserialize_keras_object(json.loads(saved)) == action_map


def test_golden_unit():
    # .1 + .6 x: x = 0, .5, 1
    actions = UnitAction(0.1, 0.7, (1,))(tf.constant([[0.0], [0.5], [1.0]])).numpy()
    np.testing.assert_allclose(actions[:, 0], [0.1, 0.4, 0.7], rtol=1e-6)


@each_box
def test_unit_maps_the_interval_onto_the_box_or_raises_without_bounds(space):
    if not two_sided(space).all():
        with pytest.raises(ValueError, match=r"finite bounds. Received: low="):
            UnitAction.from_space(space)
        return
    raw = np.repeat(np.float32([0.0, 0.3, 1.0])[:, None], size_of(space), axis=1)
    actions = UnitAction.from_space(space)(tf.constant(raw)).numpy()
    assert actions.dtype == space.dtype
    assert all(space.contains(np.asarray(action)) for action in actions)
    np.testing.assert_allclose(actions[0], space.low, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(actions[2], space.high, rtol=1e-6, atol=1e-6)


def test_a_joint_map_applies_each_leafs_map_and_survives_serialization():
    box, integers = Box(-2.0, 4.0, (2,)), INTEGERS["multi discrete"]
    action_map = JointAction(
        {"arm/0": ClipAction.from_space(box), "arm/1": DiscreteAction.from_space(integers)}
    )
    raw = {"arm/1": tf.constant([[1, 0, 2]]), "arm/0": tf.constant([[0.5, -3.0]])}
    saved = json.dumps(keras.saving.serialize_keras_object(action_map))
    for joint in (action_map, keras.saving.deserialize_keras_object(json.loads(saved))):
        actions = joint(raw)
        assert actions.keys() == raw.keys()
        assert actions["arm/0"].numpy().tolist() == [[2.5, -2.0]]
        assert actions["arm/1"].numpy().tolist() == [[2, -4, 2]]


BOX_MAPS = [ClipAction, TanhAction]


@pytest.mark.parametrize("space", [Discrete(3, start=5), *BOXES.values()], ids=str)
def test_a_map_is_rebuilt_from_its_config(space):
    for kind in BOX_MAPS if isinstance(space, Box) else [DiscreteAction]:
        action_map = kind.from_space(space)
        config = json.loads(json.dumps(action_map.get_config()))
        assert kind.from_config(config).get_config() == action_map.get_config()
