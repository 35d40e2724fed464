"""Logs that others remove, shorten or replace by links: a line, and the training goes on."""

import gc
import json
import os
import re
import shutil

import keras
import loops
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from train_command import read_csv

import ppo_tf
from ppo_tf.callbacks.logs import MetricsCSV, MetricsJSONL
from ppo_tf.callbacks.tensorboard import TensorBoardScalars

pytestmark = pytest.mark.skipif(os.name == "nt", reason="open files can't be removed")


def link(path):
    path.with_name("theirs").write_bytes(b"theirs")
    path.unlink()
    path.symlink_to(path.with_name("theirs"))


DAMAGE = {
    "removed": lambda path: path.unlink(),
    "with its folder": lambda path: shutil.rmtree(path.parent),
    "emptied": lambda path: os.truncate(path, 0),
    "cut in its last row": lambda path: os.truncate(path, path.stat().st_size - 3),
    "a link": link,
}
LEFT = {"cut in its last row": ["0", "1"]}  # iterations before the damage


def iterations(path):
    if path.suffix == ".csv":
        rows = read_csv(path)
        assert all(None not in row and None not in row.values() for row in rows)
        return [row["iteration"] for row in rows]
    return [str(json.loads(line)["iteration"]) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("kind", [MetricsCSV, MetricsJSONL])
@pytest.mark.parametrize("name", DAMAGE)
@pytest.mark.parametrize("resumed", [False, True], ids=["training", "resumed"])
def test_what_is_left_of_a_file_is_continued(resumed, name, kind, tmp_path, capfd):
    if resumed and name == "a link":
        pytest.skip("a run with links in its folder is not resumed")
    path = tmp_path / "run" / ("metrics.csv" if kind is MetricsCSV else "metrics.jsonl")
    path.parent.mkdir()
    loop = loops.Loop(kind(path)).run(0, 2)
    state = loop.callback.state()
    DAMAGE[name](path)
    if resumed:
        path.parent.mkdir(exist_ok=True)
        callback = kind(path)
        callback.load_state(state)
        loop = loops.Loop(callback)
    loop.run(3, 4)
    assert iterations(path) == [*LEFT.get(name, []), "3", "4"]
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"warning: {path} ")
    if name == "a link":
        assert (path.parent / "theirs").read_bytes() == b"theirs"
    # A checkpoint made now can be resumed from.
    again = kind(path)
    again.load_state(loop.callback.state())
    loops.Loop(again).run(5, 5).end()
    assert iterations(path)[-3:] == ["3", "4", "5"] and not capfd.readouterr().err


@pytest.mark.parametrize("name", DAMAGE)
@pytest.mark.parametrize("resumed", [False, True], ids=["training", "resumed"])
def test_event_files_go_on_in_a_new_one(resumed, name, tmp_path, capfd):
    if resumed and name == "a link":
        pytest.skip("a run with links in its folder is not resumed")
    folder = tmp_path / "run"
    loop = loops.Loop(TensorBoardScalars(folder)).run(0, 2)
    state = loop.callback.state()
    DAMAGE[name](next(folder.glob("events*")))
    if resumed:
        callback = TensorBoardScalars(folder)
        callback.load_state(state)
        loop = loops.Loop(callback)
    loop.run(3, 4)
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"warning: {folder}")
    again = TensorBoardScalars(folder)
    again.load_state(loop.callback.state())
    loops.Loop(again).run(5, 5).end()
    assert not capfd.readouterr().err
    steps = [point.step for point in EventAccumulator(str(folder)).Reload().Tensors("train/loss")]
    assert steps[-3:] == [400, 500, 600]
    if name == "a link":
        assert (folder / "theirs").read_bytes() == b"theirs"


def warnings(capfd):
    """The files that warnings name."""
    return re.findall(r"^warning: run/([a-z.]+[a-z])", capfd.readouterr().err, re.MULTILINE)


class At(keras.callbacks.Callback):
    """Does something once, after an iteration."""

    def __init__(self, iteration, act):
        super().__init__()
        self._iteration, self._act = iteration, act

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self._iteration:
            self._act()


def test_a_run_whose_folder_is_deleted_ends_whole_and_can_be_resumed(run, monkeypatch, capfd):
    """At its last checkpoint there is everything again."""
    from ppo_tf.command import running

    make = running.make_callbacks
    delete = At(1, lambda: shutil.rmtree("run"))
    monkeypatch.setattr(running, "make_callbacks", lambda run: [*make(run), delete])
    tiny = ["--num_envs=2", "--horizon=16", "--minibatch_size=16", "--epochs=1", "--nojit_compile"]
    tiny += ["--env=CartPole-v1", "--eval_episodes=1", "--hidden_sizes=4", "--acting=tensorflow"]
    assert run(*tiny, "--total_steps=128", "--checkpoint_every=32", "--logdir=run") == 0
    assert warnings(capfd) == ["metrics.csv", "metrics.jsonl", "events.out.tfevents"]
    assert [row["iteration"] for row in read_csv("run/metrics.csv")] == ["2", "3"]
    monkeypatch.setattr(running, "make_callbacks", make)
    gc.collect()  # releases the lock, which otherwise only the end of the process does
    assert run("--resume=run", "--total_steps=160") == 0
    assert [row["iteration"] for row in read_csv("run/metrics.csv")] == ["2", "3", "4"]
    assert warnings(capfd) == []


def test_a_link_in_place_of_the_checkpoints_is_not_followed(tmp_path):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    checkpoints = ppo_tf.Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(32, {}, {})
    shutil.rmtree(checkpoints.folder)
    checkpoints.folder.symlink_to(theirs)
    checkpoints.save(64, {}, {})
    assert list(theirs.iterdir()) == [] and not checkpoints.folder.is_symlink()
    mine = ppo_tf.Checkpoints(tmp_path / "mine")  # one that was there before is the user's
    mine.folder.symlink_to(theirs)
    ppo_tf.Checkpoints(mine.folder).save(32, {}, {})
    assert len(list(theirs.iterdir())) == 1
