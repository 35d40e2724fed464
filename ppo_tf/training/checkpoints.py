"""Checkpoints: all that a run needs to resume, in one file, without pickle.

A file is a line of text, `ppo_tf checkpoint 4 sha256=...`, followed by the bytes with that digest:
a NumPy .npz of the learner's variables and, as JSON, the state around them, with the run's id and
the steps so far. It is written under a temporary name, synced to disk and renamed, so a crash at
any moment leaves only whole files. What is read is checked before it is used; see `packing`.
"""

from __future__ import annotations

import itertools
import os
import re
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import keras
import numpy as np

from ppo_tf.learning.learner import Learner
from ppo_tf.support.checks import check_at_least_one
from ppo_tf.support.files import naming, read_regular, reason_of, write_atomically
from ppo_tf.support.folders import remove_link
from ppo_tf.support.schema import COUNT, NUMBER, OBJECT, TEXT, check
from ppo_tf.support.telling import tell
from ppo_tf.training.boundaries import Boundaries
from ppo_tf.training.packing import DamagedCheckpoint, State, pack, unpack
from ppo_tf.types import NonFiniteError

_OTHER_BYTES = 64 * 2**20  # room for the state around the variables, which takes some kB
_VALUES = {"id": TEXT, "steps": COUNT, "best": OBJECT, "boundaries": OBJECT}
_BEST = {"steps": COUNT, "score": NUMBER, "monitor": TEXT}

T = TypeVar("T")


class Checkpoints:
    """The checkpoints of a run: when to write one, which to keep, which to resume from.

    Args:
        folder: folder of the files, created when the first one is written.
        every: environment steps between checkpoints; None: 12,500 of each environment, so that long
            episodes have time to finish; 0: none by steps.
        minutes: minutes after which the next iteration ends with a checkpoint, so that a killed run
            loses no more; 0: none by time. The places are recorded.
        at: environment steps of further checkpoints, such as an earlier run's `boundaries.known`;
            there are none by time before the last of these.
        keep: number of newest checkpoints to keep.
        monitor: log of `fit` whose highest value makes a checkpoint the best, which is kept too.
        run: id of the run; checkpoints with another one are passed over.
        warn: called with one line about each file that is passed over.
        say: called with one line if no episode finishes between two checkpoints.
        on_save: called after each checkpoint.
        clock: returns seconds.

    Attributes:
        boundaries: when a checkpoint is due, and where there have been some.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        every: int | None = None,
        minutes: float = 5.0,
        at: Iterable[int] = (),
        keep: int = 3,
        monitor: str = "rollout/episode_return",
        run: str = "",
        warn: Callable[[str], Any] = warnings.warn,
        say: Callable[[str], Any] = tell,
        on_save: Callable[[], Any] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ):
        check_at_least_one(keep=keep)
        self.folder = Path(folder)
        self.boundaries = Boundaries(every, minutes, at, say, clock)
        self.keep = keep
        self.monitor = monitor
        self.run = run
        self._warn = warn
        self._on_save = on_save
        self._linked = self.folder.is_symlink()  # by the user; later ones are not followed
        self._start: dict[str, np.ndarray] = {}
        self._best: dict[str, Any] = {}  # "steps" and "score" of the best one, and its "monitor"
        self._seen: float | None = None  # last value of the monitored log since the last checkpoint

    def begin(self, variables: dict[str, np.ndarray]) -> None:
        """Remembers which variables start with infinities; these may have some later."""
        self._start = {}
        self._start = {n: array for n, array in variables.items() if self._non_finite({n: array})}

    def watch(self, logs: dict[str, Any]) -> None:
        """Remembers the monitored value of an iteration's logs, if there is one."""
        value = logs.get(self.monitor)
        if value is not None and np.isfinite(value):
            self._seen = float(value)

    def path(self, steps: int) -> Path:
        """Returns the path of the checkpoint after `steps` environment steps."""
        return self.folder / f"step-{steps:012d}.checkpoint"

    def save(self, steps: int, variables: dict[str, np.ndarray], values: dict[str, Any]) -> Path:
        """Writes a checkpoint, then deletes all but the newest ones and the best.

        Args:
            steps: environment steps so far.
            variables: arrays by name.
            values: JSON values by name.

        Raises:
            NonFiniteError: a variable is NaN or infinite, but was not at the start.
            OSError: it can't be written; in both cases earlier checkpoints stay as they were.
        """
        if bad := self._non_finite(variables):
            raise NonFiniteError(
                f"after {steps:,} steps the variable {bad} is NaN or infinite: "
                "no checkpoint is written, and earlier ones stay"
            )
        if self._seen is not None and self._seen >= self._best.get("score", -np.inf):
            self._best = {"steps": steps, "score": self._seen, "monitor": self.monitor}
        self._seen = None
        path = self.path(steps)
        bound = {"id": self.run, "steps": steps, "best": self._best}
        bound["boundaries"] = self.boundaries.state()
        content = pack(variables, {**values, **bound})
        with naming(f"the checkpoint {path}"):
            if not self._linked:
                remove_link(self.folder)
            self.folder.mkdir(parents=True, exist_ok=True)
            if path.is_dir() and not path.is_symlink():
                path.rename(_free_name(path))
            write_atomically(path, content)
        self._prune(steps)
        self._on_save()
        return path

    def latest(self) -> State | None:
        """Returns the newest usable checkpoint as (variables, values), or None if there is none.

        Raises:
            ValueError: see `restore`.
        """
        return self.restore(lambda variables, values: (variables, values))

    def restore(
        self,
        load: Callable[[dict[str, np.ndarray], dict[str, Any]], T],
        most: int | None = None,
    ) -> T | None:
        """Loads the newest usable checkpoint.

        One that is damaged, can't be read, is of another run or step, or does not load is named in
        a warning, and the one before it is used.

        Args:
            load: function of variables and values. It raises an error if they do not fit.
            most: size of the variables in bytes; a much larger file is not read.

        Returns:
            What `load` returned; None if there are no checkpoints.

        Raises:
            ValueError: there are checkpoints, but none can be used.
        """
        reason = ""
        damaged: list[int] = []
        for path in sorted(self.folder.glob("step-*.checkpoint"), reverse=True):
            try:
                variables, values, best, boundaries = self._read(path, most)
                loaded = load(variables, values)
                self.boundaries.load_state(boundaries, damaged)
            except Exception as error:  # whatever the damage leads to
                why = reason_of(error)
                self._warn(f"checkpoint {path} is passed over: {why}")
                reason = reason or why
                if isinstance(error, DamagedCheckpoint | OSError):  # not another run's
                    damaged += _steps_in(path.name)
                continue
            # Scores from different logs can't be compared.
            self._best = best if best.get("monitor") == self.monitor else {}
            self._seen = None
            return loaded
        if reason:
            raise ValueError(
                f"No checkpoint can be used; the newest: {reason}. Received: folder={self.folder}"
            )
        return None

    def _read(
        self, path: Path, most: int | None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Returns the variables, the values, which checkpoint was best so far, the boundaries."""
        room = 2**40 if most is None else 2 * most + _OTHER_BYTES
        variables, values = unpack(read_regular(path, room))
        check(values, _VALUES, "its state")
        run, steps, best = values.pop("id"), values["steps"], values.pop("best")
        if best:
            check(best, _BEST, "its state.best")
        if run != self.run:
            raise ValueError(f"it is of the run {run!r}, this one is {self.run!r}")
        if bad := self._non_finite(variables):
            raise DamagedCheckpoint(f"its {bad!a} has a NaN or an infinity")
        if path.name != self.path(steps).name:
            raise ValueError(f"it was written after {steps} steps")
        return variables, values, best, values.pop("boundaries")

    def _non_finite(self, variables: dict[str, np.ndarray]) -> str | None:
        """Returns the first variable with numbers that are not finite, but were at the start."""
        for name, array in variables.items():
            if array.dtype.kind != "f":
                continue
            bad = ~np.isfinite(array)
            if name in self._start and self._start[name].shape == array.shape:
                bad &= np.isfinite(self._start[name])
            if bad.any():
                return name
        return None

    def _prune(self, steps: int) -> None:
        """Deletes checkpoints no longer needed, and files that a crash left half written."""
        best = self.path(self._best["steps"]) if self._best else None
        paths = sorted(self.folder.glob("step-*.checkpoint"))
        newest = [path for path in paths if path <= self.path(steps)][-self.keep :]
        old = [path for path in paths if path not in newest and path != best]
        for path in [*old, *self.folder.glob(".*.unfinished")]:
            if path.is_symlink() or not path.is_dir():
                path.unlink()


def learner_variables(learner: Learner) -> dict[str, np.ndarray]:
    """Returns everything that an update changes as arrays by name, and `iterations`."""
    variables = {
        name: np.array(keras.ops.convert_to_numpy(variable))
        for name, variable in learner.named_variables.items()
    }
    return {**variables, "iterations": np.array(learner.iterations)}


def restore_learner(learner: Learner, arrays: dict[str, np.ndarray]) -> None:
    """Restores what `learner_variables` returned.

    Raises:
        ValueError: see `check_arrays`. The learner stays as it is.
    """
    check_arrays(learner, arrays)
    for name, variable in learner.named_variables.items():
        variable.assign(arrays[name])
    learner.iterations = int(arrays["iterations"])


def check_arrays(learner: Learner, arrays: dict[str, np.ndarray], least: int = 0) -> None:
    """Checks that arrays are a learner's, and of `least` iterations at least.

    Raises:
        ValueError: the arrays are another learner's; the message names the first variable that
            differs.
    """
    variables = learner.named_variables
    for name in dict.fromkeys([*variables, *arrays]):  # models first, what depends on them last
        if name == "iterations":
            continue
        there, here = "missing", "a learner without it"
        if name in arrays:
            there = f"{arrays[name].dtype} {arrays[name].shape}"
        if name in variables:
            dtype = keras.backend.standardize_dtype(variables[name].dtype)
            here = f"{dtype} {tuple(variables[name].shape)}"
        if there != here:
            raise ValueError(
                f"The checkpoint is of another learner: its {name} is {there}. Received: {here}"
            )
    count = arrays.get("iterations", np.array(""))
    what = f"{count.dtype} {count.shape}" if count.shape or count.dtype != np.int64 else int(count)
    if not isinstance(what, int) or what < least:
        raise ValueError(
            f"The checkpoint's iterations must be a count of at least {least}. "
            f"Received: iterations={what}"
        )


def _steps_in(name: str) -> list[int]:
    """Returns the steps in a checkpoint's name, as a list; empty if it has none."""
    found = re.fullmatch(r"step-(\d{1,18})\.checkpoint", name)
    return [int(found[1])] if found else []


def _free_name(path: Path) -> Path:
    """Returns a free name for a folder that is in the way."""
    names = (path.with_name(f"{path.name}.folder{i}") for i in itertools.count())
    return next(name for name in names if not name.exists())
