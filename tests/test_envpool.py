"""EnvPool as a back end: the same spaces, seeds, physics and masks as the others."""

from importlib.util import find_spec

import gymnasium
import numpy as np
import pytest

import ppo_tf
from ppo_tf.environments import backends as envs_module

envpool = pytest.importorskip("envpool")


def make(env_id="Pendulum-v1", num_envs=3, seed=0):
    return ppo_tf.make_envs(env_id, num_envs, seed=seed, backend="envpool")


@pytest.mark.parametrize("env_id", ["Pendulum-v1", "CartPole-v1", "Acrobot-v1"])
def test_spaces_and_types_are_gymnasiums(env_id):
    envs, reference = make(env_id), gymnasium.make(env_id)
    assert envs.single_observation_space == reference.observation_space
    assert envs.single_action_space == reference.action_space
    observations, _ = envs.reset()
    assert observations.dtype == reference.observation_space.dtype
    assert envs.observation_space.contains(observations)
    observations, rewards, terminated, truncated, _ = envs.step(envs.action_space.sample())
    assert observations.dtype == reference.observation_space.dtype
    assert rewards.shape == terminated.shape == truncated.shape == (3,)
    assert isinstance(envs, gymnasium.vector.VectorEnv)


def test_seeds_determine_the_episodes_and_near_seeds_share_none():
    first = make(seed=0).reset()[0]
    np.testing.assert_array_equal(first, make(seed=0).reset()[0])
    second = make(seed=1).reset()[0]
    assert not set(first[:, 2].tolist()) & set(second[:, 2].tolist())


def test_a_reset_with_seeds_starts_again():
    envs = make()
    first, _ = envs.reset(seed=[5, 6, 7])
    envs.step(envs.action_space.sample())
    again, _ = envs.reset(seed=[5, 6, 7])
    np.testing.assert_array_equal(first, again)
    other, _ = envs.reset(seed=8)
    assert (first != other).any()


def test_rows_obey_gymnasiums_physics_and_resets_are_masked():
    envs = make("CartPole-v1")
    policy = ppo_tf.mlp_policy(envs, hidden_sizes=(4,), seed=0)
    trajectory, episodes = ppo_tf.VectorCollector(envs, policy, 128).collect()
    scalar = gymnasium.make("CartPole-v1").unwrapped
    scalar.reset(seed=0)
    done = trajectory.terminated | trajectory.truncated
    np.testing.assert_array_equal(trajectory.valid[1:], ~done[:-1])
    assert len(episodes) == done.sum() >= 3
    for t, env in np.argwhere(trajectory.valid):
        scalar.state = tuple(trajectory.observations[t, env].astype(float))
        scalar.steps_beyond_terminated = None
        successor, reward, terminated, _, _ = scalar.step(int(trajectory.actions[t, env]))
        np.testing.assert_allclose(trajectory.next_observations[t, env], successor, atol=1e-5)
        assert (trajectory.rewards[t, env], trajectory.terminated[t, env]) == (reward, terminated)


def test_an_environment_missing_from_envpool_is_an_error():
    gymnasium.register("ppo_tf_tests/NotInEnvPool-v0", entry_point=lambda: None)
    with pytest.raises(ValueError, match=r"EnvPool does not have .*NotInEnvPool"):
        make("ppo_tf_tests/NotInEnvPool-v0")


def test_environment_arguments_are_refused():
    with pytest.raises(ValueError, match=r"takes no further arguments. Received: {'g': 9.0}"):
        ppo_tf.make_envs("Pendulum-v1", 2, backend="envpool", g=9.0)


@pytest.mark.parametrize(
    ("env_id", "num_envs", "options", "backend", "reason"),
    [
        ("CartPole-v1", 8, {}, "vector", "its own vector class"),
        ("CartPole-v1", 1, {}, "sync", "gains nothing below 4"),
        ("Pendulum-v1", 8, {}, "envpool", "EnvPool has the environment"),
        ("Pendulum-v1", 4, {}, "sync", "gains nothing below 8"),
        pytest.param(
            *("HalfCheetah-v5", 4, {}, "envpool", "EnvPool has the environment"),
            marks=pytest.mark.skipif(find_spec("mujoco") is None, reason="needs the extra mujoco"),
        ),
        ("Pendulum-v1", 8, {"g": 9.0}, "sync", "extra arguments"),
    ],
)
def test_auto_takes_the_fastest_backend_and_says_why(env_id, num_envs, options, backend, reason):
    chosen, why = ppo_tf.choose_backend(env_id, num_envs, **options)
    assert chosen == backend
    assert reason in why


def test_without_envpool_auto_steps_in_turn(monkeypatch):
    monkeypatch.setattr(envs_module.importlib.util, "find_spec", lambda name: None)
    assert ppo_tf.choose_backend("Pendulum-v1", 8) == ("sync", "EnvPool is not installed")


def test_composite_spaces_are_left_to_gymnasium():
    backend, reason = ppo_tf.choose_backend("Blackjack-v1", 16)
    assert backend == "sync" and "Dict and Tuple" in reason
    with pytest.raises(ValueError, match=r"Dict and Tuple spaces. Received: env='Blackjack-v1'"):
        make("Blackjack-v1")


def test_choosing_and_making_each_create_one_trial_environment(monkeypatch):
    made, make_one = [], gymnasium.make
    monkeypatch.setattr(gymnasium, "make", lambda *args: made.append(args) or make_one(*args))
    assert ppo_tf.choose_backend("Pendulum-v1", 8)[0] == "envpool"
    assert len(made) == 1
    make()
    assert len(made) == 2
