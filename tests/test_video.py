"""Videos: what they show, when they are recorded, and that nothing else is affected."""

import json
import multiprocessing
import os
import sys
import types

import environments
import gymnasium
import helpers
import numpy as np
import pytest

import ppo_tf
from ppo_tf.command import evaluate
from ppo_tf.environments.backends import environment_seeds

pytest.importorskip("moviepy")
iio = pytest.importorskip("imageio.v3")

environments.register()

SEED = 5
HOLD = 5  # half a second of Drawing's 10 frames per second


def alternating(observations, seed, starts):
    """Acts 1 in every other step of an episode of Drawing."""
    return (observations[:, 0] % 2).astype(np.int64)


def record(path, env_id=environments.DRAWING, act=alternating, **kwargs):
    return ppo_tf.record_video(act, env_id, path, **{"seed": SEED, **kwargs})


def signals(path):
    """Returns (steps, actions) as shown by each frame of a video of Drawing."""
    frames = np.stack(list(iio.imiter(path))).astype(float)
    assert frames.shape[1:] == (32, 64, 3)
    left, right = frames[:, 4:-4, 4:28, 0].mean((1, 2)), frames[:, 4:-4, 36:60, 0].mean((1, 2))
    return np.rint(left / 25).astype(int).tolist(), np.rint(right / 200).astype(int).tolist()


def shown(lengths):
    """Returns what `signals` gives for episodes of `alternating`, with the last frame held."""
    steps = [step for length in lengths for step in range(length + 1)]
    steps += [steps[-1]] * HOLD
    return steps, [(step + 1) % 2 if step else 0 for step in steps]


# ---- what a video shows


@pytest.mark.parametrize("episodes", [1, 3])
def test_an_mp4_shows_every_step_of_the_episodes_that_evaluate_runs(episodes, tmp_path):
    result = record(tmp_path / "new" / "it.mp4", episodes=episodes)
    assert result == ppo_tf.evaluate(
        alternating, environments.DRAWING, episodes=episodes, seed=SEED
    )
    steps, actions = signals(tmp_path / "new" / "it.mp4")
    expected_steps, expected_actions = shown(result.lengths)
    # All steps, and some held frames.
    assert sum(result.lengths) + episodes < len(steps) <= len(expected_steps)
    assert steps == expected_steps[: len(steps)]
    assert actions == expected_actions[: len(steps)]
    assert iio.immeta(tmp_path / "new" / "it.mp4")["fps"] == 10
    assert [path.name for path in tmp_path.rglob("*.*")] == ["it.mp4"]


def test_a_gif_shows_the_same_and_loops(tmp_path):
    result = record(tmp_path / "it.gif")
    expected, _ = shown(result.lengths)
    steps, _ = signals(tmp_path / "it.gif")
    assert steps == expected[: len(expected) - HOLD]  # equal frames are merged into a longer one
    durations = [iio.immeta(tmp_path / "it.gif", index=i)["duration"] for i in range(len(steps))]
    assert durations == [100] * (len(steps) - 1) + [100 * (HOLD + 1)]
    assert iio.immeta(tmp_path / "it.gif")["loop"] == 0


def test_a_gif_drops_frames_beyond_the_rate_of_browsers(tmp_path, monkeypatch):
    fast = {**environments.Drawing.metadata, "render_fps": 120}
    monkeypatch.setattr(environments.Drawing, "metadata", fast)
    record(tmp_path / "it.gif", act=lambda *_: np.ones(1, np.int64), longest=60)
    first = iio.immeta(tmp_path / "it.gif", index=0)["duration"]
    steps, _ = signals(tmp_path / "it.gif")
    assert first == 20  # 25 ms, in whole hundredths of a second
    assert steps[:5] == [0, 3, 6, 9, 2]  # shown modulo 10


def test_an_episode_is_cut_after_max_steps(tmp_path):
    whole = record(tmp_path / "whole.gif", episodes=2, longest=40).lengths
    assert min(whole) > 3
    result = record(tmp_path / "it.gif", episodes=2, max_steps=3, longest=40)
    assert result.lengths == (3, 3)
    assert signals(tmp_path / "it.gif")[0] == [0, 1, 2, 3, 0, 1, 2, 3]


@pytest.mark.parametrize(("deterministic", "cell"), [(True, "gru"), (False, None)])
def test_a_policy_acts_as_in_an_evaluation(deterministic, cell, tmp_path):
    policy = helpers.make_policy(ppo_tf.make_envs(environments.DRAWING, 1), cell=cell)
    options = {"seed": 3, "deterministic": deterministic, "episodes": 2}
    result = record(tmp_path / "it.gif", act=policy, **options)
    assert result == ppo_tf.evaluate(policy, environments.DRAWING, num_envs=1, **options)


def test_the_first_frame_of_cartpole_matches_gymnasium(tmp_path):
    pytest.importorskip("pygame")
    record(tmp_path / "it.gif", "CartPole-v1", lambda *_: np.ones(1, np.int64), max_steps=2)
    env = gymnasium.make("CartPole-v1", render_mode="rgb_array")
    env.reset(seed=environment_seeds(SEED, 1, "evaluation")[0])
    expected = env.render()
    env.close()
    frame = iio.imread(tmp_path / "it.gif", index=0)
    assert np.abs(frame.astype(int) - expected).mean() < 1.0  # a GIF has 256 colours


def test_mujoco_renders_although_tensorflow_is_loaded(tmp_path):
    """In one process with TensorFlow, Mesa's OpenGL crashes."""
    pytest.importorskip("mujoco")
    try:
        record(tmp_path / "it.mp4", "Swimmer-v5", lambda *_: np.zeros((1, 2)), max_steps=2)
    except RuntimeError as error:
        pytest.skip(str(error))
    frame = iio.imread(tmp_path / "it.mp4", index=0)
    assert frame.shape == (480, 480, 3)
    assert frame.std() > 10


def test_atari_games_are_shown_in_colour(tmp_path):
    pytest.importorskip("ale_py")
    path = tmp_path / "it.mp4"
    assert record(path, "ALE/Breakout-v5", lambda *_: np.ones(1, np.int64), max_steps=5)
    frame = iio.imread(path, index=0)
    assert frame.shape == (420, 320, 3)
    assert np.ptp(frame.astype(int), axis=-1).max() > 100


# ---- bad input, and what is left of it


@pytest.mark.parametrize(
    ("name", "env_id", "options", "error", "words"),
    [
        ("it.avi", environments.DRAWING, {}, ValueError, ".mp4 or .gif.*it.avi"),
        ("it", environments.DRAWING, {}, ValueError, ".mp4 or .gif"),
        ("there.mp4", environments.DRAWING, {}, FileExistsError, "not be overwritten.*there.mp4"),
        ("there.mp4/it.mp4", environments.DRAWING, {}, NotADirectoryError, "there.mp4"),
        ("it.mp4", environments.DRAWING, {"episodes": 0}, ValueError, "episodes=0"),
        ("it.mp4", environments.DRAWING, {"max_steps": 0}, ValueError, "max_steps=0"),
        ("it.mp4", "CartPol-v1", {}, ValueError, "CartPole-v1"),
        ("it.mp4", environments.COUNTING, {}, ValueError, "'rgb_array'.*Counting"),
        ("it.mp4", environments.DRAWING, {"fault": "raise"}, RuntimeError, "Drawing.*no screen"),
        ("it.mp4", environments.DRAWING, {"fault": "exit"}, RuntimeError, "Drawing.*cannot"),
        ("it.mp4", environments.DRAWING, {"fault": "hang"}, RuntimeError, "Drawing.*cannot"),
        ("it.mp4", environments.DRAWING, {"fault": "none"}, ValueError, "no images"),
    ],
)
def test_bad_input_leaves_nothing(name, env_id, options, error, words, tmp_path, capfd):
    (tmp_path / "there.mp4").write_text("mine")
    with pytest.raises(error, match=words):
        record(tmp_path / name, env_id, **options)
    assert [path.name for path in tmp_path.rglob("*")] == ["there.mp4"]
    assert (tmp_path / "there.mp4").read_text() == "mine"
    assert multiprocessing.active_children() == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.filterwarnings("error")
def test_a_failed_recording_leaves_nothing_and_prints_nothing(tmp_path, capfd):
    def act(observations, seed, starts):
        if observations[0, 0] == 2:
            raise KeyboardInterrupt
        return np.zeros(1, np.int64)

    (tmp_path / "it.mp4").write_text("before")
    with pytest.raises(KeyboardInterrupt):
        record(tmp_path / "it.mp4", act=act, overwrite=True, longest=40)
    assert [path.name for path in tmp_path.rglob("*")] == ["it.mp4"]
    assert (tmp_path / "it.mp4").read_text() == "before"
    assert multiprocessing.active_children() == []
    assert capfd.readouterr() == ("", "")


def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"ppo_tf\[video\]"):
        record(tmp_path / "it.mp4")


def test_the_callers_script_does_not_run_again(tmp_path, monkeypatch):
    """Although it has no `__main__` guard; and what it defines is still found."""
    script = tmp_path / "script.py"
    script.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    main = types.ModuleType("__main__")
    main.__file__ = str(script)
    main.Mine = type("Mine", (environments.Drawing,), {"__module__": "__main__"})
    monkeypatch.setitem(sys.modules, "__main__", main)
    before = dict(os.environ)
    mine = gymnasium.envs.registration.EnvSpec("Mine-v0", main.Mine)
    monkeypatch.setitem(gymnasium.registry, "Mine-v0", mine)
    assert record(tmp_path / "it.gif", "Mine-v0").lengths[0] > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["it.gif", "script.py"]
    assert sys.modules["__main__"] is main
    assert dict(os.environ) == before


# ---- the callback


def test_the_callback_records_the_current_policy_at_intervals(tmp_path):
    envs = ppo_tf.make_envs(environments.DRAWING, 1)
    policy = ppo_tf.mlp_policy(envs, hidden_sizes=(4,), normalize=False)
    logits = policy.actor.get_layer("logits")
    recorder = ppo_tf.VideoRecorder(tmp_path / "videos", environments.DRAWING, 20, longest=40)
    recorder.set_model(policy)
    recorder.on_train_begin()
    assert list(tmp_path.iterdir()) == []
    for epoch, steps in enumerate([8, 16, 24, 32, 72, 80]):
        bias = [0.0, 5.0] if steps == 72 else [5.0, 0.0]
        logits.set_weights([np.zeros((4, 2)), np.array(bias)])
        recorder.on_epoch_end(epoch, {"rollout/steps": steps})
    names = ["steps-000000024.mp4", "steps-000000072.mp4", "steps-000000080.mp4"]
    assert sorted(path.name for path in (tmp_path / "videos").iterdir()) == names
    for name, action in zip(names, [0, 1, 0], strict=True):
        assert set(signals(tmp_path / "videos" / name)[1][1:]) == {action}


def test_training_is_the_same_with_and_without_videos(tmp_path):
    def train(*callbacks):
        envs = ppo_tf.make_envs(environments.DRAWING, 4, seed=1)
        learner = ppo_tf.Learner(
            helpers.make_policy(envs),
            helpers.make_critic(envs),
            epochs=1,
            minibatch_size=16,
            jit_compile=False,
        )
        logs = ppo_tf.fit(learner, envs, total_steps=96, horizon=8, callbacks=callbacks)
        return {name: values for name, values in logs.items() if not name.startswith("time/")}

    recorder = ppo_tf.VideoRecorder(tmp_path, environments.DRAWING, 32, deterministic=False)
    assert train(recorder) == train()
    assert len(list(tmp_path.iterdir())) == 3


def test_a_resumed_run_records_the_next_video_on_schedule(tmp_path):
    def recorder():
        made = ppo_tf.VideoRecorder(tmp_path, environments.DRAWING, 20)
        made.set_model(helpers.make_policy(ppo_tf.make_envs(environments.DRAWING, 1)))
        made.on_train_begin()
        return made

    before, after = recorder(), recorder()
    before.on_epoch_end(0, {"rollout/steps": 24})
    after.load_state(json.loads(json.dumps(before.state())))
    for epoch, steps in enumerate([32, 40], start=1):
        after.on_epoch_end(epoch, {"rollout/steps": steps})
    names = ["steps-000000024.mp4", "steps-000000040.mp4"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"env_id": environments.COUNTING}, ValueError, "rgb_array"),
        ({"fault": "raise"}, RuntimeError, "no screen"),
        ({"folder": "file"}, NotADirectoryError, "file"),
    ],
)
def test_the_callback_fails_before_training_if_it_cannot_record(
    options, error, words, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    options = {"folder": "videos", "env_id": environments.DRAWING, "every": 32, **options}
    recorder = ppo_tf.VideoRecorder(**options)
    with pytest.raises(error, match=words):
        recorder.on_train_begin()
    with pytest.raises(ValueError, match="every=0"):
        ppo_tf.VideoRecorder("videos", environments.DRAWING, 0)


# ---- the command


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """(policy in memory, folder of the exported one)."""
    policy = helpers.make_policy(ppo_tf.make_envs(environments.DRAWING, 1), cell="gru")
    folder = tmp_path_factory.mktemp("exported") / "policy"
    ppo_tf.export_policy(policy, folder, metadata={"env": environments.DRAWING})
    return policy, folder


def test_the_evaluation_command_records_the_first_episodes(exported, tmp_path, monkeypatch, capfd):
    policy, folder = exported
    monkeypatch.chdir(tmp_path)
    arguments = [f"--policy={folder}", "--episodes=3", "--seed=5"]
    assert evaluate.main([*arguments, "--video=it.mp4", "--video_episodes=2"]) == 0
    expected = ppo_tf.evaluate(policy, environments.DRAWING, episodes=3, seed=5)
    first, second = expected.returns[:2]
    out, err = capfd.readouterr()
    assert err == ""
    assert out.splitlines() == [
        f"return {expected.mean:.1f} +- {expected.std:.1f} over 3 episodes",
        f"video: it.mp4, {sum(expected.lengths[:2])} steps, return {first:.1f}, {second:.1f}",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["it.mp4"]
    assert len(signals(tmp_path / "it.mp4")[0]) > sum(expected.lengths[:2])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--video=it.avi"], ["it.avi", ".mp4"]),
        (["--video=there.gif"], ["there.gif", "overwritten"]),
        (["--video=it.gif", "--video_episodes=0"], ["episodes=0"]),
        (["--vido=it.gif"], ["vido", "video"]),
        (["it.gif"], ["it.gif"]),
        (["--env=Pendulum-v1"], ["(2,)", "(3,)", "Pendulum-v1"]),
        (["--policy="], ["policy", "policy="]),
        (["--policy=there.gif"], ["folder", "policy=there.gif"]),
    ],
)
def test_bad_input_to_the_command_is_a_one_line_error(
    arguments, words, exported, tmp_path, monkeypatch, capfd
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.gif").write_text("")
    assert evaluate.main([f"--policy={exported[1]}", "--episodes=1", *arguments]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("error: ") and err.count("\n") == 1
    assert all(word in err for word in words)
    assert [path.name for path in tmp_path.iterdir()] == ["there.gif"]
