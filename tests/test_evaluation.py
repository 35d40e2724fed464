"""Evaluation: whole episodes, each with its own seed."""

from pathlib import Path

import environments
import forked
import gymnasium
import helpers
import numpy as np
import pytest

import ppo_tf
from ppo_tf.command import evaluate
from ppo_tf.environments.backends import environment_seeds
from ppo_tf.evaluating.evaluation import make_act, make_evaluation_envs, play

environments.register()

SEED = 11


def alternating(observations, seed, starts):
    """Acts on the observation alone: 1 in every other step of an episode of Counting."""
    return (observations[:, 0] % 2).astype(np.int64)


def by_hand(act, env_id, episodes, **kwargs):
    """Returns (returns, lengths) of episodes, each in a new environment stepped without ppo_tf."""
    returns, lengths = [], []
    for seed in environment_seeds(SEED, episodes, "evaluation"):
        env = gymnasium.make(env_id, **kwargs)
        observation, _ = env.reset(seed=seed)
        rewards, done = [], False
        while not done:
            action = act(observation[None], None, None)[0]
            observation, reward, terminated, truncated, _ = env.step(action)
            rewards.append(reward)
            done = terminated or truncated
        returns.append(sum(rewards))
        lengths.append(len(rewards))
    return returns, lengths


def count_episodes(act, episodes, num_envs, **kwargs):
    return ppo_tf.evaluate(
        act, environments.COUNTING, episodes=episodes, seed=SEED, num_envs=num_envs, **kwargs
    )


@pytest.fixture(scope="module")
def cartpole_policy():
    """A policy far enough from uniform, and random enough, for mode and samples to differ."""
    envs = ppo_tf.make_envs("CartPole-v1", 1)
    policy = ppo_tf.mlp_policy(envs, hidden_sizes=(4,), normalize=False, seed=3)
    logits = policy.actor.get_layer("logits")
    logits.set_weights([np.full((4, 2), [-0.5, 0.5]), np.array([0.3, -0.3])])
    return policy


@pytest.mark.parametrize("num_envs", [1, 3, 4, 7, 32])
@pytest.mark.parametrize("episodes", [1, 4, 10])
def test_episode_k_has_seed_k_for_any_number_of_environments(episodes, num_envs):
    """Includes fewer episodes than environments, and numbers that are not a multiple of them."""
    result = count_episodes(alternating, episodes, num_envs)
    returns, lengths = by_hand(alternating, environments.COUNTING, episodes)
    assert result.returns == tuple(returns)
    assert result.lengths == tuple(lengths)


def test_short_episodes_do_not_crowd_out_long_ones():
    """Lengths of 1 to 40 steps: the first to end are short, the first to start are not."""
    result = count_episodes(alternating, 24, 6, longest=40)
    returns, lengths = by_hand(alternating, environments.COUNTING, 24, longest=40)
    assert max(lengths) > 4 * min(lengths)
    assert result.lengths == tuple(lengths)
    assert result.returns == tuple(returns)


def test_a_policy_takes_its_mode_by_default(cartpole_policy):
    def mode(observations, seed, starts):
        logits = cartpole_policy.actor(observations)["logits"].numpy()
        return np.argmax(logits, axis=-1)

    result = ppo_tf.evaluate(cartpole_policy, "CartPole-v1", episodes=5, seed=SEED, num_envs=2)
    returns, lengths = by_hand(mode, "CartPole-v1", 5)
    assert result.returns == tuple(returns)
    assert result.lengths == tuple(lengths)


def test_sampled_actions_differ_from_the_mode_and_depend_only_on_the_seed(cartpole_policy):
    def run(seed, deterministic):
        return ppo_tf.evaluate(
            cartpole_policy, "CartPole-v1", episodes=6, seed=seed, deterministic=deterministic
        ).returns

    sampled = run(SEED, False)
    assert sampled == run(SEED, False)
    assert sampled != run(SEED, True)
    assert sampled != run(SEED + 1, False)


def test_a_callable_gets_a_new_seed_in_every_step_and_the_same_seeds_again():
    def run():
        seeds = []

        def act(observations, seed, starts):
            seeds.append(tuple(seed))
            return alternating(observations, seed, starts)

        count_episodes(act, 3, 3)
        return seeds

    seeds = run()
    assert all(len(seed) == 2 for seed in seeds)
    assert len(set(seeds)) == len(seeds) > 1
    assert run() == seeds


def test_options_reach_the_environment():
    assert set(count_episodes(alternating, 4, 2, longest=1).lengths) == {1}


def test_evaluations_of_different_seeds_differ():
    one = ppo_tf.evaluate(alternating, environments.COUNTING, episodes=8, seed=0)
    two = ppo_tf.evaluate(alternating, environments.COUNTING, episodes=8, seed=1)
    assert one.returns != two.returns


@pytest.mark.parametrize(("cell", "deterministic"), [(None, True), ("gru", False)])
def test_each_play_on_the_same_environments_is_the_same_evaluation(cell, deterministic):
    """More episodes than environments, so that some are left unfinished: the next play must start
    over, memories included. After a change of the weights, the new policy plays."""
    envs = make_evaluation_envs("CartPole-v1", 3)
    policy = helpers.make_policy(envs, cell=cell, normalize=False)
    act = make_act(policy, envs, deterministic)
    one = play(envs, act, 7, SEED)
    assert one == play(envs, act, 7, SEED)
    for weight in policy.trainable_variables:
        weight.assign(-2.0 * weight)
    other = play(envs, act, 7, SEED)
    assert other != one
    assert other == ppo_tf.evaluate(
        policy, "CartPole-v1", episodes=7, seed=SEED, deterministic=deterministic, num_envs=3
    )
    envs.close()


@pytest.mark.parametrize("episodes", [0, -1])
def test_zero_episodes_is_an_error_that_names_the_value(episodes):
    with pytest.raises(ValueError, match=f"episodes={episodes}"):
        count_episodes(alternating, episodes, 4)


def test_zero_environments_is_an_error_that_names_the_value():
    with pytest.raises(ValueError, match="num_envs=0"):
        count_episodes(alternating, 4, 0)


def test_an_unknown_environment_is_an_error_with_similar_names():
    with pytest.raises(ValueError, match="CartPole-v1"):
        ppo_tf.evaluate(alternating, "CartPol-v1", episodes=1)


def test_the_summary_matches_the_episodes():
    result = ppo_tf.Evaluation(returns=(1.0, 2.0, 6.0), lengths=(4, 5, 9))
    assert result.mean == 3.0
    assert result.std == pytest.approx((14.0 / 3.0) ** 0.5)  # (4 + 1 + 9) / 3
    assert result.summary() == {
        "episodes": 3,
        "mean_return": 3.0,
        "std_return": result.std,
        "min_return": 1.0,
        "max_return": 6.0,
        "mean_length": 6.0,
        "unfinished": 0,
        "returns": [1.0, 2.0, 6.0],
        "lengths": [4, 5, 9],
    }


def test_a_return_that_is_not_a_number_is_an_error():
    def act(observations, seed, starts):
        return np.full((len(observations), 1), np.nan, np.float32)

    with pytest.raises(ppo_tf.NonFiniteError, match="evaluation episode 0 had a return of nan"):
        ppo_tf.evaluate(act, "Pendulum-v1", episodes=2, disable_env_checker=True)


LAUNCH = """
import environments, sys
from ppo_tf.command import evaluate
environments.register()
sys.exit(evaluate.main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("env_id", "cell"), [(environments.NESTED_COUNTING, "gru"), ("Taxi-v4", None)]
)
def test_the_evaluation_command_runs_an_exported_policy(env_id, cell, tmp_path):
    """With Dict observations and actions, masks and a memory, through a SavedModel."""
    policy = helpers.make_policy(ppo_tf.make_envs(env_id, 1), cell=cell)
    expected = ppo_tf.evaluate(policy, env_id, episodes=3, seed=5)
    ppo_tf.export_policy(policy, tmp_path / "policy", metadata={"env": env_id})
    flags = [f"--policy={tmp_path / 'policy'}", "--episodes=3", "--seed=5"]
    _, out, err = forked.run("-c", LAUNCH, *flags, cwd=Path(__file__).parent)
    assert out == f"return {expected.mean:.1f} +- {expected.std:.1f} over 3 episodes\n", err


class Endless(gymnasium.Env):
    """Never ends; every step is worth 1."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (1,))
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), 1.0, False, False, {}


def test_an_environment_without_a_time_limit_is_cut_off_and_said():
    gymnasium.register("ppo_tf_tests/Endless-v0", Endless)
    lines = []

    def act(observations, seed, starts):
        return np.zeros(len(starts), np.int64)

    result = ppo_tf.evaluate(
        act, "ppo_tf_tests/Endless-v0", episodes=3, num_envs=2, max_steps=20, warn=lines.append
    )
    assert result.returns == (20.0, 20.0, 20.0)
    assert result.unfinished == result.summary()["unfinished"] == 3
    (line,) = lines
    assert "3 of 3 episodes had not ended after max_steps=20 steps" in line


def test_an_episode_that_ends_at_the_bound_is_finished():
    lines = []

    def act(observations, seed, starts):
        return np.zeros((len(starts), 1), np.float32)

    result = ppo_tf.evaluate(act, "Pendulum-v1", episodes=2, max_steps=200, warn=lines.append)
    assert result.lengths == (200, 200)
    assert (result.unfinished, lines) == (0, [])


def test_the_command_asks_for_an_environment_that_the_policy_does_not_name(tmp_path, capsys):
    policy = helpers.make_policy(ppo_tf.make_envs("CartPole-v1"))
    flag = f"--policy={ppo_tf.export_policy(policy, tmp_path / 'policy')}"
    assert evaluate.main([flag]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: --env is required") and err.endswith(f"Received: {flag}\n")
    assert evaluate.main([flag, "--env=CartPole-v1", "--episodes=1"]) == 0
