"""From action spaces to families, parameter sizes and maps."""

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from ppo_tf import spaces
from ppo_tf.actions.distributions import (
    FullGaussian,
    Joint,
    MultiBernoulli,
    MultiCategorical,
    StateDependentExploration,
    TanhGaussian,
    TruncatedGaussian,
    UnimodalBeta,
)
from ppo_tf.actions.maps import ClipAction, DiscreteAction, JointAction, TanhAction, UnitAction
from ppo_tf.actions.specs import action_spec

tfd = tfp.distributions
Box, Discrete, Tuple = gymnasium.spaces.Box, gymnasium.spaces.Discrete, gymnasium.spaces.Tuple
MultiBinary, MultiDiscrete = gymnasium.spaces.MultiBinary, gymnasium.spaces.MultiDiscrete
CONTINUOUS = {
    "clipped_gaussian": (tfd.MultivariateNormalDiag, {"loc": 3, "scale_diag": 3}, ClipAction),
    "tanh_gaussian": (TanhGaussian((True,) * 3), {"loc": 3, "scale_diag": 3}, TanhAction),
    "beta": (UnimodalBeta(), {"concentration1": 3, "concentration0": 3}, UnitAction),
    "truncated_gaussian": (TruncatedGaussian(), {"loc": 3, "scale_diag": 3}, ClipAction),
    "full_covariance": (FullGaussian(), {"loc": 3, "scale_tril": 6}, ClipAction),
    "gsde": (StateDependentExploration(4), {"loc": 3, "directions": 3}, ClipAction),
}
BOUNDED_ONLY = ("beta", "truncated_gaussian")


@pytest.mark.parametrize(
    ("space", "family", "parameters"),
    [
        (Discrete(4, start=-2), tfd.Categorical, {"logits": 4}),
        (MultiDiscrete([2, 5, 3]), MultiCategorical((2, 5, 3)), {"logits": 10}),
        (MultiDiscrete([[2, 3], [4, 1]]), MultiCategorical((2, 3, 4, 1)), {"logits": 10}),
        (MultiBinary(4), MultiBernoulli(), {"logits": 4}),
        (MultiBinary([2, 3]), MultiBernoulli(), {"logits": 6}),
    ],
    ids=str,
)
def test_integer_spaces(space, family, parameters):
    spec = action_spec(space)
    assert spec.family == family
    assert spec.parameters == parameters
    assert type(spec.action_map) is DiscreteAction


@pytest.mark.parametrize("continuous", CONTINUOUS)
def test_boxes(continuous):
    family, parameters, kind = CONTINUOUS[continuous]
    spec = action_spec(Box(-2.0, 3.0, (3,)), continuous=continuous)
    assert spec.family == family
    assert spec.parameters == parameters
    assert type(spec.action_map) is kind


def test_a_box_is_a_clipped_gaussian_by_default():
    assert action_spec(Box(-1.0, 1.0, (2,))).family is tfd.MultivariateNormalDiag
    assert type(action_spec(Box(-1.0, 1.0, (2,))).action_map) is ClipAction


def test_the_entropy_of_tanh_counts_bounded_elements_only():
    space = Box(np.float32([-1, -np.inf, 0]), np.float32([1, 1, np.inf]))
    family = action_spec(space, continuous="tanh_gaussian").family
    assert family == TanhGaussian((True, False, False))


def test_the_period_of_gsde_reaches_the_family():
    spec = action_spec(Box(-1.0, 1.0, (2,)), continuous="gsde", sde_period=7)
    assert spec.family == StateDependentExploration(7)


def test_a_composite_space_is_joint_by_path():
    space = gymnasium.spaces.Dict(
        {"arm": Tuple([Box(-1.0, 1.0, (2,)), Discrete(3)]), "grip": MultiBinary(2)}
    )
    spec = action_spec(space, continuous="beta")
    assert spec.family == Joint(
        {"arm/0": UnimodalBeta(), "arm/1": tfd.Categorical, "grip": MultiBernoulli()}
    )
    assert spec.parameters == {
        "arm/0": {"concentration1": 2, "concentration0": 2},
        "arm/1": {"logits": 3},
        "grip": {"logits": 2},
    }
    assert type(spec.action_map) is JointAction
    assert spec.action_map.maps.keys() == spec.parameters.keys()


def random_leaf(rng, bounded):
    shape = tuple(rng.integers(1, 4, rng.integers(0, 3)).tolist())
    kind = rng.integers(4)
    if kind == 0:
        return Discrete(int(rng.integers(1, 6)), start=int(rng.integers(-5, 5)))
    if kind == 1:
        sizes = rng.integers(1, 6, shape or (1,))
        start = rng.integers(-5, 5, sizes.shape)
        return MultiDiscrete(sizes, dtype=rng.choice([np.int64, np.int32, np.int8]), start=start)
    if kind == 2:
        return MultiBinary(shape or 1)
    dtype = rng.choice([np.float16, np.float32, np.float64])
    low = rng.uniform(-30, 30, shape)
    high = low + 10.0 ** rng.uniform(-1, 2, shape)
    if not bounded:
        low = np.where(rng.random(shape) < 0.2, -np.inf, low)
        high = np.where(rng.random(shape) < 0.2, np.inf, high)
    return Box(low.astype(dtype), high.astype(dtype), shape, dtype)


def random_space(rng, bounded, depth=0):
    if depth == 2 or rng.random() < 0.4:
        return random_leaf(rng, bounded)
    parts = [random_space(rng, bounded, depth + 1) for _ in range(rng.integers(1, 4))]
    if rng.random() < 0.5:
        return Tuple(parts)
    return gymnasium.spaces.Dict({f"part{i}": part for i, part in enumerate(parts)})


def random_parameters(sizes, rng, batch):
    if isinstance(next(iter(sizes.values())), dict):
        return {path: random_parameters(part, rng, batch) for path, part in sizes.items()}
    magnitude = rng.choice([0.1, 1.0, 30.0])
    shapes = {k: (batch, 5, n) if k == "directions" else (batch, n) for k, n in sizes.items()}
    raw = {k: tf.constant(np.float32(magnitude * rng.normal(size=s))) for k, s in shapes.items()}
    return {k: tf.abs(v) + 1e-3 if k == "scale_diag" else v for k, v in raw.items()}


@pytest.mark.parametrize("continuous", CONTINUOUS)
@pytest.mark.parametrize("seed", range(5))
def test_sampled_and_most_likely_actions_lie_in_random_spaces(continuous, seed):
    rng = np.random.default_rng([seed, list(CONTINUOUS).index(continuous)])
    space = random_space(rng, bounded=continuous in BOUNDED_ONLY)
    spec = action_spec(space, continuous=continuous)
    distribution = spec.family(**random_parameters(spec.parameters, rng, 16))
    for raw in (distribution.sample(seed=tf.constant([seed, 1])), distribution.mode()):
        assert distribution.log_prob(raw).shape == (16,)
        actions = tf.nest.map_structure(np.array, spec.action_map(raw))
        for row in range(16):
            one = tf.nest.map_structure(lambda leaf, row=row: np.asarray(leaf[row]), actions)
            assert space.contains(spaces.unflatten(space, one)), (space, one)


def test_random_spaces_hold_every_kind_of_leaf():
    found = set()
    for seed in range(5):
        for k in range(len(CONTINUOUS)):
            leaves = spaces.leaves(random_space(np.random.default_rng([seed, k]), False))
            found |= {type(x) for x in (leaves.values() if isinstance(leaves, dict) else [leaves])}
    assert found == {Discrete, MultiDiscrete, MultiBinary, Box}


@pytest.mark.parametrize(
    ("space", "name"),
    [
        (Box(0, 255, (2,), np.uint8), "The action space must be .*Received: Box.*uint8"),
        (gymnasium.spaces.Text(3), "The action space must be .*Received: Text"),
        (
            gymnasium.spaces.Dict({"a": Tuple([Discrete(2), Box(0, 9, (1,), np.int32)])}),
            "The action space at 'a/1' must be .*Received: Box.*int32",
        ),
        (Tuple([]), r"must have at least one leaf. Received: Tuple\(\)"),
    ],
    ids=str,
)
def test_unsupported_spaces_raise_with_their_name(space, name):
    with pytest.raises(ValueError, match=name):
        action_spec(space)


@pytest.mark.parametrize("continuous", BOUNDED_ONLY)
def test_distributions_with_bounded_support_need_a_bounded_box(continuous):
    unbounded = Box(np.float32([-1, -1]), np.float32([1, np.inf]))
    message = f"continuous='{continuous}' needs a Box with finite bounds.*action space Box"
    with pytest.raises(ValueError, match=message):
        action_spec(unbounded, continuous=continuous)
    with pytest.raises(ValueError, match="action space at '1' Box"):
        action_spec(Tuple([Discrete(2), unbounded]), continuous=continuous)


def test_unknown_options_raise_with_their_value():
    with pytest.raises(ValueError, match=r"continuous must be .*'gsde'.*continuous='squash'"):
        action_spec(Discrete(2), continuous="squash")
    with pytest.raises(ValueError, match=r"sde_period must be at least 1. Received: sde_period=0"):
        action_spec(Box(-1.0, 1.0, (2,)), continuous="gsde", sde_period=0)
