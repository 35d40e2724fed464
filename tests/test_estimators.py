"""Advantage estimators against the papers' sums, each other and values worked by hand."""

import functools

import numpy as np
import pytest
import reference
import tensorflow as tf

from ppo_tf.learning.estimators import GAE, NStep, RewardToGo, TrajectoryReturn, VTrace, td_error

GAMMAS = (0.0, 0.9, 1.0)
LAMBDAS = (0.0, 0.5, 0.95, 1.0)
STEPS = (1, 2, 5, 50)
NAMES = ("rewards", "values", "next_values", "terminated", "truncated")
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
DEFAULTS = pytest.mark.parametrize(
    "estimator", [RewardToGo(), NStep(), GAE()], ids=lambda e: type(e).__name__
)


def estimators_with_oracles():
    for gamma in GAMMAS:
        for baseline in (True, False):
            options = {"gamma": gamma, "baseline": baseline}
            yield RewardToGo(**options), functools.partial(reference.reward_to_go, **options)
        options = {"gamma": gamma}
        yield TrajectoryReturn(**options), functools.partial(reference.trajectory_return, **options)
        for n in STEPS:
            options = {"n": n, "gamma": gamma}
            yield NStep(**options), functools.partial(reference.n_step, **options)
        for gae_lambda in LAMBDAS:
            options = {"gamma": gamma, "gae_lambda": gae_lambda}
            yield GAE(**options), functools.partial(reference.gae, **options)


def episode_ends(horizon, num_envs, rng):
    """Yields (terminated, truncated) [T, B]: patterns of episode ends."""
    none = np.zeros((horizon, num_envs), bool)
    everywhere = np.ones((horizon, num_envs), bool)
    last = none.copy()
    last[-1] = True
    both = none.copy()
    both[horizon // 2] = True
    yield none, none
    yield everywhere, none
    yield none, everywhere
    yield both, both
    yield last, none
    yield none, last
    for chance in (0.1, 0.4):
        yield rng.random(none.shape) < chance, rng.random(none.shape) < chance


def random_arguments(terminated, truncated, rng):
    """Random rewards and values; inside an episode V(s_{t+1}) is the next row's V(s_t)."""
    shape = terminated.shape
    rewards, values, next_values = rng.normal(size=(3, *shape)).astype(np.float32)
    continues = ~(terminated | truncated)[:-1]
    next_values[:-1] = np.where(continues, values[1:], next_values[:-1])
    return {
        "rewards": rewards,
        "values": values,
        "next_values": next_values,
        "terminated": terminated,
        "truncated": truncated,
    }


def to_tensors(arguments):
    return {name: tf.constant(arguments[name]) for name in NAMES}


@functools.cache
def compiled(*estimators):
    """One traced function for all `estimators`, any horizon and any number of environments."""
    floats = {name: tf.TensorSpec([None, None], tf.float32, name) for name in NAMES[:3]}
    bools = {name: tf.TensorSpec([None, None], tf.bool, name) for name in NAMES[3:]}

    @tf.function(jit_compile=False)
    def run(**arguments):
        return [estimator(**arguments) for estimator in estimators]

    return run.get_concrete_function(**floats, **bools)


@pytest.mark.parametrize("num_envs", [1, 3])
@pytest.mark.parametrize("horizon", [1, 2, 7, 33])
def test_estimators_equal_the_sums_in_the_papers(horizon, num_envs):
    rng = np.random.default_rng(100 * horizon + num_envs)
    estimators, oracles = zip(*estimators_with_oracles(), strict=True)
    for terminated, truncated in episode_ends(horizon, num_envs, rng):
        arguments = random_arguments(terminated, truncated, rng)
        results = compiled(*estimators)(**to_tensors(arguments))
        for estimator, oracle, (advantages, targets) in zip(
            estimators, oracles, results, strict=True
        ):
            message = f"{estimator}, terminated={terminated}, truncated={truncated}"
            expected_advantages, expected_targets = oracle(**arguments)
            np.testing.assert_allclose(
                advantages, expected_advantages, **TOLERANCE, err_msg=message
            )
            np.testing.assert_allclose(targets, expected_targets, **TOLERANCE, err_msg=message)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_identities_between_estimators_hold(gamma):
    horizon = 7
    rng = np.random.default_rng(1)
    run = compiled(
        GAE(gamma=gamma, gae_lambda=0.0),
        NStep(n=1, gamma=gamma),
        GAE(gamma=gamma, gae_lambda=1.0),
        RewardToGo(gamma=gamma),
        NStep(n=horizon, gamma=gamma),
        NStep(n=2**53, gamma=gamma),
    )
    for terminated, truncated in episode_ends(horizon, 3, rng):
        arguments = random_arguments(terminated, truncated, rng)
        one_td_error, one_step, undamped, to_go, all_steps, more_steps = run(
            **to_tensors(arguments)
        )
        for left, right in [
            (one_td_error, one_step),
            (undamped, to_go),
            (all_steps, to_go),
            (more_steps, to_go),
        ]:
            np.testing.assert_allclose(left[0], right[0], **TOLERANCE)
            np.testing.assert_allclose(left[1], right[1], **TOLERANCE)


@DEFAULTS
def test_targets_are_advantages_plus_values(estimator):
    rng = np.random.default_rng(2)
    for terminated, truncated in episode_ends(7, 3, rng):
        arguments = random_arguments(terminated, truncated, rng)
        ((advantages, targets),) = compiled(estimator)(**to_tensors(arguments))
        np.testing.assert_allclose(targets, advantages + arguments["values"], **TOLERANCE)


@pytest.mark.parametrize(
    "estimator",
    [RewardToGo(), RewardToGo(baseline=False), NStep(n=3), GAE()],
    ids=["RewardToGo", "no baseline", "NStep", "GAE"],
)
def test_the_value_of_a_terminal_state_does_not_matter(estimator):
    rng = np.random.default_rng(3)
    for terminated, truncated in episode_ends(7, 3, rng):
        arguments = random_arguments(terminated, truncated, rng)
        ((advantages, targets),) = compiled(estimator)(**to_tensors(arguments))
        arguments["next_values"] = np.where(terminated, np.float32(1e6), arguments["next_values"])
        ((same_advantages, same_targets),) = compiled(estimator)(**to_tensors(arguments))
        np.testing.assert_array_equal(advantages, same_advantages)
        np.testing.assert_array_equal(targets, same_targets)


# One segment of five steps and one environment, gamma = 0.5. The first episode terminates at t = 1
# (its next value, 99, must not count), the second is truncated at t = 2, the third is unfinished.
#
#   t               0             1             2             3             4
#   r               1             2             3             4             5
#   V               1             4             2             2             8
#   V'              4            99             6             8            10
#   end                   terminated     truncated
#   delta   1+.5*4-1=2      2+0-4=-2    3+.5*6-2=4    4+.5*8-2=6   5+.5*10-8=2
GOLDEN = {
    "rewards": np.float32([[1], [2], [3], [4], [5]]),
    "values": np.float32([[1], [4], [2], [2], [8]]),
    "next_values": np.float32([[4], [99], [6], [8], [10]]),
    "terminated": np.array([[False], [True], [False], [False], [False]]),
    "truncated": np.array([[False], [False], [True], [False], [False]]),
}


def advantages_and_targets(estimator):
    """Evaluates eagerly, with static shapes, on the golden segment; returns two lists of five."""
    advantages, targets = estimator(**to_tensors(GOLDEN))
    return advantages.numpy()[:, 0].tolist(), targets.numpy()[:, 0].tolist()


def test_golden_td_errors():
    arguments = to_tensors(GOLDEN)
    del arguments["truncated"]
    delta = td_error(**arguments, gamma=0.5)
    assert delta.numpy()[:, 0].tolist() == [2, -2, 4, 6, 2]


def test_golden_reward_to_go():
    advantages, targets = advantages_and_targets(RewardToGo(gamma=0.5))
    # t = 4: 5 + .5 * 10 = 10, the unfinished tail is bootstrapped with V'
    # t = 3: 4 + .5 * 5 + .25 * 10 = 9
    # t = 2: 3 + .5 * 6 = 6, the truncation is bootstrapped with V'
    # t = 1: 2, the termination is not bootstrapped
    # t = 0: 1 + .5 * 2 = 2
    assert targets == [2, 2, 6, 9, 10]
    assert advantages == [2 - 1, 2 - 4, 6 - 2, 9 - 2, 10 - 8]


def test_golden_reward_to_go_without_baseline():
    advantages, targets = advantages_and_targets(RewardToGo(gamma=0.5, baseline=False))
    assert advantages == [2, 2, 6, 9, 10]  # the returns of the test above
    assert targets == [2, 2, 6, 9, 10]


def test_golden_one_step():
    advantages, targets = advantages_and_targets(NStep(n=1, gamma=0.5))
    assert advantages == [2, -2, 4, 6, 2]  # delta
    # r + .5 V': 1 + 2, 2 + 0 (terminated), 3 + 3, 4 + 4, 5 + 5
    assert targets == [3, 2, 6, 8, 10]


def test_golden_two_steps():
    advantages, targets = advantages_and_targets(NStep(n=2, gamma=0.5))
    # t = 4: 5 + .5 * 10 = 10, one step is left
    # t = 3: 4 + .5 * 5 + .25 * 10 = 9
    # t = 2: 3 + .5 * 6 = 6, cut by the truncation
    # t = 1: 2, cut by the termination
    # t = 0: 1 + .5 * 2 + .25 * 0 = 2, ends at the termination
    assert targets == [2, 2, 6, 9, 10]
    assert advantages == [2 - 1, 2 - 4, 6 - 2, 9 - 2, 10 - 8]


def test_golden_two_steps_within_an_unfinished_episode():
    arguments = {
        "rewards": np.float32([[1], [2], [4]]),
        "values": np.float32([[1], [3], [5]]),
        "next_values": np.float32([[3], [5], [8]]),
        "terminated": np.zeros((3, 1), bool),
        "truncated": np.zeros((3, 1), bool),
    }
    advantages, targets = NStep(n=2, gamma=0.5)(**to_tensors(arguments))
    # t = 0: 1 + .5 * 2 + .25 * V(s_2) = 1 + 1 + .25 * 5 = 3.25, not the third reward
    # t = 1: 2 + .5 * 4 + .25 * 8 = 6
    # t = 2: 4 + .5 * 8 = 8
    assert targets.numpy()[:, 0].tolist() == [3.25, 6, 8]
    assert advantages.numpy()[:, 0].tolist() == [2.25, 3, 3]


def test_golden_gae():
    advantages, targets = advantages_and_targets(GAE(gamma=0.5, gae_lambda=0.5))
    # gamma lambda = .25
    # t = 4: 2
    # t = 3: 6 + .25 * 2 = 6.5
    # t = 2: 4, cut by the truncation
    # t = 1: -2, cut by the termination
    # t = 0: 2 + .25 * -2 = 1.5
    assert advantages == [1.5, -2, 4, 6.5, 2]
    assert targets == [1.5 + 1, -2 + 4, 4 + 2, 6.5 + 2, 2 + 8]


@pytest.mark.parametrize(
    ("estimator", "name", "value"),
    [
        (RewardToGo, "gamma", 1.5),
        (RewardToGo, "gamma", -0.1),
        (RewardToGo, "gamma", float("nan")),
        (NStep, "n", 0),
        (NStep, "n", -3),
        (NStep, "gamma", 1.01),
        (GAE, "gamma", -1.0),
        (GAE, "gae_lambda", 1.5),
        (GAE, "gae_lambda", -0.5),
    ],
)
def test_bad_hyperparameters_raise_with_name_and_value(estimator, name, value):
    with pytest.raises(ValueError, match=rf"{name} must .*Received: {name}={value}"):
        estimator(**{name: value})


@pytest.mark.parametrize("name", NAMES[1:])
@DEFAULTS
def test_arguments_of_different_shapes_raise(estimator, name):
    arguments = to_tensors(GOLDEN)
    arguments[name] = arguments[name][:, 0]  # [T], which would broadcast to [T, T]
    with pytest.raises(ValueError, match=r"share one shape.*\(5, 1\).*\(5,\)"):
        estimator(**arguments)


@DEFAULTS
def test_estimators_compare_by_value_and_are_immutable(estimator):
    assert estimator == type(estimator)()
    assert estimator != type(estimator)(gamma=0.5)
    with pytest.raises(AttributeError):
        estimator.gamma = 0.5


# ---- V-trace

WEIGHTS = {"rho_max": 1.5, "c_max": 1.2}


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("trace_lambda", LAMBDAS)
def test_vtrace_equals_the_sums_in_the_paper(gamma, trace_lambda):
    rng = np.random.default_rng(5)
    options = {"gamma": gamma, "trace_lambda": trace_lambda, **WEIGHTS}
    for terminated, truncated in episode_ends(7, 3, rng):
        arguments = random_arguments(terminated, truncated, rng)
        weights = rng.lognormal(size=terminated.shape).astype(np.float32)
        result = VTrace(**options)(**to_tensors(arguments), importance_weights=tf.constant(weights))
        expected = reference.vtrace(**arguments, importance_weights=weights, **options)
        for actual, wanted in zip(result, expected, strict=True):
            np.testing.assert_allclose(actual, wanted, **TOLERANCE)


def test_vtrace_of_the_policys_own_data_is_gae():
    rng = np.random.default_rng(6)
    for terminated, truncated in episode_ends(7, 3, rng):
        arguments = random_arguments(terminated, truncated, rng)
        ones = tf.ones(terminated.shape)
        result = VTrace(0.9, 0.8)(**to_tensors(arguments), importance_weights=ones)
        for actual, wanted in zip(result, GAE(0.9, 0.8)(**to_tensors(arguments)), strict=True):
            np.testing.assert_allclose(actual, wanted, **TOLERANCE)


def test_vtrace_equals_rlax():
    """Golden values of rlax 0.1.9, `vtrace_td_error_and_advantage` with lambda 0.9.

    v_tm1 = V(s_t), v_t = V(s_{t+1}), discount_t = 0.95 but 0 at step 2, which terminates. Its
    errors are targets less V(s_t), its q_estimate is advantages plus V(s_t). By hand, step 4:
    delta = 1 (0 + 0.95 x 1.5 - 0.5) = 0.925. Step 3: delta = 0.3 (2 + 0.95 x 0.5 + 1) = 1.0425,
    c = 0.9 x 0.3, so 1.0425 + 0.95 x 0.27 x 0.925 = 1.27976.
    """
    column = lambda *numbers: tf.constant(numbers, tf.float32)[:, None]  # noqa: E731
    values = column(1.0, 2.0, 3.0, -1.0, 0.5)
    advantages, targets = VTrace(0.95, 0.9)(
        rewards=column(1.0, -1.0, 0.5, 2.0, 0.0),
        values=values,
        next_values=column(2.0, 3.0, 9.0, 0.5, 1.5),
        terminated=tf.constant([[False], [False], [True], [False], [False]]),
        truncated=tf.zeros((5, 1), tf.bool),
        importance_weights=column(0.5, 2.0, 1.0, 0.3, 1.4),
    )
    np.testing.assert_allclose(
        (targets - values)[:, 0], [-0.0279061, -2.2875, -2.5, 1.2797625, 0.925], rtol=1e-5
    )
    np.testing.assert_allclose(
        (advantages + values)[:, 0], [0.9441876, -0.2875, 0.5, 3.2658749, 1.425], rtol=1e-5
    )


@pytest.mark.parametrize("options", [{"c_max": 0.0}, {"c_max": 2.0, "rho_max": 1.0}])
def test_vtrace_refuses_weights_out_of_range(options):
    with pytest.raises(ValueError, match=r"c_max must be positive and at most rho_max\. Received"):
        VTrace(**options)
