"""The log files, and all our callbacks together in an interrupted run."""

import contextlib
import json
import math

import keras
import loops
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from train_command import read_csv, without_times

import ppo_tf


def strict(text):
    """The lines of a text as strict JSON, which has no NaN."""

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def test_json_lines_have_one_object_per_iteration(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("of an earlier run\n" * 9)
    seen = []
    loop = loops.Loop(ppo_tf.MetricsJSONL(path))
    for i in range(3):
        loop.run(i, i, rollout__episode_return=loops.missing_until(1, 7.0), train__kl=math.inf)
        seen.append(path.read_text())  # during training
    loop.end()
    rows = strict(path.read_text())
    assert rows == [
        {
            "iteration": i,
            "rollout/steps": 100.0 * (i + 1),
            "train/loss": i + 0.5,
            "rollout/episode_return": 7.0 if i else None,
            "train/kl": None,
        }
        for i in range(3)
    ]
    assert [text.count("\n") for text in seen] == [1, 2, 3]


@pytest.mark.parametrize("kind", [ppo_tf.MetricsCSV, ppo_tf.MetricsJSONL])
def test_a_resumed_file_equals_that_of_an_uninterrupted_run(tmp_path, kind):
    whole = loops.Loop(kind(tmp_path / "whole"))
    whole.run(0, 5).end()
    before = kind(tmp_path / "resumed")
    loop = loops.Loop(before).run(0, 2)
    state = json.loads(json.dumps(before.state()))
    loop.run(3, 4, train__loss=99.0)  # after the checkpoint; then the run is killed
    with open(tmp_path / "resumed", "ab") as file:
        file.write(b'{"half a l')
    after = kind(tmp_path / "resumed")
    after.load_state(state)
    loops.Loop(after).run(3, 5).end()
    assert (tmp_path / "resumed").read_text() == (tmp_path / "whole").read_text()


def test_a_log_that_appears_later_gets_a_column(tmp_path):
    path = tmp_path / "metrics.csv"
    loop = loops.Loop(ppo_tf.MetricsCSV(path)).run(0, 1)
    loop.run(2, 2, eval__score=7.5).run(3, 3, **{"note": 'a, "b"'}).run(4, 4).end()
    rows = read_csv(path)
    assert [row["eval/score"] for row in rows] == ["", "", "7.5", "", ""]
    assert [row["note"] for row in rows] == ["", "", "", 'a, "b"', ""]
    assert [row["train/loss"] for row in rows] == ["0.5", "1.5", "2.5", "3.5", "4.5"]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


@pytest.mark.parametrize("torn", [b"", b"3,4", b"\0" * 4096, b"\xff\xfe\n"])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_columns_added_before_or_after_a_checkpoint(tmp_path, at, torn):
    """One is added in iteration 1, one in 3; then the run is killed."""

    def run_on(callback, first, last):
        loop = loops.Loop(callback)
        for i in range(first, last + 1):
            logs = ({"a": i} if i >= 1 else {}) | ({"b": -i} if i >= 3 else {})
            loop.run(i, i, **logs)
            if i == at:
                yield json.loads(json.dumps(callback.state()))
        yield loop.end()

    list(run_on(ppo_tf.MetricsCSV(tmp_path / "whole"), 0, 4))
    state = next(states := run_on(ppo_tf.MetricsCSV(tmp_path / "resumed"), 0, 3))
    next(states)
    with open(tmp_path / "resumed", "ab") as file:
        file.write(torn)
    after = ppo_tf.MetricsCSV(tmp_path / "resumed")
    after.load_state(state)
    list(run_on(after, at + 1, 4))
    assert (tmp_path / "resumed").read_text() == (tmp_path / "whole").read_text()


@pytest.mark.parametrize("kind", [ppo_tf.MetricsCSV, ppo_tf.MetricsJSONL])
def test_a_second_run_of_the_same_object_overwrites_the_file(tmp_path, kind):
    callback = kind(tmp_path / "metrics")
    loops.Loop(callback).run(0, 4).end()
    loops.Loop(callback).run(0, 1).end()
    again = (tmp_path / "metrics").read_text()
    loops.Loop(kind(tmp_path / "metrics")).run(0, 1).end()
    assert again == (tmp_path / "metrics").read_text()


@contextlib.contextmanager
def room(size):
    """Limits the size of files in bytes, as if the disk were full beyond it.

    Not a fixture: the limit would still hold when pytest writes its own report to a file.
    """
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("kind", [ppo_tf.MetricsCSV, ppo_tf.MetricsJSONL])
def test_a_full_disk_names_the_file(tmp_path, kind):
    loop = loops.Loop(kind(tmp_path / "metrics"))
    with room(500):
        with pytest.raises(OSError, match=r"cannot write .*metrics: "):
            loop.run(0, 99)
        loop.end()


def test_a_full_disk_while_a_column_is_added_loses_no_row(tmp_path):
    path = tmp_path / "metrics.csv"
    loop = loops.Loop(ppo_tf.MetricsCSV(path)).run(0, 9)
    before = path.read_text()
    with room(len(before)):
        with pytest.raises(OSError, match=r"cannot write .*metrics\.csv: "):
            loop.run(10, 10, eval__score=1.0)
        loop.end()
    assert path.read_text() == before
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


def test_a_full_disk_while_a_column_is_dropped_names_the_file(tmp_path):
    path = tmp_path / "metrics.csv"
    before, after = ppo_tf.MetricsCSV(path), ppo_tf.MetricsCSV(path)
    loop = loops.Loop(before).run(0, 1)
    after.load_state(before.state())
    loop.run(2, 2, eval__score=1.0).end()
    text = path.read_text()
    with room(10), pytest.raises(OSError, match=r"cannot write .*metrics\.csv: "):
        loops.Loop(after)
    assert path.read_text() == text


class Killed(BaseException):
    """Ends the process, as far as a test can."""


class Kill(keras.callbacks.Callback):
    """Kills the run after an iteration; only what was written by then remains."""

    def __init__(self, after):
        super().__init__()
        self._after = after

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self._after:
            raise Killed


TIMES = ("time/seconds", "time/steps_per_second")


def run(folder, rollouts, kill=None):
    """Runs with all callbacks, from the newest checkpoint; returns the lines of advice."""
    learner, _ = loops.make_learner(optimizer=ppo_tf.default_optimizer(0.5))
    lines = []
    callbacks = [
        ppo_tf.MetricsCSV(folder / "metrics.csv"),
        ppo_tf.MetricsJSONL(folder / "metrics.jsonl"),
        ppo_tf.TensorBoardScalars(folder / "events", {"seed": 0}),
        ppo_tf.HealthAdvice(say=lines.append),
        *([] if kill is None else [Kill(kill)]),
    ]
    checkpoints = ppo_tf.Checkpoints(folder / "checkpoints", every=4 * loops.BATCH)
    data, total = loops.Data(rollouts), len(rollouts) * loops.BATCH
    try:
        ppo_tf.fit(learner, data, total_steps=total, callbacks=callbacks, checkpoints=checkpoints)
    except Killed:
        pass
    return lines


def test_a_killed_and_resumed_run_leaves_the_files_of_an_uninterrupted_one(tmp_path):
    learner, envs = loops.make_learner()
    collector = ppo_tf.VectorCollector(envs, learner.policy, loops.HORIZON)
    rollouts = [collector.collect() for _ in range(10)]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
    said = run(whole, rollouts)
    said_in_parts = [*run(parts, rollouts, kill=6), *run(parts, rollouts)]
    # A resumed run repeats the advice that the killed one gave after its checkpoint.
    assert said and set(said) == set(said_in_parts)

    def lines(folder):
        return without_times(strict((folder / "metrics.jsonl").read_text()))

    assert lines(parts) == lines(whole) and len(lines(whole)) == 10

    def table(folder):
        return without_times(read_csv(folder / "metrics.csv"))

    assert table(parts) == table(whole) and len(table(whole)) == 10

    def points(folder):
        events = EventAccumulator(str(folder / "events"), size_guidance={"tensors": 0}).Reload()
        tags = [tag for tag in events.Tags()["tensors"] if tag not in TIMES]
        return {tag: [(p.step, p.tensor_proto) for p in events.Tensors(tag)] for tag in tags}

    assert points(parts) == points(whole)
    assert [s for s, _ in points(whole)["train/loss"]] == list(
        range(loops.BATCH, 11 * loops.BATCH, loops.BATCH)
    )
