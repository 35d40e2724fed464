"""Resuming a run with the training command, and repeating one."""

import gc
import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from train_command import SCRIPT, TINY, read_csv, start, without_times

from ppo_tf.command import runs

# Two iterations of 32 steps from one checkpoint to the next.
RUN = ["--env=CartPole-v1", *TINY, "--total_steps=128", "--checkpoint_every=64"]


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """The folder of a finished run of four iterations."""
    folder = tmp_path_factory.mktemp("origin")
    process = start(folder, *RUN, "--logdir=run")
    _, err = process.communicate()
    assert process.returncode == 0, err
    return folder / "run"


@pytest.fixture
def unfinished(origin, tmp_path):
    """A copy of that folder, as if the run had been killed before its end."""
    folder = shutil.copytree(origin, tmp_path / "run")
    (folder / runs.RESULT).unlink()
    return folder


def plain(folder):
    """The results of a run, without times."""
    rows = without_times(read_csv(folder / "metrics.csv"))
    return rows, json.loads((folder / runs.RESULT).read_text())


def content(folder):
    """The size and the modification time of every file in a folder but the lock."""
    return {
        path.relative_to(folder): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file() and path.name != runs.LOCK
    }


def checkpoints(folder):
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def errors(captured):
    """The lines of standard error without TensorFlow's messages."""
    return [line for line in captured.err.splitlines() if not re.match(r"[IWE]\d{4} ", line)]


def error_of(code, capfd):
    lines = errors(capfd.readouterr())
    assert code == 2
    assert len(lines) == 1 and lines[0].startswith("error: "), lines
    return lines[0]


def test_a_run_resumes_from_its_last_checkpoint(origin, unfinished, run, capfd):
    newest = unfinished / "checkpoints" / checkpoints(unfinished)[-1]
    newest.unlink()  # as if killed in iteration 3
    assert run("--resume=run") == 0
    captured = capfd.readouterr()
    assert "resuming run" in captured.out
    assert errors(captured) == []
    assert plain(unfinished) == plain(origin)
    assert checkpoints(unfinished) == checkpoints(origin)
    assert [row["iteration"] for row in read_csv(unfinished / "metrics.csv")] == list("0123")


@pytest.mark.parametrize("change", [lambda b: b[: len(b) // 2], lambda b: b[:-9] + b"!" + b[-8:]])
def test_a_damaged_checkpoint_is_named_and_the_previous_one_gives_the_same_run(
    change, origin, unfinished, run, capfd
):
    newest = unfinished / "checkpoints" / checkpoints(unfinished)[-1]
    newest.write_bytes(change(newest.read_bytes()))
    assert run("--resume=run") == 0
    (line,) = errors(capfd.readouterr())
    assert line.startswith(
        f"warning: checkpoint run/checkpoints/{newest.name} is passed over: its "
    )
    assert plain(unfinished) == plain(origin)


def test_without_a_checkpoint_it_starts_over_in_its_folder(origin, unfinished, run):
    shutil.rmtree(unfinished / "checkpoints")
    assert run("--resume=run") == 0
    assert plain(unfinished) == plain(origin)
    events = EventAccumulator(str(unfinished)).Reload()
    assert [p.step for p in events.Tensors("train/kl")] == [32, 64, 96, 128]  # each step once


def test_a_finished_run_can_have_more_steps_and_other_evaluations(origin, unfinished, run):
    shutil.copy(origin / runs.RESULT, unfinished)
    assert run("--resume=run", "--total_steps=192", "--eval_episodes=3") == 0
    rows, evaluation = plain(unfinished)
    assert [row["iteration"] for row in rows] == list("012345")
    assert rows[:4] == plain(origin)[0]
    assert evaluation["sampled"]["episodes"] == 3
    config = json.loads((unfinished / "config.json").read_text())
    assert config["settings"]["total_steps"] == {"value": 192, "source": "flag"}
    assert config["settings"]["horizon"] == {"value": 16, "source": "flag"}


def test_evaluations_can_be_turned_on_and_off_when_a_run_is_resumed(origin, unfinished, run):
    assert run("--resume=run", "--total_steps=192", "--eval_every=32") == 0
    gc.collect()  # releases the lock, which otherwise only the end of the process does
    assert run("--resume=run", "--total_steps=256", "--eval_every=0") == 0
    rows, _ = plain(unfinished)
    evaluated = [row.pop("eval/mean_return") for row in rows]
    assert [value != "" for value in evaluated] == [False] * 4 + [True] * 2 + [False] * 2
    first = [{k: v for k, v in row.items() if not k.startswith("eval/")} for row in rows[:4]]
    assert first == plain(origin)[0]


def test_a_finished_run_is_not_touched(origin, unfinished, run, capfd):
    shutil.copy(origin / runs.RESULT, unfinished)
    before = content(unfinished)
    assert run("--resume=run") == 0
    assert "run is finished" in capfd.readouterr().out
    assert content(unfinished) == before


def test_auto_starts_a_new_run_or_resumes_an_existing_one(origin, run, tmp_path, capfd):
    for expected in ("", "is finished"):
        assert run(*RUN, "--logdir=new", "--resume=auto") == 0
        assert expected in capfd.readouterr().out
    assert plain(tmp_path / "new") == plain(origin)


def test_auto_without_logdir_finds_the_newest_unfinished_run(origin, unfinished, run, tmp_path):
    for name, seed in (("finished", 0), ("other", 1), ("mine", 0)):
        folder = shutil.copytree(origin, tmp_path / "runs" / name)
        if name != "finished":
            (folder / runs.RESULT).unlink()
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "seed": seed}))
    before = {name: content(tmp_path / "runs" / name) for name in ("finished", "other")}
    assert run("--env=CartPole-v1", "--resume=auto") == 0
    assert plain(tmp_path / "runs" / "mine") == plain(origin)
    assert {name: content(tmp_path / "runs" / name) for name in before} == before
    assert len(list((tmp_path / "runs").iterdir())) == 3


REFUSED = {
    "other settings": (
        ["--resume=run", "--learning_rate=0.5", "--epochs=3", "--total_steps=256"],
        ["run", "learning_rate=0.5 (was 0.001)", "epochs=3 (was 1)"],
    ),
    "another environment": (
        ["--resume=run", "--env=Pendulum-v1"],
        ["run is a run of env=CartPole-v1", "Received: env=Pendulum-v1"],
    ),
    "fewer steps than there were": (["--resume=run", "--total_steps=64"], ["128", "=64"]),
    "no such folder": (["--resume=nowhere"], ["resume=nowhere", "No such file"]),
    "a folder of something else": (["--resume=other"], ["other", "config.json"]),
    "a config of something else": (["--config=other/a.json"], ["a.json", "not a run's config"]),
    "no such config": (["--config=nowhere.json"], ["config=nowhere.json", "No such file"]),
    "two configs": (["--resume=run", "--config=run"], ["config=run"]),
    "two folders": (["--resume=run", "--logdir=run"], ["logdir=run"]),
    "auto in a folder of something else": ([*RUN, "--resume=auto", "--logdir=other"], ["other"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_mismatch_is_refused_and_nothing_changes(name, unfinished, run, tmp_path, capfd):
    arguments, words = REFUSED[name]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.json").write_text('{"learning": "rate"}')
    before = content(tmp_path)
    error = error_of(run(*arguments), capfd) if name[:5] != "fewer" else None
    if error is None:  # found out from the checkpoint, when training begins
        assert run(*arguments) == 1
        error = capfd.readouterr().err
    for word in words:
        assert word in error
    assert "total_steps=256" not in error  # this one may change
    assert content(tmp_path) == before


def test_a_run_of_another_version_is_refused_by_name(unfinished, run, capfd):
    config = json.loads((unfinished / "config.json").read_text())
    config["versions"]["ppo_tf"] = "0.0.1"
    (unfinished / "config.json").write_text(json.dumps(config))
    error = error_of(run("--resume=run"), capfd)
    assert "run is a run of ppo_tf 0.0.1" in error


def test_another_tensorflow_is_a_warning(unfinished, run, capfd):
    config = json.loads((unfinished / "config.json").read_text())
    config["versions"]["tensorflow"] = "2.20.0"
    (unfinished / "config.json").write_text(json.dumps(config))
    assert run("--resume=run") == 0
    (line,) = errors(capfd.readouterr())
    assert line.startswith("warning: results may differ") and "tensorflow 2.20.0 ->" in line


HOLD = """
import sys
from pathlib import Path
from ppo_tf.command import runs
lock = runs.lock_folder(Path(sys.argv[1]))
print("held", flush=True)
input()
"""


def test_a_second_run_in_a_folder_is_refused_until_the_first_ends_in_any_way(
    origin, unfinished, run, capfd
):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(unfinished)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout.readline() == "held\n"
    before = content(unfinished)
    assert "Another run is writing" in error_of(run("--resume=run"), capfd)
    assert content(unfinished) == before
    holder.kill()
    holder.communicate()
    assert (unfinished / runs.LOCK).exists()  # which means nothing
    assert run("--resume=run") == 0
    assert plain(unfinished) == plain(origin)


def test_a_config_repeats_a_run_and_flags_override_it(origin, run, tmp_path):
    assert run(f"--config={origin / 'config.json'}", "--logdir=again") == 0
    assert plain(tmp_path / "again") == plain(origin)
    config = json.loads((tmp_path / "again" / "config.json").read_text())
    assert config["settings"]["checkpoint_at"] == {"value": [128], "source": "config"}
    assert config["boundaries"] == json.loads((origin / "config.json").read_text())["boundaries"]
    assert run(f"--config={origin}", "--logdir=other", "--total_steps=64") == 0
    settings = json.loads((tmp_path / "other" / "config.json").read_text())["settings"]
    assert settings["total_steps"] == {"value": 64, "source": "flag"}
    assert settings["hidden_sizes"] == {"value": [4], "source": "config"}
    assert len(read_csv(tmp_path / "other" / "metrics.csv")) == 2


ON_A_SMALL_DISK = f"""
mount -t tmpfs -o size=$1 tmpfs small && shift || exit 77
"{sys.executable}" "{SCRIPT}" --logdir=small/run "$@"
code=$?
cp -r small/run saved
exit $code
"""


@pytest.mark.parametrize(
    ("size", "flags"),
    [
        pytest.param("64k", ["--total_steps=1000000", "--checkpoint_every=128"], id="in training"),
        pytest.param("48k", ["--total_steps=64"], id="in the export", marks=pytest.mark.slow),
    ],
)
def test_a_full_disk_is_a_one_line_error_and_the_last_checkpoint_is_intact(
    size, flags, run, tmp_path
):
    (tmp_path / "small").mkdir()
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", ON_A_SMALL_DISK]
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare")
    process = subprocess.run(
        [*command, "sh", size, *RUN, *flags],
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if not k.startswith("TF_CPP_")},
        capture_output=True,
        text=True,
    )
    if process.returncode == 77 or "unshare" in process.stderr:
        pytest.skip("no file system can be mounted here")
    assert process.returncode == 1
    (line,) = process.stderr.splitlines()
    assert line.startswith("error: cannot write") and "No space left on device" in line
    steps = int(checkpoints(tmp_path / "saved")[-1].split("-")[1].split(".")[0])
    assert steps > 0
    # With enough room, it resumes.
    assert run("--resume=saved", f"--total_steps={steps + 32}") == 0
    rows, _ = plain(tmp_path / "saved")
    assert [int(float(row["rollout/steps"])) for row in rows] == list(range(32, steps + 33, 32))
