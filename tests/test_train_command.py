"""The training command: what it writes and prints, and how it ends."""

import json
import re
import signal
import time

import environments
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from train_command import TINY, read_csv, start, without_times

import ppo_tf
from ppo_tf.callbacks import health
from ppo_tf.command import plot
from ppo_tf.command.declarations import as_text
from ppo_tf.command.presets import PRESETS
from ppo_tf.command.settings import DEFAULTS, SETTINGS

environments.register()

# ---- a run that succeeds


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A tiny run: (logdir, exit code, standard output, standard error)."""
    folder = tmp_path_factory.mktemp("finished")
    process = start(
        folder,
        "--env=CartPole-v1",
        "--total_steps=2048",
        "--num_envs=8",
        "--horizon=128",
        "--minibatch_size=64",
        "--epochs=1",
        "--eval_episodes=4",
        "--logdir=logs/run",
        fork=False,
    )
    out, err = process.communicate()
    return folder / "logs" / "run", process.returncode, out, err


def test_a_run_succeeds_without_errors_and_prints_where_the_policy_is(finished):
    _, code, out, err = finished
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "policy: logs/run/policy"


def test_a_run_writes_these_files_only(finished):
    logdir = finished[0]
    names = sorted(path.name for path in logdir.iterdir())
    events = [name for name in names if name.startswith("events.out.tfevents")]
    assert len(events) == 1
    expected = {"config.json", "evaluation.json", "metrics.csv", "metrics.jsonl", "policy"}
    assert set(names) - set(events) == expected | {"checkpoints", ".lock"}
    assert [path.name for path in logdir.parent.iterdir()] == ["run"]


def test_config_json_holds_every_value_and_its_source(finished):
    config = json.loads((finished[0] / "config.json").read_text())
    assert (config["env"], config["seed"]) == ("CartPole-v1", 0)
    settings = config["settings"]
    assert settings.keys() == DEFAULTS.keys()
    given = {
        "total_steps": 2048,
        "num_envs": 8,
        "horizon": 128,
        "minibatch_size": 64,
        "epochs": 1,
        "eval_episodes": 4,
    }
    preset = PRESETS["CartPole-v1"]
    assert config["boundaries"] == [2048]
    assert settings.pop("checkpoint_every") == {"value": 100_000, "source": "default"}
    for name, setting in settings.items():
        if name in given:
            expected = {"value": given[name], "source": "flag"}
        elif name in preset:
            expected = {"value": preset[name], "source": "preset"}
        else:
            default = DEFAULTS[name]
            default = list(default) if isinstance(default, tuple) else default
            expected = {"value": default, "source": "default"}
        assert setting == expected, name
    assert {setting["source"] for setting in settings.values()} == {"flag", "preset", "default"}
    assert config["versions"]["tensorflow"] == tf.__version__
    assert config["versions"]["ppo_tf"] == ppo_tf.__version__
    assert {"python", "keras", "tensorflow-probability", "gymnasium", "numpy"} <= config[
        "versions"
    ].keys()


def test_the_output_shows_the_settings_by_source(finished):
    lines = finished[2].splitlines()
    assert lines[0] == f"CartPole-v1, ppo_tf {ppo_tf.__version__}"
    assert lines[1].startswith("flag: ") and "total_steps=2048" in lines[1]
    assert lines[2].startswith("preset: ") and "learning_rate=0.001" in lines[2]
    assert any(line.startswith("default: ") for line in lines)
    assert any("2,048/2,048 steps" in line for line in lines)


def test_metrics_csv_and_the_event_file_hold_the_same_two_iterations(finished):
    rows = read_csv(finished[0] / "metrics.csv")
    assert [float(row["rollout/steps"]) for row in rows] == [1024, 2048]
    events = EventAccumulator(str(finished[0])).Reload()
    for name in ("rollout/episode_return", "train/kl", "train/value_loss"):
        values = [tf.make_ndarray(p.tensor_proto).item() for p in events.Tensors(name)]
        assert values == pytest.approx([float(row[name]) for row in rows]), name
        assert [p.step for p in events.Tensors(name)] == [1024, 2048]


def test_evaluation_json_holds_every_episode_of_both_modes(finished):
    results = json.loads((finished[0] / "evaluation.json").read_text())
    assert results.keys() == {"deterministic", "sampled"}
    for mode, result in results.items():
        assert result["episodes"] == len(result["returns"]) == len(result["lengths"]) == 4
        assert result["returns"] == result["lengths"]  # CartPole's reward is 1 in every step
        assert result["mean_return"] == pytest.approx(np.mean(result["returns"]))
        line = next(line for line in finished[2].splitlines() if line.startswith(mode))
        assert f"return {result['mean_return']:.1f} +- {result['std_return']:.1f}" in line
    assert results["deterministic"] != results["sampled"]


def test_the_exported_policy_is_the_evaluated_one(finished):
    folder = finished[0] / "policy"
    metadata = json.loads((folder / "assets.extra" / "policy.json").read_text())
    assert metadata["env"] == "CartPole-v1"
    loaded = tf.saved_model.load(str(folder))
    assert set(loaded.signatures) == {"serving_default", "sample", "value"}
    act = loaded.signatures["serving_default"]
    result = ppo_tf.evaluate(
        lambda observations, seed, starts: act(observation=tf.constant(observations))[
            "action"
        ].numpy(),
        "CartPole-v1",
        episodes=4,
    )
    evaluation = json.loads((finished[0] / "evaluation.json").read_text())
    assert list(result.returns) == evaluation["deterministic"]["returns"]


def test_the_plot_command_draws_a_run(finished, tmp_path, monkeypatch, capfd):
    pytest.importorskip("matplotlib")
    pytest.importorskip("scipy")
    monkeypatch.chdir(tmp_path)
    assert plot.main([str(finished[0].parent)]) == 0
    assert capfd.readouterr() == ("wrote curve.png\nwrote curve.svg\n", "")


def test_the_flags_and_the_seed_determine_the_run(run, tmp_path):
    for name, seed in ("one", 0), ("two", 0), ("other", 1):
        flags_of_run = [f"--logdir={name}", f"--export_dir={name}-policy", f"--seed={seed}"]
        assert run("--env=CartPole-v1", *TINY, *flags_of_run) == 0
    rows = {}
    for name in ("one", "two", "other"):
        assert (tmp_path / f"{name}-policy" / "saved_model.pb").exists()
        assert not (tmp_path / name / "policy").exists()
        rows[name] = without_times(read_csv(tmp_path / name / "metrics.csv"))
        rows[name].append((tmp_path / name / "evaluation.json").read_text())
    assert rows["one"] == rows["two"]
    assert rows["one"] != rows["other"]


# ---- bad input

ONE = "--env=CartPole-v1"
BAD_INPUT = {
    "no env": ([], ["--env", "required"]),
    "a misspelt env": (["--env=CartPol-v1"], ["env='CartPol-v1'", "CartPole-v1"]),
    "an env whose package is missing": (
        [f"--env={environments.UNINSTALLED}"],
        [environments.UNINSTALLED, "not installed"],
    ),
    "an unknown estimator": ([ONE, "--estimator=td"], ["estimator", "td", "gae", "n_step"]),
    "an unknown flag": ([ONE, "--gama=0.9"], ["gama", "gamma"]),
    "an argument that is not a flag": ([ONE, "Pendulum-v1"], ["Pendulum-v1"]),
    "not a number": ([ONE, "--horizon=many"], ["horizon", "many"]),
    "gamma above 1": ([ONE, "--gamma=1.5"], ["gamma", "1.5"]),
    "gae_lambda above 1": ([ONE, "--gae_lambda=2"], ["gae_lambda", "2.0"]),
    "n_step 0": ([ONE, "--estimator=n_step", "--n_step=0"], ["n_step=0"]),
    "clip_epsilon below 0": ([ONE, "--clip_epsilon=-1"], ["epsilon", "-1.0"]),
    "a minibatch that does not divide": (
        [ONE, "--minibatch_size=60"],
        ["minibatch_size=60", "horizon * num_envs=1024"],
    ),
    "a minibatch of 0": ([ONE, "--minibatch_size=0"], ["minibatch_size", "0"]),
    "a minibatch of 1, standardised": ([ONE, "--minibatch_size=1"], ["minibatch_size", "=1"]),
    "num_envs 0": ([ONE, "--num_envs=0"], ["num_envs=0"]),
    "horizon 0": ([ONE, "--horizon=0"], ["horizon=0"]),
    "epochs 0": ([ONE, "--epochs=0"], ["epochs=0"]),
    "too few steps": ([ONE, "--total_steps=1023"], ["total_steps=1023", "1024"]),
    "a negative seed": ([ONE, "--seed=-1"], ["seed", "-1"]),
    "a negative learning rate": ([ONE, "--learning_rate=-1"], ["learning_rate", "-1"]),
    "eval_episodes 0": ([ONE, "--eval_episodes=0"], ["eval_episodes", "0"]),
    "checkpoint_every": ([ONE, "--checkpoint_every=-1"], ["checkpoint_every=-1", "at least 0"]),
    "eval_every": ([ONE, "--eval_every=-1"], ["eval_every=-1", "at least 0"]),
    "video_every": ([ONE, "--video_every=-1"], ["video_every=-1", "at least 0"]),
    "layers that are not numbers": ([ONE, "--hidden_sizes=a,b"], ["hidden_sizes", "a,b"]),
    "a layer of no units": ([ONE, "--hidden_sizes=8,0"], ["hidden_sizes", "0"]),
    "an unknown activation": ([ONE, "--activation=foo"], ["activation", "foo"]),
    "an observation of text": (
        [f"--env={environments.TEXT_OBSERVATION}"],
        ["observation space", "Text"],
    ),
    "an action of text in a dict": (
        [f"--env={environments.DICT_ACTION}"],
        ["action space", "gas", "Text"],
    ),
    "no vector class": (["--env=Pendulum-v1", "--backend=vector"], ["backend", "vector"]),
    "a logdir under a file": ([ONE, "--logdir=file/run"], ["logdir", "file/run"]),
    "a logdir that exists": ([ONE, "--logdir=folder"], ["logdir", "folder"]),
    "an export_dir under a file": ([ONE, "--export_dir=file/policy"], ["export", "file/policy"]),
    "an export_dir that exists": ([ONE, "--export_dir=folder"], ["export", "folder"]),
}


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input_is_a_one_line_error_that_names_it_and_leaves_nothing(name, run, tmp_path, capfd):
    arguments, words = BAD_INPUT[name]
    (tmp_path / "file").write_text("a file")
    (tmp_path / "folder").mkdir()
    # Enough steps for one iteration, so that input accepted by mistake ends soon.
    tiny = ["--num_envs=8", "--horizon=128", "--total_steps=1024", "--epochs=1", "--nojit_compile"]
    code = run(*tiny, "--eval_episodes=1", *arguments)
    lines = capfd.readouterr().err.splitlines()
    assert code not in (0, None)
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    for word in words:
        assert word in lines[0]
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]


def test_bad_input_is_one_line_in_a_separate_process(tmp_path):
    """TensorFlow's start-up messages, already over in this process, do not appear."""
    process = start(tmp_path, ONE, "--gamma=1.5")
    out, err = process.communicate()
    assert process.returncode == 2
    assert re.fullmatch(r"error: .*gamma=1.5\n", err)
    assert out == ""
    assert list(tmp_path.iterdir()) == []


def test_unknown_flags_are_refused_by_name(run, tmp_path, capfd):
    assert run(ONE, "--jit") == 2
    assert capfd.readouterr().err == (
        "error: Unknown command line flag 'jit'. Did you mean: jit_compile ?\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_advice_names_flags(run, monkeypatch, capfd):
    def always(seen):
        return "it looks wrong: try a lower `learning_rate` or `continuous=beta`"

    monkeypatch.setattr(health, "RULES", (always,))
    assert run(ONE, *TINY) == 0
    assert capfd.readouterr().err == (
        "advice after 32 steps: it looks wrong: try a lower --learning_rate or --continuous=beta\n"
    )


# ---- runs that end early


@pytest.mark.parametrize(
    ("env_id", "field", "step"),
    [(environments.NAN_REWARD, "reward", 0), (environments.NAN_OBSERVATION, "observation", 1)],
)
def test_a_nan_ends_the_run_with_its_source_and_the_last_good_policy(
    env_id, field, step, run, tmp_path, capfd
):
    code = run(f"--env={env_id}", *TINY, "--logdir=logs")
    captured = capfd.readouterr()
    assert code == 1
    assert captured.err.splitlines() == [
        f"error: environment 0 gave a non-finite {field} at its step {step}: nan"
    ]
    assert captured.out.splitlines()[-1] == "policy: logs/policy"
    act = tf.saved_model.load(str(tmp_path / "logs" / "policy")).signatures["serving_default"]
    assert np.isfinite(act(observation=tf.zeros((3, 2)))["action"].numpy()).all()
    assert not (tmp_path / "logs" / "evaluation.json").exists()


def test_ctrl_c_ends_the_run_and_keeps_its_files_and_policy(tmp_path):
    metrics = tmp_path / "run" / "metrics.csv"
    # A child ignores the signal if its parent does, as under nohup.
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = start(
            tmp_path,
            "--env=CartPole-v1",
            *TINY,
            "--total_steps=1000000000",
            "--logdir=run",
        )
    finally:
        signal.signal(signal.SIGINT, previous)
    try:
        deadline = time.monotonic() + 60
        while not metrics.exists() or metrics.read_text().count("\n") < 3:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline, "fewer than two iterations in a minute"
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert err == "interrupted; to resume: ppo-tf train --resume=run\n"
    assert out.splitlines()[-1] == "policy: run/policy"
    text = metrics.read_text()
    assert text.endswith("\n")
    assert len({line.count(",") for line in text.splitlines()}) == 1
    steps = [float(row["rollout/steps"]) for row in read_csv(metrics)]
    assert steps == [32.0 * (i + 1) for i in range(len(steps))] and len(steps) >= 2
    act = tf.saved_model.load(str(tmp_path / "run" / "policy")).signatures["serving_default"]
    assert set(act(observation=tf.zeros((3, 4)))["action"].numpy()) <= {0, 1}


# ---- help


def test_help_lists_every_flag_with_its_default_without_tensorflow(tmp_path):
    out, modules = start(tmp_path, "--help", python=("-X", "importtime"), fork=False).communicate()
    words = " ".join(out.split())  # without line breaks
    parts = re.split(r" --(?:\[no\])?(\w+): ", words)[1:]
    texts = dict(zip(parts[::2], parts[1::2], strict=True))
    for name, setting in SETTINGS.items():
        assert f"(default: {as_text(setting.default)})" in texts[name], name
        assert setting.help in texts[name]
        assert all(choice.name in texts[name] for choice in setting.choices)
    assert {"env", "logdir", "export_dir"} <= texts.keys()
    assert "absl" in modules
    for package in ("tensorflow", "keras", "tensorflow_probability"):
        assert f" {package}\n" not in modules
