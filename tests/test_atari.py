"""Atari games: their preprocessing, and what differs between training and evaluation."""

import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

import ppo_tf
from ppo_tf.environments.backends import environment_seeds, reset

SAME_STEP, DISABLED = AutoresetMode.SAME_STEP, AutoresetMode.DISABLED


def test_without_the_emulator_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ale_py", None)
    with pytest.raises(ImportError) as caught:
        ppo_tf.make_envs("ALE/Pong-v5")
    assert "ALE/Pong-v5" in str(caught.value)
    assert "pip install 'ppo_tf[atari]'" in str(caught.value)


@pytest.fixture(autouse=True)
def _emulator(request):
    if "without_the_emulator" not in request.node.name:
        pytest.importorskip("ale_py")


def random_steps(envs, count, seed=0):
    """Steps with random actions; yields what `step` returns."""
    random = np.random.default_rng(seed)
    for _ in range(count):
        yield envs.step(random.integers(envs.single_action_space.n, size=envs.num_envs))


@pytest.mark.parametrize("env_id", ["ALE/Pong-v5", "PongNoFrameskip-v4", "ale_py:ALE/Pong-v5"])
def test_games_are_found_by_id_and_observed_as_four_grey_images(env_id):
    envs = ppo_tf.make_envs(env_id, 2)
    observations, _ = envs.reset()
    assert observations.shape == (2, 4, 84, 84)
    assert observations.dtype == np.uint8
    assert envs.observation_space.contains(observations)
    assert ppo_tf.choose_backend(env_id, 1)[0] == "vector"


def test_a_misspelt_game_gets_similar_ids():
    with pytest.raises(ValueError, match="ALE/Breakout-v5"):
        ppo_tf.make_envs("ALE/Breakot-v5")


@pytest.mark.parametrize("backend", ["async", "envpool"])
def test_other_backends_are_an_error(backend):
    with pytest.raises(ValueError, match=repr(backend)):
        ppo_tf.make_envs("ALE/Pong-v5", backend=backend)


def test_another_reset_mode_is_an_error():
    with pytest.raises(ValueError, match=r"SAME_STEP.*NEXT_STEP"):
        ppo_tf.make_envs("ALE/Pong-v5", autoreset_mode=AutoresetMode.NEXT_STEP)


@pytest.mark.parametrize("game", ["Pong", "Breakout"])
def test_images_and_rewards_are_those_of_gymnasiums_wrappers(game):
    pytest.importorskip("cv2")
    single = gymnasium.wrappers.FrameStackObservation(
        gymnasium.wrappers.AtariPreprocessing(gymnasium.make(f"{game}NoFrameskip-v4"), noop_max=0),
        4,
        padding_type="zero",
    )
    envs = ppo_tf.make_envs(f"{game}NoFrameskip-v4", noop_max=0, use_fire_reset=False)
    observations, _ = envs.reset()
    np.testing.assert_array_equal(observations[0], single.reset()[0])
    random = np.random.default_rng(0)
    for action in random.integers(envs.single_action_space.n, size=300):
        observations, rewards, terminated, *_ = envs.step(np.array([action]))
        expected, reward, over, *_ = single.step(action)
        assert (rewards[0], terminated[0]) == (reward, over)
        if over:
            break
        np.testing.assert_array_equal(observations[0], expected)


def test_the_same_seed_gives_the_same_game_and_games_differ():
    def play(seed):
        envs = ppo_tf.make_envs("ALE/Breakout-v5", 3, seed=seed)
        envs.reset()
        return np.stack([step[0] for step in random_steps(envs, 60)])

    one, two, other = play(0), play(0), play(1)
    np.testing.assert_array_equal(one, two)
    assert (one != other).any()
    assert (one[:, 0] != one[:, 1]).any()


def test_the_id_sets_sticky_actions():
    """Seeds affect sticky actions and the idle start, which is switched off here."""

    def play(env_id, seed):
        envs = ppo_tf.make_envs(env_id, 1, seed=seed, noop_max=0)
        return np.stack([step[0] for step in random_steps(envs, 100)])

    assert (play("ALE/Pong-v5", 0) != play("ALE/Pong-v5", 1)).any()
    np.testing.assert_array_equal(play("PongNoFrameskip-v4", 0), play("PongNoFrameskip-v4", 1))


@pytest.mark.parametrize("mode", [SAME_STEP, DISABLED])
@pytest.mark.parametrize("training", [True, False])
def test_lives_end_episodes_in_training_only_and_the_game_continues(training, mode):
    envs = ppo_tf.make_envs("ALE/Breakout-v5", 2, training=training, autoreset_mode=mode)
    _, info = envs.reset()
    lives, ends = info["lives"], []
    for observations, _, terminated, truncated, info in random_steps(envs, 600):
        done = terminated | truncated
        over = info["lives"] == 0
        np.testing.assert_array_equal(done, (info["lives"] < lives) if training else over)
        lives = info["lives"].copy()
        if not done.any():
            continue
        ends += info["lives"][done].tolist()
        final = observations
        if mode is SAME_STEP:
            np.testing.assert_array_equal(info["_final_obs"], done)
            final = info["final_obs"]
        else:
            observations, after = envs.reset(options={"reset_mask": done})
            np.testing.assert_array_equal(after["lives"], np.where(over & done, 5, lives))
        same = (final == observations).all(axis=(1, 2, 3))
        np.testing.assert_array_equal(same, ~over)  # a new game starts with empty images
        assert not observations[over, :3].any()
        lives[over] = 5
    assert set(ends) == ({0, 1, 2, 3, 4} if training else {0})


@pytest.mark.parametrize(
    ("training", "rewards"), [(True, {0, 1}), (False, {*range(0, 35, 5), 200})]
)
def test_rewards_are_clipped_in_training_only(training, rewards):
    envs = ppo_tf.make_envs("ALE/SpaceInvaders-v5", 4, training=training)
    seen = {float(r) for step in random_steps(envs, 300) for r in step[1]}
    assert len(seen) > 1
    assert seen <= rewards


def test_a_seeded_reset_starts_a_new_game_after_a_lost_life():
    envs = ppo_tf.make_envs("ALE/Breakout-v5", 2, training=True, autoreset_mode=DISABLED)
    first = reset(envs, environment_seeds(3, 2))
    for *_, terminated, _, _ in random_steps(envs, 200):
        if terminated[1]:
            break
    again = reset(envs, [None, environment_seeds(3, 2)[1]], terminated)
    np.testing.assert_array_equal(again[1], first[1])


def test_a_full_reset_always_starts_new_games():
    envs = ppo_tf.make_envs("ALE/Breakout-v5", 2, training=True)
    list(random_steps(envs, 50))
    observations, info = envs.reset()
    np.testing.assert_array_equal(info["lives"], [5, 5])
    assert not observations[:, :3].any()


def test_games_are_truncated_at_108_000_frames_or_as_requested():
    envs = ppo_tf.make_envs("ALE/Pong-v5", 1, max_num_frames_per_episode=400, noop_max=0)
    ends = [step for step, (*_, truncated, _) in enumerate(random_steps(envs, 210)) if truncated[0]]
    assert len(ends) == 2
    assert 395 <= 4 * (ends[1] - ends[0]) <= 400


def test_rendering_shows_the_observed_screen_in_colour():
    """It is the same game throughout ends, resets and sticky actions."""
    envs = ppo_tf.make_envs("ALE/Breakout-v5", 2, render_mode="rgb_array", seed=3)
    for observations, *_ in random_steps(envs, 200):
        images = np.stack(envs.render())[:, ::2, ::2]
        assert images.shape == (2, 210, 160, 3)
        grey = images @ [0.299, 0.587, 0.114]
        # 5 lines of the screen become 2 of the observation, and 40 columns become 21.
        expected = grey.reshape(2, 42, 5, 4, 40).mean((2, 4))
        seen = observations[:, -1].reshape(2, 42, 2, 4, 21).mean((2, 4))
        np.testing.assert_allclose(seen, expected, atol=1.0)
    assert np.ptp(images[0].astype(int), axis=-1).max() > 100  # colours
    assert ppo_tf.make_envs("ALE/Pong-v5").render() is None


def test_evaluation_plays_whole_games_for_their_own_score():
    def serve(observations, seed, starts):
        return np.ones(len(observations), np.int64)  # presses fire and never moves

    result = ppo_tf.evaluate(serve, "ALE/Breakout-v5", episodes=4, num_envs=2)
    assert all(length > 80 for length in result.lengths)  # five lives
    again = ppo_tf.evaluate(serve, "ALE/Breakout-v5", episodes=4, num_envs=4)
    assert (again.returns, again.lengths) == (result.returns, result.lengths)
