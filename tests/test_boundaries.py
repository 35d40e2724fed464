"""Where a run begins new episodes: by steps, by the clock, and at the places of an earlier run."""

import json
import shutil

import helpers
import keras
import loops
import numpy as np
import pytest
from loops import BATCH
from train_command import read_csv, without_times

import ppo_tf
from ppo_tf.command import runs
from ppo_tf.support.json_files import write_json
from ppo_tf.training.boundaries import Boundaries


class Clock:
    """Tells the time that it is given."""

    def __init__(self):
        self.minutes = 0.0

    def __call__(self):
        return 60.0 * self.minutes


def walk(boundaries, clock=None, iterations=10, step=32, episodes=lambda i: i, minutes=1.0):
    """Passes iterations of `step` steps, which take `minutes` each; returns {steps: reason}."""
    boundaries.begin(4, iterations * step, 0, 0)
    found = {}
    for i, steps in enumerate(range(step, iterations * step + 1, step), 1):
        if clock is not None:
            clock.minutes += minutes
        if reason := boundaries.due(steps, steps - step):
            boundaries.passed(steps, reason, episodes(i))
            found[steps] = reason
    return found


def test_by_steps_there_is_one_whenever_a_multiple_is_passed():
    assert list(walk(Boundaries(100), iterations=12)) == [128, 224, 320]
    assert list(walk(Boundaries(64), iterations=4)) == [64, 128]
    assert walk(Boundaries(0)) == {}


@pytest.mark.parametrize("num_envs", [1, 8, 1024])
def test_the_default_counts_the_steps_of_each_environment(num_envs):
    boundaries = Boundaries()
    boundaries.begin(num_envs, 10**9, 0, 0)
    assert boundaries.every == 12_500 * num_envs
    settings = ppo_tf.presets.resolve("Pendulum-v1", {"num_envs": num_envs})
    assert settings["checkpoint_every"] == (12_500 * num_envs, "default")


def test_a_given_number_is_of_all_environments():
    settings = ppo_tf.presets.resolve("Pendulum-v1", {"num_envs": 64, "checkpoint_every": 1000})
    assert settings["checkpoint_every"] == (1000, "flag")
    settings = ppo_tf.presets.resolve("Pendulum-v1", {"num_envs": 64, "checkpoint_every": None})
    assert settings["checkpoint_every"] == (800_000, "flag")


def test_by_time_the_next_iteration_ends_with_one_and_only_its_place_is_recorded():
    clock = Clock()
    boundaries = Boundaries(160, minutes=2.5, clock=clock)
    found = walk(boundaries, clock)
    assert found == {96: "time", 160: "steps", 256: "time", 320: "steps"}
    assert boundaries.places == [96, 256] and boundaries.known == [96, 256, 320]


def test_a_run_given_the_places_has_the_same_boundaries_whatever_its_clock():
    one, other = Clock(), Clock()
    first = Boundaries(160, minutes=2.5, clock=one)
    found = walk(first, one)
    second = Boundaries(160, minutes=2.5, at=first.known, clock=other)
    again = walk(second, other, minutes=100.0)
    assert again.keys() == found.keys() and second.known == first.known


def test_after_the_last_place_the_clock_counts_again():
    clock = Clock()
    found = walk(Boundaries(0, minutes=0.5, at=[70, 10**9], clock=clock), clock, iterations=5)
    assert found == {96: "place", 128: "time", 160: "time"}  # the place beyond the end is left out


@pytest.mark.parametrize("options", [{"minutes": -1}, {"minutes": float("nan")}, {"at": [0]}])
def test_an_argument_out_of_range_is_an_error(options):
    (name,) = options
    with pytest.raises(ValueError, match=rf"{name} must be .* Received: {name}="):
        Boundaries(**options)


# ---- episodes that never finish


def advice(every=96, minutes=0.0, episodes=lambda i: 0, **options):
    clock, lines = Clock(), []
    boundaries = Boundaries(every, minutes, say=lines.append, clock=clock, **options)
    walk(boundaries, clock, episodes=episodes)
    return lines


def test_if_no_episode_finishes_between_two_one_line_says_what_to_raise():
    (line,) = advice()
    assert line.startswith("no episode finished in 24 steps of each environment")
    assert line.endswith("raise `checkpoint_every`")
    (line,) = advice(every=0, minutes=3)
    assert line.endswith("raise `checkpoint_minutes`")
    assert len(advice(episodes=lambda i: min(i, 3))) == 1  # later in the run


def test_nothing_is_said_if_episodes_finish_or_were_cut_for_another_reason():
    assert advice(episodes=lambda i: i) == []
    assert advice(every=0, at=[32, 64, 96]) == []
    # The clock cut those that the next checkpoint by steps would have seen finish.
    assert advice(every=160, minutes=3, episodes=lambda i: i // 3) == []


def test_a_resumed_run_does_not_say_it_again():
    lines = []
    first = Boundaries(32, say=lines.append)
    walk(first, episodes=lambda i: 0)
    second = Boundaries(32, say=lines.append)
    second.load_state(json.loads(json.dumps(first.state())))
    walk(second, episodes=lambda i: 0)
    assert len(lines) == 1


# ---- runs

EVERY = 4 * BATCH


class Tick(keras.callbacks.Callback):
    """Lets each iteration take its minutes, and ends the run with an exception in one of them."""

    def __init__(self, clock, minutes, last=None):
        super().__init__()
        self._clock, self._minutes, self._last = clock, minutes, last

    def on_epoch_end(self, epoch, logs=None):
        self._clock.minutes += self._minutes
        if epoch == self._last:
            raise KeyboardInterrupt


def train(folder, minutes, last=None, at=()):
    """Trains nine iterations by a clock, from the newest checkpoint; returns (weights, rows)."""
    clock = Clock()
    learner, envs = loops.make_learner("CartPole-v1")
    checkpoints = ppo_tf.Checkpoints(
        folder / "checkpoints", every=EVERY, minutes=2, at=at, clock=clock, warn=lambda line: None
    )
    callbacks = [ppo_tf.MetricsCSV(folder / "metrics.csv"), Tick(clock, minutes, last)]
    options = {"callbacks": callbacks, "checkpoints": checkpoints}
    try:
        ppo_tf.fit(learner, envs, total_steps=9 * BATCH, horizon=loops.HORIZON, **options)
    except KeyboardInterrupt:
        assert last is not None
    assert checkpoints.boundaries.known == known(folder)  # in the file as in memory
    weights = [weight.tolist() for weight in helpers.numbers(learner)]
    return weights, without_times(read_csv(folder / "metrics.csv"))


def known(folder):
    checkpoints = ppo_tf.Checkpoints(folder / "checkpoints", every=EVERY, warn=lambda line: None)
    _, values = checkpoints.latest()
    checkpoints.boundaries.begin(4, 10**9, values["steps"], 0)
    return checkpoints.boundaries.known


PLACES = [2 * BATCH, 6 * BATCH, 9 * BATCH]


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The folder of a run killed in iteration 7: checkpoints after 2, by time, 4 and 6, by time."""
    folder = tmp_path_factory.mktemp("killed")
    train(folder, 1.0, last=6)
    assert known(folder) == PLACES[:2]
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The result of an uninterrupted run that is given the places, by another clock."""
    return train(tmp_path_factory.mktemp("whole"), 100.0, at=PLACES)


@pytest.mark.parametrize("damage", [False, True], ids=["sound", "damaged"])
def test_a_killed_and_resumed_run_equals_an_uninterrupted_one_given_its_places(
    damage, killed, whole, tmp_path
):
    """Also if its newest checkpoint is damaged: there was a boundary at it."""
    folder = shutil.copytree(killed, tmp_path / "parts")
    if damage:
        path = ppo_tf.Checkpoints(folder / "checkpoints").path(6 * BATCH)
        path.write_bytes(path.read_bytes()[:-1])
    assert train(folder, 0.1) == whole
    assert known(folder) == PLACES


def test_only_a_checkpoint_of_this_run_is_a_boundary(tmp_path):
    lines = []
    for run, steps in ("one", 10), ("one", 20), ("two", 30):
        ppo_tf.Checkpoints(tmp_path, run=run).save(steps, {"iterations": np.array(1)}, {})
    checkpoints = ppo_tf.Checkpoints(tmp_path, run="one", warn=lines.append)
    checkpoints.path(20).write_bytes(b"damaged")
    checkpoints.path(40).mkdir()
    checkpoints.latest()
    assert checkpoints.boundaries.at == [20, 40] and len(lines) == 3


# ---- config.json


def config_of(tmp_path, boundaries, total_steps=200, **given):
    given = {"total_steps": total_steps, "num_envs": 2, "horizon": 16, **given}
    settings = ppo_tf.presets.resolve("CartPole-v1", given)
    config = runs.make_config("0" * 16, "CartPole-v1", settings, {}, boundaries=boundaries)
    write_json(tmp_path / "config.json", config)


def repeated(tmp_path, **given):
    plan = runs.plan(None, given, config=str(tmp_path), logdir=str(tmp_path / "new"))
    return {name: setting.value for name, setting in plan.settings.items()}


def test_a_config_brings_its_boundaries(tmp_path):
    config_of(tmp_path, [96, 192])  # the last one is the end: six iterations of 32 steps
    assert repeated(tmp_path)["checkpoint_at"] == (96, 192)
    assert repeated(tmp_path, seed=1)["checkpoint_at"] == (96, 192)
    assert repeated(tmp_path, total_steps=400)["checkpoint_at"] == (96,)
    assert repeated(tmp_path, checkpoint_minutes=1.0)["checkpoint_at"] == ()
    assert repeated(tmp_path, checkpoint_at=(64,))["checkpoint_at"] == (64,)


def test_a_default_from_a_config_follows_other_environments_but_a_given_number_stays(tmp_path):
    config_of(tmp_path, [])
    assert repeated(tmp_path)["checkpoint_every"] == 25_000
    assert repeated(tmp_path, num_envs=64)["checkpoint_every"] == 800_000
    config_of(tmp_path, [], checkpoint_every=25_000)
    assert repeated(tmp_path, num_envs=64)["checkpoint_every"] == 25_000
