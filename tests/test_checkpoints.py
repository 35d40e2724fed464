"""Checkpoint files: written completely or not at all, with damage detected."""

import errno
import hashlib
import io
import json
import os
import subprocess
import sys
import textwrap
import zipfile

import helpers
import keras
import loops
import numpy as np
import pytest
from gymnasium.spaces import Discrete
from train_command import DEADLY

import ppo_tf
from ppo_tf.support.files import write_atomically
from ppo_tf.training.checkpoints import learner_variables, restore_learner
from ppo_tf.training.packing import FORMAT, pack

pytestmark = pytest.mark.usefixtures("eager")

ARRAYS = {"0000/kernel": np.arange(6, dtype=np.float32).reshape(2, 3), "iterations": np.array(7)}
VALUES = {"run": {"recent": [[0.1, 3]], "seconds": 1.5}, "callbacks": {}}


def saved(folder, *steps, **options):
    """Checkpoints in a folder, one after each of the steps."""
    checkpoints = ppo_tf.Checkpoints(folder, **options)
    for count in steps:
        checkpoints.save(count, ARRAYS, {**VALUES, "at": count})
    return checkpoints


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def damage(path, change):
    path.write_bytes(change(path.read_bytes()))


def test_reading_returns_what_was_written(tmp_path):
    saved(tmp_path, 32)
    arrays, values = ppo_tf.Checkpoints(tmp_path).latest()
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], array)
        assert arrays[name].dtype == array.dtype
    assert values == {**VALUES, "at": 32, "steps": 32}


def test_without_a_file_there_is_nothing_to_resume_from(tmp_path):
    assert ppo_tf.Checkpoints(tmp_path / "new").latest() is None


def test_the_newest_and_the_best_are_kept(tmp_path):
    checkpoints = ppo_tf.Checkpoints(tmp_path, keep=2, monitor="score")
    for steps, score in (10, 1.0), (20, 5.0), (30, 2.0), (40, float("nan")), (50, 3.0):
        checkpoints.watch({"score": score})
        checkpoints.save(steps, ARRAYS, VALUES)
    assert names(tmp_path) == [checkpoints.path(steps).name for steps in (20, 40, 50)]
    # Another process knows which one was best.
    checkpoints = ppo_tf.Checkpoints(tmp_path, keep=2, monitor="score")
    checkpoints.latest()
    checkpoints.watch({"score": 4.0})
    checkpoints.save(60, ARRAYS, VALUES)
    assert names(tmp_path) == [checkpoints.path(steps).name for steps in (20, 50, 60)]
    # The scores of another log are not compared with those.
    checkpoints = ppo_tf.Checkpoints(tmp_path, keep=1, monitor="other")
    checkpoints.latest()
    for steps, score in (70, -2.0), (80, -3.0), (90, -4.0):
        checkpoints.watch({"other": score})
        checkpoints.save(steps, ARRAYS, VALUES)
    assert names(tmp_path) == [checkpoints.path(steps).name for steps in (70, 90)]


SIZE = 900  # minimum size in bytes of the file damaged in these ways
DAMAGE = {
    "empty": lambda content: b"",
    "cut in the first line": lambda content: content[:20],
    "cut in the arrays": lambda content: content[: len(content) // 2],
    "its last byte gone": lambda content: content[:-1],
    "a byte more": lambda content: content + b"\0",
    **{
        f"bit {8 * byte + 3} flipped": lambda content, byte=byte: (
            content[:byte] + bytes([content[byte] ^ 8]) + content[byte + 1 :]
        )
        for byte in (0, 8, 18, 20, 40, 90, 100, 300, SIZE - 1)
    },
    "zeros": lambda content: bytes(len(content)),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(name, tmp_path):
    checkpoints = saved(tmp_path, 32, 64)
    path = checkpoints.path(64)
    assert path.stat().st_size > SIZE
    damage(path, DAMAGE[name])
    with pytest.warns(UserWarning) as caught:
        _, values = ppo_tf.Checkpoints(tmp_path).latest()
    assert values["at"] == 32
    (message,) = [str(w.message) for w in caught]
    assert message.startswith(f"checkpoint {path} is passed over: its ")


def test_if_all_are_damaged_the_run_does_not_silently_start_over(tmp_path):
    checkpoints = saved(tmp_path, 32)
    damage(checkpoints.path(32), DAMAGE["zeros"])
    lines = []
    with pytest.raises(ValueError, match="No checkpoint can be used; the newest: its"):
        ppo_tf.Checkpoints(tmp_path, warn=lines.append).latest()
    assert len(lines) == 1


def test_checkpoints_contain_no_pickle(tmp_path):
    path = saved(tmp_path, 32).path(32)
    payload = path.read_bytes().split(b"\n", 1)[1]
    (tmp_path / "arrays.npz").write_bytes(payload)
    with np.load(tmp_path / "arrays.npz", allow_pickle=False) as arrays:
        assert json.loads(arrays["values.json"].tobytes())["at"] == 32
    with pytest.raises(ValueError, match="allow_pickle"):
        saved(tmp_path).save(64, {"object": np.array([object()])}, VALUES)


# ---- crafted and mixed up files, whose digests are right


def rewrite(path, archive=None, arrays=ARRAYS, **values):
    """Writes a checkpoint with a right digest and any contents."""
    if archive is None:
        state = {**VALUES, "id": "", "steps": 64, "best": {}, "at": 64, **values}
        path.write_bytes(pack(arrays, state))
    else:
        digest = hashlib.sha256(archive).hexdigest()
        path.write_bytes(f"ppo_tf checkpoint {FORMAT} sha256={digest}\n".encode() + archive)


def npz(compression=zipfile.ZIP_STORED, **members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return buffer.getvalue()


def npy(header):
    """The bytes of an .npy with any header and 8 bytes of data."""
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text + bytes(8)


def header(descr="'<f4'", shape="(2,)"):
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}"


CRAFTED = {
    "a zip bomb": lambda p: rewrite(p, npz(zipfile.ZIP_DEFLATED, a=bytes(10**7))),
    "no zip": lambda p: rewrite(p, b"PK"),
    "an array beyond memory": lambda p: rewrite(p, npz(a=npy(header(shape="(1000000000000,)")))),
    "a negative shape": lambda p: rewrite(p, npz(a=npy(header(shape="(-1, -2)")))),
    "a pickle": lambda p: rewrite(p, npz(a=npy(header(descr="'|O'", shape="(1,)")))),
    "a header of code": lambda p: rewrite(p, npz(a=npy("__import__('os').getcwd()"))),
    "a deep header": lambda p: rewrite(p, npz(a=npy("(" * 90 + ")" * 90))),
    "no values": lambda p: rewrite(p, npz(a=npy(header()))),
    "values that are a list": lambda p: p.write_bytes(pack(ARRAYS, ["a"])),
    "a NaN": lambda p: rewrite(p, arrays={"a": np.array([np.nan])}),
    "another run": lambda p: rewrite(p, id="another"),
    "another step": lambda p: rewrite(p, steps=96),
    "a step that is no number": lambda p: rewrite(p, steps="64"),
    "a best one that is a list": lambda p: rewrite(p, best=[1]),
    "a best one elsewhere": lambda p: rewrite(p, best={"steps": "/", "score": 1, "monitor": "m"}),
    "a best score of NaN": lambda p: rewrite(p, best={"steps": 1, "score": None, "monitor": "m"}),
    "a folder": lambda p: (p.unlink(), p.mkdir()),
    "a pipe": lambda p: (p.unlink(), os.mkfifo(p)),
    "a dangling link": lambda p: (p.unlink(), p.symlink_to("nowhere")),
    "a link": lambda p: p.rename(p.with_name("a")).parent and p.symlink_to("a"),
    "the one before, copied": lambda p: p.write_bytes(p.with_name(names(p.parent)[0]).read_bytes()),
}


@pytest.mark.skipif(os.name == "nt", reason="no links and pipes")
@pytest.mark.parametrize("name", CRAFTED)
def test_a_crafted_or_mixed_up_checkpoint_is_passed_over(name, tmp_path):
    checkpoints = saved(tmp_path, 32, 64)
    path = checkpoints.path(64)
    CRAFTED[name](path)
    lines = []
    again = ppo_tf.Checkpoints(tmp_path, keep=1, warn=lines.append)
    _, values = again.latest()
    assert values["at"] == 32
    (line,) = lines
    assert line.startswith(f"checkpoint {path} is passed over: ") and "\n" not in line
    again.save(64, ARRAYS, {**VALUES, "at": 65})  # in its place
    assert ppo_tf.Checkpoints(tmp_path).latest()[1]["at"] == 65


def test_a_checkpoint_of_another_run_is_passed_over(tmp_path):
    saved(tmp_path, 32, run="one")
    saved(tmp_path, 64, run="two")
    lines = []
    one = ppo_tf.Checkpoints(tmp_path, run="one", warn=lines.append)
    assert one.latest()[1]["at"] == 32
    assert len(lines) == 1 and lines[0].endswith("it is of the run 'two', this one is 'one'")


# ---- numbers that are not finite


def test_a_variable_that_is_not_finite_is_named_and_nothing_is_written(tmp_path):
    checkpoints = saved(tmp_path, 32, keep=1)
    for value in (np.nan, np.inf):
        with pytest.raises(ppo_tf.NonFiniteError, match="the variable a is NaN or infinite"):
            checkpoints.save(64, {**ARRAYS, "a": np.array([1.0, value])}, VALUES)
    assert names(tmp_path) == [checkpoints.path(32).name]


def test_what_is_infinite_from_the_start_is_saved_and_read(tmp_path):
    start = {**ARRAYS, "best": np.array([-np.inf, 0.0])}
    for best in ([-np.inf, 1.0], [2.0, 1.0]):
        checkpoints = ppo_tf.Checkpoints(tmp_path)
        checkpoints.begin(start)
        checkpoints.save(32, {**start, "best": np.array(best)}, VALUES)
        again = ppo_tf.Checkpoints(tmp_path)
        again.begin(start)
        np.testing.assert_array_equal(again.latest()[0]["best"], best)
    with pytest.raises(ppo_tf.NonFiniteError, match="best"):
        checkpoints.save(64, {**start, "best": np.array([-np.inf, np.inf])}, VALUES)


def test_a_run_ends_before_it_saves_what_a_callback_spoiled(tmp_path):
    class Spoil(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                self.model.trainable_variables[0].assign_add(
                    np.full(self.model.trainable_variables[0].shape, np.nan)
                )

    learner, envs = loops.make_learner()
    checkpoints = ppo_tf.Checkpoints(tmp_path, every=loops.BATCH, keep=1)
    options = {"horizon": loops.HORIZON, "callbacks": [Spoil()], "checkpoints": checkpoints}
    with pytest.raises(ppo_tf.NonFiniteError, match="after 64 steps the variable policy/"):
        ppo_tf.fit(learner, envs, total_steps=3 * loops.BATCH, **options)
    assert names(tmp_path) == [checkpoints.path(loops.BATCH).name]


# ---- a learner's variables


def make_learner(units=8):
    envs = helpers.spaces(helpers.box(3), Discrete(2))
    return ppo_tf.Learner(
        helpers.make_policy(envs, hidden_sizes=(units,)),
        helpers.make_critic(envs),
        loss=ppo_tf.KLPenalty(1.0, target=0.01),
        reward_transformation=ppo_tf.RewardScaling(),
        epochs=1,
        minibatch_size=8,
        jit_compile=False,
    )


@pytest.fixture(scope="module")
def learned():
    """A learner after an update."""
    learner = make_learner()
    envs = helpers.spaces(helpers.box(3), Discrete(2))
    learner.update(helpers.trajectory(envs, learner.policy))
    return learner


def test_every_variable_that_an_update_changes_is_saved(learned):
    fresh = make_learner()
    fresh.begin_episodes(2)
    before = [a.copy() for a in helpers.numbers(fresh)]
    restore_learner(fresh, learner_variables(learned))
    assert fresh.iterations == 1
    for a, b in zip(helpers.numbers(fresh), helpers.numbers(learned), strict=True):
        np.testing.assert_array_equal(a, b)
    # Each owner separately, in case `variables` forgets one.
    for holder in (
        learned.policy,
        learned.critic,
        learned.optimizer,
        learned.loss,
        learned.reward_transformation,
    ):
        known = {id(variable) for variable in learned.variables}
        assert holder.variables
        assert all(id(variable) in known for variable in holder.variables)
    changed = [
        not np.array_equal(a, b) for a, b in zip(before, helpers.numbers(fresh), strict=True)
    ]
    assert sum(changed) > len(changed) / 2


@pytest.mark.parametrize("units", [4, None])
def test_the_variables_of_another_learner_are_refused_and_nothing_changes(units, learned):
    other = make_learner(units or 8)
    if units is None:  # no variable for a running return
        other.reward_transformation = None
    else:
        other.begin_episodes(2)
    before = [a.copy() for a in helpers.numbers(other)]
    with pytest.raises(ValueError, match="of another learner"):
        restore_learner(other, learner_variables(learned))
    for a, b in zip(helpers.numbers(other), before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("lost", "added", "message"),
    [
        ("policy/dense/bias", {}, "its policy/dense/bias is missing. Received: float32 (8,)"),
        (
            "",
            {"critic/b": np.zeros(3)},
            "its critic/b is float64 (3,). Received: a learner without",
        ),
        ("policy/dense/bias", {"policy/a": np.zeros(8, np.float32)}, "its policy/dense/bias is"),
    ],
)
def test_the_variable_that_differs_is_named(lost, added, message, learned):
    other = make_learner()
    other.begin_episodes(2)
    arrays = learner_variables(learned) | added
    arrays.pop(lost, None)
    with pytest.raises(ValueError) as caught:
        restore_learner(other, arrays)
    assert f"The checkpoint is of another learner: {message}" in str(caught.value)


def test_weights_are_never_assigned_to_other_variables_of_the_same_shape(learned):
    """A critic whose layers have other names, in which all shapes fit."""
    inputs = keras.Input((3,), name="observation")
    features = keras.layers.Dense(8, name="mine")(inputs)
    values = keras.ops.squeeze(keras.layers.Dense(1, name="value")(features), -1)
    one = make_learner()
    one.critic = keras.Model(inputs, values)
    with pytest.raises(ValueError, match="its critic/mine/kernel is missing"):
        restore_learner(one, learner_variables(learned))


def test_a_collector_without_begin_episodes_is_refused(learned, tmp_path):
    class Data:
        horizon, num_envs = 8, 2

        def collect(self):
            raise AssertionError

    with pytest.raises(ValueError, match="method begin_episodes"):
        ppo_tf.fit(learned, Data(), total_steps=16, checkpoints=ppo_tf.Checkpoints(tmp_path))


@pytest.mark.parametrize(("name", "value"), [("every", -1), ("keep", 0)])
def test_an_argument_out_of_range_is_an_error(name, value):
    with pytest.raises(ValueError, match=rf"{name} must be .* Received: {name}={value}"):
        ppo_tf.Checkpoints("unused", **{name: value})


# ---- crashes and full disks

KILLED_AT = DEADLY + textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from ppo_tf.support import files

    path, at = Path(sys.argv[1]), int(sys.argv[2])
    files.os.fsync, files.os.replace = deadly(os.fsync), deadly(os.replace)
    files.write_atomically(path, b"new" * 1000)
    """
)


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
@pytest.mark.parametrize(("at", "expected"), [(1, b"old"), (2, b"old"), (3, b"new" * 1000)])
def test_a_kill_during_writing_leaves_the_old_file_or_the_new_one(at, expected, tmp_path):
    """Killed before the first sync, the rename, or the folder's sync."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    process = subprocess.run([sys.executable, "-c", KILLED_AT, str(path), str(at)], check=False)
    assert process.returncode == -9
    assert path.read_bytes() == expected


def test_the_next_checkpoint_deletes_what_a_crash_left_half_written(tmp_path):
    (tmp_path / ".step-000000000016.checkpoint-abc.unfinished").write_bytes(b"half")
    checkpoints = saved(tmp_path, 32)
    assert names(tmp_path) == [checkpoints.path(32).name]


def test_an_error_while_writing_leaves_what_was_there(tmp_path, monkeypatch):
    checkpoints = saved(tmp_path, 32)
    before = checkpoints.path(32).read_bytes()

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("ppo_tf.support.files.os.fsync", full)
    with pytest.raises(OSError) as caught:
        checkpoints.save(64, ARRAYS, VALUES)
    assert str(caught.value) == (
        f"cannot write the checkpoint {checkpoints.path(64)}: No space left on device"
    )
    assert names(tmp_path) == [checkpoints.path(32).name]
    assert checkpoints.path(32).read_bytes() == before


def test_a_file_is_replaced_as_a_whole(tmp_path):
    write_atomically(tmp_path / "file", b"one")
    write_atomically(tmp_path / "file", b"two")
    assert (tmp_path / "file").read_bytes() == b"two"
    assert names(tmp_path) == ["file"]
