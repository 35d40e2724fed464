"""Trajectories from vector environments, in each of Gymnasium's auto-reset modes."""

import environments
import gymnasium
import keras
import numpy as np
import pytest
import tensorflow_probability as tfp
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import ppo_tf
from ppo_tf.environments.backends import environment_seeds

environments.register()

MODES = list(AutoresetMode)
FIELDS = (
    "observations",
    "actions",
    "rewards",
    "next_observations",
    "terminated",
    "truncated",
)


def decided_policy():
    """Acts 1 from the third step of an episode on, else 0: logits so far apart that all is sure."""
    inputs = keras.Input((2,))
    kernel, bias = np.array([[0.0, 1e6], [0.0, 0.0]]), np.array([0.0, -1.5e6])
    logits = keras.layers.Dense(2, name="logits")
    actor = keras.Model(inputs, {"logits": logits(inputs)})
    logits.set_weights([kernel, bias])
    return ppo_tf.Policy(actor, tfp.distributions.Categorical, ppo_tf.DiscreteAction())


def even_policy(envs):
    """A fresh policy, which draws its actions with near equal probabilities."""
    return ppo_tf.mlp_policy(envs, hidden_sizes=(4,), seed=0)


def collector_of(envs, policy=None, horizon=5, seed=0):
    policy = policy or even_policy(envs)
    return ppo_tf.VectorCollector(envs, policy, horizon, seed=seed)


def counting_collector(mode, horizon=5, num_envs=4, backend="sync", **kwargs):
    envs = ppo_tf.make_envs(
        environments.COUNTING,
        num_envs,
        seed=3,
        backend=backend,
        autoreset_mode=mode,
        **kwargs,
    )
    return collector_of(envs, decided_policy(), horizon)


def rollouts_of(collector, count):
    """`count` rollouts: (the rollouts, trajectories joined along time, episodes of all)."""
    rollouts = [collector.collect() for _ in range(count)]
    joined = ppo_tf.Trajectory(
        *(np.concatenate(arrays) for arrays in zip(*(t for t, _ in rollouts), strict=True))
    )
    return rollouts, joined, [episode for _, episodes in rollouts for episode in episodes]


def transitions(trajectory, env):
    """The valid rows of one environment: {field: [n, ...]}."""
    rows = np.asarray(trajectory.valid)[:, env]
    return {name: getattr(trajectory, name)[rows, env] for name in FIELDS}


def episodes_by_hand(trajectory):
    """(return, length) of every finished episode, in the order they end, from valid rows."""
    episodes = []
    returns, lengths = np.zeros(trajectory.valid.shape[1]), np.zeros(trajectory.valid.shape[1], int)
    for step in range(trajectory.valid.shape[0]):
        for env in range(trajectory.valid.shape[1]):
            if trajectory.valid[step, env]:
                returns[env] += trajectory.rewards[step, env]
                lengths[env] += 1
            if trajectory.terminated[step, env] or trajectory.truncated[step, env]:
                episodes.append((returns[env], lengths[env]))
                returns[env], lengths[env] = 0.0, 0
    return episodes


@pytest.fixture(scope="module")
def counted():
    """Eight rollouts of five steps of Counting in every mode: {mode: (rollouts, joined, ...)}."""
    return {mode: rollouts_of(counting_collector(mode), 8) for mode in MODES}


@pytest.mark.parametrize("mode", MODES)
def test_counting_transitions_are_those_of_the_definition(counted, mode):
    """What a scalar environment stepped by hand gives, row by row: the oracle of all modes."""
    joined = counted[mode][1]
    seeds = environment_seeds(3, 4)
    for env, seed in enumerate(seeds):
        rows = transitions(joined, env)
        oracle = environments.Counting()
        oracle.reset(seed=seed)
        observation, _ = oracle.reset()
        ends = []
        for t in range(len(rows["rewards"])):
            np.testing.assert_array_equal(rows["observations"][t], observation)
            action = int(observation[0] > 1.5)
            assert rows["actions"][t] == action
            successor, reward, terminated, truncated, _ = oracle.step(action)
            np.testing.assert_array_equal(rows["next_observations"][t], successor)
            assert rows["rewards"][t] == np.float32(reward)
            assert (rows["terminated"][t], rows["truncated"][t]) == (terminated, truncated)
            ends.append((terminated, truncated))
            observation = oracle.reset()[0] if terminated or truncated else successor
        assert (True, False) in ends and (False, True) in ends  # both ends were seen


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED])
def test_every_mode_gives_the_same_learning_data_as_same_step(counted, mode):
    one, two = counted[AutoresetMode.SAME_STEP][1], counted[mode][1]
    for env in range(4):
        left, right = transitions(one, env), transitions(two, env)
        count = min(len(left["rewards"]), len(right["rewards"]))
        assert count >= 28  # of 40; NEXT_STEP spends a row per episode
        for name in FIELDS:
            np.testing.assert_array_equal(left[name][:count], right[name][:count], err_msg=name)


@pytest.mark.parametrize("mode", MODES)
def test_the_four_environments_tell_different_stories(counted, mode):
    first = [transitions(counted[mode][1], env)["observations"][0, 1] for env in range(4)]
    assert len(set(first)) == 4


@pytest.mark.parametrize("mode", MODES)
def test_next_observations_are_never_the_reset_ones(counted, mode):
    joined = counted[mode][1]
    # A reset observation of Counting has step 0; a successor has the step after its observation.
    after = joined.observations[..., 0] + 1
    np.testing.assert_array_equal(
        joined.next_observations[..., 0][joined.valid], after[joined.valid]
    )


@pytest.mark.parametrize("mode", MODES)
def test_episodes_are_those_of_the_rows_in_order(counted, mode):
    _, joined, episodes = counted[mode]
    assert [tuple(episode) for episode in episodes] == episodes_by_hand(joined)
    assert max(episode.length for episode in episodes) == 7  # longer than the horizon of 5


def test_all_modes_report_the_same_episodes_of_each_environment(counted):
    """Which environment an episode is of is not said; its return tells it (no two are alike)."""
    seen = {mode: [tuple(e) for e in counted[mode][2]] for mode in MODES}
    assert sorted(seen[AutoresetMode.SAME_STEP]) == sorted(seen[AutoresetMode.DISABLED])
    # NEXT_STEP gets less far in as many rows.
    assert set(seen[AutoresetMode.NEXT_STEP]) <= set(seen[AutoresetMode.SAME_STEP])


@pytest.mark.parametrize("mode", MODES)
def test_an_episode_reaches_over_several_rollouts(mode):
    """Horizon 2, episodes of up to 9 steps: sums must not start anew with a rollout."""
    collector = counting_collector(mode, horizon=2, num_envs=2, longest=9)
    _, joined, episodes = rollouts_of(collector, 30)
    assert [tuple(episode) for episode in episodes] == episodes_by_hand(joined)
    assert max(episode.length for episode in episodes) >= 7


def test_an_episode_is_reported_in_the_rollout_in_which_it_ends(counted):
    for rollout, episodes in counted[AutoresetMode.SAME_STEP][0]:
        assert len(episodes) == np.sum(rollout.terminated | rollout.truncated)


def test_only_next_step_has_invalid_rows_one_after_each_end(counted):
    for mode in (AutoresetMode.SAME_STEP, AutoresetMode.DISABLED):
        assert counted[mode][1].valid.all()
    joined = counted[AutoresetMode.NEXT_STEP][1]
    done = joined.terminated | joined.truncated
    assert joined.valid[0].all()
    np.testing.assert_array_equal(~joined.valid[1:], done[:-1])
    # An end at the last row of a rollout makes the first row of the next one invalid.
    assert (~joined.valid[5::5]).any()
    assert (joined.rewards[~joined.valid] == 0).all()
    assert not done[~joined.valid].any()


def test_vector_class_marks_the_row_after_an_end_as_invalid():
    envs = ppo_tf.make_envs("CartPole-v1", 3, seed=1, backend="vector", max_episode_steps=13)
    _, joined, episodes = rollouts_of(collector_of(envs, horizon=8), 40)
    done = joined.terminated | joined.truncated
    assert joined.valid[0].all()
    np.testing.assert_array_equal(~joined.valid[1:], done[:-1])
    assert (~joined.valid[8::8]).any()
    np.testing.assert_array_equal(joined.rewards, joined.valid.astype(np.float32))
    assert [tuple(episode) for episode in episodes] == episodes_by_hand(joined)
    assert joined.terminated.any() and joined.truncated.any()


@pytest.mark.parametrize("backend", ["sync", "vector"])
def test_cartpole_rows_obey_its_physics(backend):
    """Each valid row is one step of a scalar CartPole, the one that ends an episode included."""
    envs = ppo_tf.make_envs("CartPole-v1", 3, seed=1, backend=backend)
    _, joined, episodes = rollouts_of(collector_of(envs, horizon=16), 5)
    scalar = gymnasium.make("CartPole-v1").unwrapped
    scalar.reset(seed=0)
    assert len(episodes) >= 3
    for env in range(3):
        rows = transitions(joined, env)
        for t in range(len(rows["rewards"])):
            scalar.state, scalar.steps_beyond_terminated = tuple(rows["observations"][t]), None
            successor, reward, terminated, _, _ = scalar.step(int(rows["actions"][t]))
            np.testing.assert_allclose(rows["next_observations"][t], successor, atol=1e-5)
            assert rows["rewards"][t] == reward
            assert rows["terminated"][t] == terminated


@pytest.mark.parametrize(
    ("env_id", "actions", "observation"),
    [("CartPole-v1", ((), np.int32), (4,)), ("Pendulum-v1", ((1,), np.float32), (3,))],
)
def test_shapes_and_types_of_a_trajectory(env_id, actions, observation):
    envs = ppo_tf.make_envs(env_id, 3)
    collector = collector_of(envs, horizon=7)
    trajectory, episodes = collector.collect()
    assert (collector.horizon, collector.num_envs) == (7, 3)
    expected = {
        "observations": (observation, np.float32),
        "actions": actions,
        "rewards": ((), np.float32),
        "next_observations": (observation, np.float32),
        "terminated": ((), np.bool_),
        "truncated": ((), np.bool_),
        "valid": ((), np.bool_),
    }
    for name, (shape, dtype) in expected.items():
        array = getattr(trajectory, name)
        assert (array.shape, array.dtype) == ((7, 3, *shape), dtype), name
    assert episodes == []


def test_actions_are_stored_raw_before_they_are_clipped():
    envs = ppo_tf.make_envs("Pendulum-v1", 4)
    policy = ppo_tf.mlp_policy(envs, hidden_sizes=(4,), seed=0, initial_scale=3.0)
    trajectory, _ = collector_of(envs, policy, horizon=16).collect()
    assert np.abs(trajectory.actions).max() > 1.0  # of a raw range of [-1, 1]
    # Pendulum's speed changes by what was applied: the clipped action, at most 2 either way.
    _, sin, speed = np.moveaxis(trajectory.observations, -1, 0)
    torque = np.clip(2.0 * trajectory.actions[..., 0], -2.0, 2.0)
    expected = np.clip(speed + (15.0 * sin + 3.0 * torque) * 0.05, -8.0, 8.0)
    np.testing.assert_allclose(trajectory.next_observations[..., 2], expected, atol=1e-4)


@pytest.mark.parametrize("mode", MODES)
def test_the_next_collect_leaves_a_trajectory_as_it_was(mode):
    collector = counting_collector(mode)
    first, _ = collector.collect()
    copies = [np.array(array) for array in first]
    second, _ = collector.collect()
    for name, array, copy, other in zip(first._fields, first, copies, second, strict=True):
        np.testing.assert_array_equal(array, copy, err_msg=name)
        assert not np.shares_memory(array, other), name


def cartpole_rollouts(env_seed, seed):
    envs = ppo_tf.make_envs("CartPole-v1", 2, seed=env_seed)
    return rollouts_of(collector_of(envs, horizon=12, seed=seed), 2)[0]


def test_the_seeds_decide_the_trajectories():
    one, two = cartpole_rollouts(0, 0), cartpole_rollouts(0, 0)
    for (left, left_episodes), (right, right_episodes) in zip(one, two, strict=True):
        for name, a, b in zip(left._fields, left, right, strict=True):
            np.testing.assert_array_equal(a, b, err_msg=name)
        assert left_episodes == right_episodes
    # Within a run the noise differs from rollout to rollout.
    assert not np.array_equal(one[0][0].actions, one[1][0].actions)
    # The environments' first state is theirs, the actions are the collector's.
    other = cartpole_rollouts(0, 1)
    np.testing.assert_array_equal(other[0][0].observations[0], one[0][0].observations[0])
    assert not np.array_equal(other[0][0].actions, one[0][0].actions)


def test_async_gives_the_data_of_sync(counted):
    collector = counting_collector(AutoresetMode.SAME_STEP, backend="async")
    try:
        _, joined, episodes = rollouts_of(collector, 4)
    finally:
        collector.envs.close()
    _, expected, expected_episodes = counted[AutoresetMode.SAME_STEP]
    for name in ppo_tf.Trajectory._fields:
        array = getattr(joined, name)
        np.testing.assert_array_equal(array, getattr(expected, name)[: len(array)], err_msg=name)
    assert episodes == expected_episodes[: len(episodes)]


def bad_collector(env_id, *, env=1, mode=AutoresetMode.SAME_STEP, horizon=6, **kwargs):
    """Three environments of which only `env` misbehaves."""
    kwargs_of = [kwargs if index == env else {"at": None} for index in range(3)]
    envs = SyncVectorEnv(
        [lambda k=k: gymnasium.make(env_id, **k) for k in kwargs_of], autoreset_mode=mode
    )
    return collector_of(envs, horizon=horizon)


def error_of(collector, rollout=0):
    """The NonFiniteError of a rollout, all those before it being fine."""
    for _ in range(rollout):
        collector.collect()
    with pytest.raises(ppo_tf.NonFiniteError) as caught:
        collector.collect()
    return caught.value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_bad_reward_is_reported_with_environment_step_and_value(value):
    message = str(error_of(bad_collector(environments.NAN_REWARD, at=2, value=value, length=99)))
    assert message == f"environment 1 gave a non-finite reward at its step 2: {value}"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_bad_observation_is_reported_at_the_step_that_would_have_seen_it(value):
    """The third step's successor is what the agent sees at step 3, counted from 0."""
    bad = bad_collector(environments.NAN_OBSERVATION, env=2, at=2, value=value, length=99)
    message = str(error_of(bad))
    assert message == f"environment 2 gave a non-finite observation at its step 3: {value}"


@pytest.mark.parametrize("at", [0, 5, 6, 11, 12, 17])
@pytest.mark.parametrize(
    ("env_id", "field", "shift"),
    [(environments.NAN_REWARD, "reward", 0), (environments.NAN_OBSERVATION, "observation", 1)],
)
def test_steps_are_counted_over_rollouts(env_id, field, shift, at):
    """The last and the first step of rollouts of six, and of episodes: counted from the start."""
    bad = bad_collector(env_id, at=at, length=99)
    message = str(error_of(bad, rollout=at // 6))
    assert message == f"environment 1 gave a non-finite {field} at its step {at + shift}: nan"


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED])
@pytest.mark.parametrize("at", [3, 7])
def test_a_bad_final_observation_is_reported(mode, at):
    """Episodes of four steps: the agent never acts on the observation at the end."""
    bad = bad_collector(environments.NAN_OBSERVATION, at=at, length=4, mode=mode)
    message = str(error_of(bad, rollout=at // 6))
    assert message == f"environment 1 gave a non-finite observation at its step {at + 1}: nan"


def test_next_step_counts_rows_and_reports_a_bad_final_observation():
    """The reset after the first four steps takes a row: the sixth step of life is row 6."""
    mode = AutoresetMode.NEXT_STEP
    bad = bad_collector(environments.NAN_REWARD, at=5, length=4, mode=mode, horizon=8)
    assert "environment 1 gave a non-finite reward at its step 6" in str(error_of(bad))
    bad = bad_collector(environments.NAN_OBSERVATION, at=3, length=4, mode=mode, horizon=8)
    assert "environment 1 gave a non-finite observation at its step 4" in str(error_of(bad))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        # Of one field, of which the first environment's comes later.
        (
            [environments.NaNReward(at=4), environments.NaNReward(at=2)],
            "environment 1 gave a non-finite reward at its step 2",
        ),
        (
            [environments.NaNReward(at=1), environments.NaNObservation(at=3)],
            "environment 0 gave a non-finite reward at its step 1",
        ),
        (
            [environments.NaNReward(at=5), environments.NaNObservation(at=3)],
            "environment 1 gave a non-finite observation at its step 4",
        ),
    ],
)
def test_the_first_of_two_bad_numbers_is_reported(bad, message):
    """Episodes of four steps: the agent acts on no observation that is bad at the fourth."""
    envs = SyncVectorEnv(
        [lambda env=env: env for env in bad], autoreset_mode=AutoresetMode.SAME_STEP
    )
    assert str(error_of(collector_of(envs, horizon=6))).startswith(message)


def test_an_environment_that_breaks_on_the_action_of_a_nan_is_a_non_finite_error():
    """A Gaussian policy that saw a NaN acts a NaN; the simulator's complaint is the cause."""
    error = error_of(bad_collector(environments.NAN_OBSERVATION, at=2, length=99))
    assert str(error).startswith("environment 1 gave a non-finite observation at its step 3: nan")
    assert isinstance(error.__cause__, ValueError)
    assert "the simulation is unstable" in str(error.__cause__)


def test_another_exception_of_the_environment_comes_through():
    class Broken(environments.NaNReward):
        def step(self, action):
            raise RuntimeError("out of fuel")

    envs = SyncVectorEnv([lambda: Broken(at=None)], autoreset_mode=AutoresetMode.SAME_STEP)
    with pytest.raises(RuntimeError, match="out of fuel"):
        collector_of(envs).collect()


def test_environments_that_do_not_say_how_they_reset_are_an_error():
    envs = ppo_tf.make_envs(environments.COUNTING, 2)
    policy = decided_policy()
    for metadata, received in ({}, "None"), ({"autoreset_mode": "next_step"}, "'next_step'"):
        envs.metadata = metadata
        with pytest.raises(ValueError, match=f"AutoresetMode.*autoreset_mode={received}"):
            ppo_tf.VectorCollector(envs, policy, 4)


@pytest.mark.parametrize("horizon", [0, -1])
def test_a_horizon_below_one_is_an_error_that_says_what_came(horizon):
    envs = ppo_tf.make_envs(environments.COUNTING, 2)
    with pytest.raises(ValueError, match=f"horizon={horizon}"):
        collector_of(envs, decided_policy(), horizon)


# ---- composite spaces, masks, memories


@pytest.mark.parametrize("backend", ["sync", "async"])
@pytest.mark.parametrize("mode", MODES)
def test_every_leaf_of_a_nest_is_of_the_same_step(mode, backend):
    envs = ppo_tf.make_envs(
        environments.NESTED_COUNTING, 3, seed=3, backend=backend, autoreset_mode=mode
    )
    collector = collector_of(envs)
    joined = [collector.collect()[0] for _ in range(4)]
    envs.close()
    types = {
        "count": np.float32,
        "camera": np.uint8,
        "pair/0": np.int64,
        "pair/1": np.int8,
    }
    for trajectory in joined:
        assert trajectory.actions["press"].shape == (5, 3)
        assert trajectory.actions["dials"].shape == (5, 3, 2)
        for nest in (trajectory.observations, trajectory.next_observations):
            assert {path: leaf.dtype for path, leaf in nest.items()} == types
            step = nest["count"][..., 0]
            np.testing.assert_array_equal(
                nest["camera"], step[..., None, None, None] + 0 * nest["camera"]
            )
            np.testing.assert_array_equal(nest["pair/0"], step)
            np.testing.assert_array_equal(nest["pair/1"][..., 0], step % 2)
        after = trajectory.observations["count"] + [1, 0]  # of the same episode, its end included
        valid = trajectory.valid
        np.testing.assert_array_equal(trajectory.next_observations["count"][valid], after[valid])
    assert any((t.terminated | t.truncated).any() for t in joined)


@pytest.mark.parametrize("mode", MODES)
def test_starts_are_the_first_rows_of_episodes(mode):
    collector = counting_collector(mode)
    for _ in range(3):
        trajectory, _ = collector.collect()
        first = trajectory.observations[..., 0] == 0
        np.testing.assert_array_equal(trajectory.starts, first & trajectory.valid)


@pytest.mark.parametrize("mode", MODES)
def test_a_mask_without_a_valid_action_is_named_unless_the_episode_is_over(mode):
    def collector(at):
        makers = [environments.EmptyMask, lambda: environments.EmptyMask(at)]
        return collector_of(SyncVectorEnv(makers, autoreset_mode=mode), horizon=5)

    for _ in range(3):
        assert collector(None).collect()[0].valid.any()  # masks at the ends are empty
    bad = collector(7)
    with pytest.raises(
        ValueError,
        match=r"environment 1 gave an action mask without a valid action at its step \d+: obs",
    ):
        for _ in range(4):
            bad.collect()


def test_bad_masks_are_refused_when_the_collector_is_made():
    class Wrong(environments.EmptyMask):
        observation_space = gymnasium.spaces.Dict(
            {
                "observation": gymnasium.spaces.Box(-1, 1, (1,)),
                "action_mask": gymnasium.spaces.MultiBinary(4),
            }
        )

    envs = SyncVectorEnv([Wrong])
    with pytest.raises(ValueError, match=r"mask of Discrete\(3\).*shape \(3,\).*MultiBinary\(4\)"):
        even_policy(envs)
    policy = even_policy(SyncVectorEnv([environments.EmptyMask]))
    with pytest.raises(ValueError, match=r"mask of Discrete\(3\).*shape \(3,\).*MultiBinary\(4\)"):
        collector_of(envs, policy)


def test_logits_of_another_number_than_actions_are_refused():
    envs = ppo_tf.make_envs("CartPole-v1", 2)
    actor = ppo_tf.mlp(envs, {"logits": 3}, hidden_sizes=(4,))
    policy = ppo_tf.Policy(actor, tfp.distributions.Categorical, ppo_tf.DiscreteAction())
    with pytest.raises(ValueError, match=r"sizes \{'logits': 2\} for .*Discrete\(2\).*'logits': 3"):
        collector_of(envs, policy)
