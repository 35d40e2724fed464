"""Files with random damage: passed over, or refused in one line; nothing elsewhere is touched."""

import json
import os
import shutil

import helpers
import hypothesis
import keras
import loops
import numpy as np
import odd
import pytest
from hypothesis import strategies as st

import ppo_tf
from ppo_tf.artefacts import exported
from ppo_tf.artefacts.metadata import METADATA
from ppo_tf.command import runs
from ppo_tf.command.sweeping import request
from ppo_tf.training.packing import pack, unpack

pytestmark = pytest.mark.skipif(os.name == "nt", reason="no pipes and links")


def flipped(content, flips):
    """The content with bits flipped: pairs (place, bits), the place wrapped around."""
    damaged = bytearray(content)
    for place, bits in flips:
        damaged[place % len(damaged)] ^= bits
    return bytes(damaged)


def spliced(content, start, end, middle):
    start, end = start % len(content), end % (len(content) + 1)
    return content[: min(start, end)] + middle + content[max(start, end) :]


PLACES = st.integers(0, 10**6)
BYTES = st.one_of(  # functions of a file's bytes
    st.lists(st.tuples(PLACES, st.integers(1, 255)), min_size=1, max_size=4).map(
        lambda flips: lambda content: flipped(content, flips)
    ),
    st.tuples(PLACES, PLACES, st.binary(max_size=20)).map(
        lambda splice: lambda content: spliced(content, *splice)
    ),
    st.binary(max_size=200).map(lambda new: lambda content: new),
    PLACES.map(lambda place: lambda content: content[: place % len(content)]),
)
KINDS = ("fifo", "folder", "link", "dangling", "device", "loop")


def put(kind, path, outside):
    """Puts something that is no file in the place of one."""
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        target = {"link": outside / "file", "dangling": "nowhere", "device": "/dev/zero"}
        path.symlink_to(target.get(kind, path))


def snapshot(folder):
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def outside(tmp_path):
    """A folder beside, of somebody else."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "file").write_text("somebody else's")
    return folder


# ---- checkpoints


class Nothing:
    """A collector that never collects."""

    horizon, num_envs = loops.HORIZON, loops.BATCH // loops.HORIZON

    def begin_episodes(self, iterations):
        pass


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """(learner, folder of a run with two checkpoints, the contents of both)."""
    folder = tmp_path_factory.mktemp("run")
    learner, envs = loops.make_learner()
    collector = ppo_tf.VectorCollector(envs, learner.policy, loops.HORIZON)
    checkpoints = ppo_tf.Checkpoints(folder / "checkpoints", every=loops.BATCH, run="mine")
    options = {"total_steps": 2 * loops.BATCH, "checkpoints": checkpoints}
    ppo_tf.fit(learner, collector, callbacks=callbacks(folder), **options)
    files = sorted((folder / "checkpoints").iterdir())
    return learner, folder, [file.read_bytes() for file in files]


class Stop(keras.callbacks.Callback):
    """Stops before the first iteration."""

    def on_train_begin(self, logs=None):
        self.model.stop_training = True


def callbacks(folder):
    return [ppo_tf.MetricsCSV(folder / "metrics.csv"), ppo_tf.TensorBoardScalars(folder)]


def resume(learned, folder, outside, damage):
    """Resumes a copy of the run whose newest checkpoint was damaged: 1 or 2, which one was used."""
    learner, run, _ = learned
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(run, folder)
    damage(max((folder / "checkpoints").iterdir()))
    before, lines = snapshot(outside), []
    checkpoints = ppo_tf.Checkpoints(folder / "checkpoints", run="mine", warn=lines.append)
    ppo_tf.fit(
        learner,
        Nothing(),
        total_steps=2 * loops.BATCH,
        callbacks=[*callbacks(folder), Stop()],
        checkpoints=checkpoints,
    )
    assert snapshot(outside) == before
    used = 2 - len(lines)
    assert learner.iterations >= used
    assert all("\n" not in line and len(line) < 1000 for line in lines)
    assert all(np.isfinite(array).all() for array in helpers.numbers(learner))
    return used


def check_bytes(learned, folder, outside, change):
    """A checkpoint of other bytes is never used."""
    newest = learned[2][1]
    damaged = change(newest)
    expected = 2 if damaged == newest else 1
    used = resume(learned, folder, outside, lambda path: path.write_bytes(damaged))
    assert used == learned[0].iterations == expected


@odd.few(30)
@hypothesis.given(BYTES)
def test_damaged_checkpoints_are_passed_over(learned, tmp_path, outside, change):
    check_bytes(learned, tmp_path / "run", outside, change)


@pytest.mark.slow
@odd.many(3000)
@hypothesis.given(BYTES)
def test_many_damaged_checkpoints_are_passed_over(learned, tmp_path, outside, change):
    check_bytes(learned, tmp_path / "run", outside, change)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_is_no_checkpoint(kind, learned, tmp_path, outside):
    def damage(path):
        put(kind, path, outside)

    assert resume(learned, tmp_path / "run", outside, damage) == 1


def test_swapped_checkpoints_are_passed_over(learned, tmp_path, outside):
    def damage(path):
        path.write_bytes(learned[2][0])

    assert resume(learned, tmp_path / "run", outside, damage) == 1


ARRAYS = st.builds(
    lambda shape, dtype, number: np.full(shape, number).astype(dtype),
    st.lists(st.integers(0, 4), max_size=3),
    st.sampled_from(["float32", "float64", "int32", "int64", "bool", "float16"]),
    st.sampled_from([0, 1, -1, 1e30, float("nan"), float("inf")]),
)
CRAFTED = st.tuples(PLACES, st.one_of(ARRAYS, odd.JSON, st.just({"../outside/file": 0})))


def check_crafted(learned, folder, outside, crafted):
    """One with a right digest: either one is used, and nothing outside the folder is touched."""
    place, new = crafted
    variables, values = unpack(learned[2][1])
    variables = dict(variables)
    if isinstance(new, np.ndarray):
        variables[sorted(variables)[place % len(variables)]] = new
    else:
        every = list(odd.places(values))
        values = odd.replaced(values, every[place % len(every)], new)
    used = resume(learned, folder, outside, lambda p: p.write_bytes(pack(variables, values)))
    assert used in (1, 2)


NO_WARNINGS = pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # NaN as an int


@NO_WARNINGS
@odd.few(30)
@hypothesis.given(CRAFTED)
def test_crafted_checkpoints_touch_nothing_else(learned, tmp_path, outside, crafted):
    check_crafted(learned, tmp_path / "run", outside, crafted)


@NO_WARNINGS
@pytest.mark.slow
@odd.many(3000)
@hypothesis.given(CRAFTED)
def test_many_crafted_checkpoints_touch_nothing_else(learned, tmp_path, outside, crafted):
    check_crafted(learned, tmp_path / "run", outside, crafted)


# ---- JSON


SWEEP = {
    "env": "CartPole-v1",
    "seeds": 2,
    "grid": {"epochs": [1, 2]},
    "search": {"learning_rate": [0.1, 0.2]},
    "trials": 3,
    "prune": True,
    "script": "train.py",
    "train_flags": ["--horizon=32"],
}
POLICY = {"env": "E-v0", "names": {"observations": {"": "observation"}, "actions": {"": "action"}}}
CONFIG = runs.make_config("0" * 16, "CartPole-v1", ppo_tf.presets.resolve("CartPole-v1", {}), {})


def read_policy(folder):
    exported.read_metadata(folder)
    exported._read_names(folder)


READERS = {  # name: (file, its contents, what reads it)
    "config": ("config.json", CONFIG, runs.read_config),
    "sweep": ("sweep.json", SWEEP, request.read),
    "policy": (str(METADATA), POLICY, read_policy),
}


def read(name, folder, outside, write):
    """Reads a file that `write` has damaged: whether it was taken."""
    file, contents, reader = READERS[name]
    shutil.rmtree(folder, ignore_errors=True)
    path = folder / file
    path.parent.mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"")
    path.write_text(json.dumps(contents, indent=2))
    reader(folder)
    write(path, json.dumps(contents, indent=2).encode())
    before = snapshot(outside)
    try:
        reader(folder)
    except ValueError as error:
        message = str(error)
        assert "\n" not in message and len(message) < 1000 and "Received: " in message, message
        taken = False
    else:
        taken = True
    assert snapshot(outside) == before
    return taken


def check_json(folder, outside, name, change, place, new):
    """Damaged bytes, and values of other types."""
    read(name, folder, outside, lambda path, content: path.write_bytes(change(content)))
    _, contents, _ = READERS[name]
    every = list(odd.places(contents))
    replaced = json.dumps(odd.replaced(contents, every[place % len(every)], new))
    read(name, folder, outside, lambda path, content: path.write_text(replaced))


DAMAGED = (st.sampled_from(list(READERS)), BYTES, PLACES, odd.JSON)


@odd.few(100)
@hypothesis.given(*DAMAGED)
def test_damaged_json_is_read_or_refused_in_one_line(tmp_path, outside, name, change, place, new):
    check_json(tmp_path / "folder", outside, name, change, place, new)


@pytest.mark.slow
@odd.many(10_000)
@hypothesis.given(*DAMAGED)
def test_much_damaged_json_is_read_or_refused_in_one_line(
    tmp_path, outside, name, change, place, new
):
    check_json(tmp_path / "folder", outside, name, change, place, new)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "link"])
@pytest.mark.parametrize("name", READERS)
def test_what_is_no_file_is_not_read(name, kind, tmp_path, outside):
    assert not read(name, tmp_path / "folder", outside, lambda path, _: put(kind, path, outside))
