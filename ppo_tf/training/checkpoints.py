"""Checkpoints: all that a run needs to resume, in one file, without pickle.

A file is a line of text, `ppo_tf checkpoint 2 sha256=...`, followed by the bytes with that digest:
a NumPy .npz of the learner's variables and, as JSON, the state around them. It is written under a
temporary name, synced to disk and renamed, so a crash at any moment leaves only whole files.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from ppo_tf.callbacks.logs import passes_multiple
from ppo_tf.learning.learner import Learner
from ppo_tf.support.files import naming, write_atomically

FORMAT = 2  # format 1 identified variables by their order
_VALUES = "values.json"  # the array of the .npz with the JSON text, as bytes

State = tuple[dict[str, np.ndarray], dict[str, Any]]  # variables by name, JSON values


class DamagedCheckpoint(ValueError):
    """A checkpoint file differs from what was written."""


class Checkpoints:
    """The checkpoints of a run: when to write one, which to keep, which to resume from.

    Args:
        folder: folder of the files, created when the first one is written.
        every: environment steps between checkpoints; 0 writes one only when training ends.
        keep: number of newest checkpoints to keep.
        monitor: log of `fit` whose highest value makes a checkpoint the best, which is kept too.
        warn: called with one line about each damaged file that is skipped.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        every: int = 100_000,
        keep: int = 3,
        monitor: str = "rollout/episode_return",
        warn: Callable[[str], Any] = warnings.warn,
    ):
        for name, value, least in (("every", every, 0), ("keep", keep, 1)):
            if value < least:
                raise ValueError(f"{name} must be at least {least}. Received: {name}={value}")
        self.folder = Path(folder)
        self.every = every
        self.keep = keep
        self.monitor = monitor
        self._warn = warn
        self._best: dict[str, Any] = {}  # "steps" and "score" of the best one, and its "monitor"
        self._seen: float | None = None  # last value of the monitored log since the last checkpoint

    def due(self, steps: int, previous: int) -> bool:
        """Whether a multiple of `every` lies in (previous, steps], both in environment steps."""
        return self.every > 0 and passes_multiple(self.every, previous, steps)

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
            OSError: it can't be written; earlier checkpoints stay as they were.
        """
        if self._seen is not None and self._seen >= self._best.get("score", -np.inf):
            self._best = {"steps": steps, "score": self._seen, "monitor": self.monitor}
        self._seen = None
        path = self.path(steps)
        content = _pack(variables, {**values, "best": self._best})
        with naming(f"the checkpoint {path}"):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content)
        self._prune(steps)
        return path

    def latest(self) -> State | None:
        """Returns the newest intact checkpoint as (variables, values), or None if there is none.

        A damaged one is named in a warning, and the one before it is used.

        Raises:
            ValueError: there are checkpoints, but all are damaged or of another format.
        """
        paths = sorted(self.folder.glob("step-*.checkpoint"), reverse=True)
        for path in paths:
            try:
                variables, values = _unpack(path.read_bytes())
            except DamagedCheckpoint as error:
                self._warn(f"checkpoint {path} is damaged ({error}); the one before it is used")
                continue
            best, self._seen = values.pop("best"), None
            # Scores from different logs can't be compared.
            self._best = best if best.get("monitor") == self.monitor else {}
            return variables, values
        if paths:
            raise ValueError(f"All checkpoints are damaged. Received: folder={self.folder}")
        return None

    def _prune(self, steps: int) -> None:
        """Deletes checkpoints no longer needed, and files that a crash left half written."""
        best = self.path(self._best["steps"]) if self._best else None
        paths = sorted(self.folder.glob("step-*.checkpoint"))
        newest = [path for path in paths if path <= self.path(steps)][-self.keep :]
        for path in paths:
            if path not in newest and path != best:
                path.unlink()
        for path in self.folder.glob(".*.unfinished"):
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
        ValueError: the arrays are another learner's; the message names the first variable that
            differs. The learner stays as it is.
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
    for name, variable in variables.items():
        variable.assign(arrays[name])
    learner.iterations = int(arrays["iterations"])


def _pack(variables: dict[str, np.ndarray], values: dict[str, Any]) -> bytes:
    text = np.frombuffer(json.dumps(values).encode(), np.uint8)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:  # as numpy.savez, whose names would be arguments
        for name, array in {**variables, _VALUES: text}.items():
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
    payload = buffer.getvalue()
    digest = hashlib.sha256(payload).hexdigest()
    return f"ppo_tf checkpoint {FORMAT} sha256={digest}\n".encode() + payload


def _unpack(content: bytes) -> State:
    header, newline, payload = content.partition(b"\n")
    words = header.split(b" ")
    if words[:2] != [b"ppo_tf", b"checkpoint"] or len(words) != 4 or not newline:
        raise DamagedCheckpoint("its first line is not a checkpoint's")
    if words[3] != b"sha256=" + hashlib.sha256(payload).hexdigest().encode():
        raise DamagedCheckpoint("its SHA-256 differs")
    if words[2] != str(FORMAT).encode():
        raise DamagedCheckpoint(f"its format is {words[2].decode()}, this ppo_tf reads {FORMAT}")
    with np.load(io.BytesIO(payload), allow_pickle=False) as arrays:
        variables = {name: arrays[name] for name in arrays.files}
    return variables, json.loads(variables.pop(_VALUES).tobytes())
