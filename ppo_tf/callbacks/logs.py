"""Keras callbacks for `fit`: the log files and the progress line."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from typing import Any

import keras

from ppo_tf.support.appended_file import AppendedFile
from ppo_tf.support.files import naming, read_text, write_atomically
from ppo_tf.support.schema import COUNT, TEXT, check

Logs = dict[str, Any] | None


def is_missing(value: Any) -> bool:
    """Whether a log has no value; see `fit`."""
    return isinstance(value, float) and math.isnan(value)


def _is_json(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


class MetricsCSV(keras.callbacks.Callback):
    """Writes one row per iteration, immediately; a field is empty where a log has no value.

    Keras' own CSVLogger adds an empty `val_` column for each log and drops logs that are not in the
    first row; here they get a column, empty in earlier rows. When resumed from a checkpoint, the
    file is cut to what it held then, and continued.

    Args:
        path: path of the file; a new run overwrites it.
    """

    def __init__(self, path: str | os.PathLike[str]):
        super().__init__()
        self._file = AppendedFile(path, lines=True)
        self._names: list[str] = []

    def state(self) -> dict[str, Any]:
        """Returns the size of the file and its columns."""
        return {"bytes": self._file.sync(), "names": self._names}

    def load_state(self, state: dict[str, Any]) -> None:
        """Cuts the file to that size and restores the columns."""
        check(state, {"bytes": COUNT, "names": [TEXT]}, "the state of MetricsCSV")
        self._file.cut(state["bytes"])
        self._names = state["names"]

    def on_train_begin(self, logs: Logs = None) -> None:
        """Opens the file."""
        if self._names:
            names, rows = self._read()
            if names != self._names:  # columns were added after the checkpoint
                with naming(self._file.path):
                    write_atomically(self._file.path, self._as_csv(rows))
        self._file.open()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Writes the iteration's row."""
        lost = not self._file.is_ours() and self._file.reopen() == 0
        row = {"iteration": epoch, **(logs or {})}
        row = {name: "" if is_missing(value) else value for name, value in row.items()}
        new = [name for name in row if name not in self._names]
        if new:
            self._names = [*self._names, *new]
            self._file.replace(self._as_csv(self._read()[1]))
        elif lost:
            self._file.write(self._as_csv([]))
        self._file.write(self._as_csv([row], header=False))

    def on_train_end(self, logs: Logs = None) -> None:
        """Closes the file."""
        self._file.close()
        self._names = []

    def _read(self) -> tuple[list[str], list[dict[str, Any]]]:
        """The file's columns and rows; tolerates what a crash or others left of it."""
        try:
            content = read_text(self._file.path)
        except OSError:
            return [], []
        reader = csv.DictReader(io.StringIO(content.replace("\0", ""), newline=""))
        names = list(reader.fieldnames or ())
        return names, [row for row in reader if None not in row and None not in row.values()]

    def _as_csv(self, rows: list[dict[str, Any]], header: bool = True) -> bytes:
        text = io.StringIO()
        writer = csv.DictWriter(text, self._names, extrasaction="ignore", lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows(rows)
        return text.getvalue().encode()


class MetricsJSONL(keras.callbacks.Callback):
    """Writes one line of JSON per iteration, immediately; null where a log has no value.

    When resumed from a checkpoint, the file is cut to what it held then, and continued.

    Args:
        path: path of the file; a new run overwrites it.
    """

    def __init__(self, path: str | os.PathLike[str]):
        super().__init__()
        self._file = AppendedFile(path, lines=True)

    def state(self) -> dict[str, Any]:
        """Returns the size of the file."""
        return {"bytes": self._file.sync()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Cuts the file to that size."""
        check(state, {"bytes": COUNT}, "the state of MetricsJSONL")
        self._file.cut(state["bytes"])

    def on_train_begin(self, logs: Logs = None) -> None:
        """Opens the file."""
        self._file.open()

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Writes the iteration's line."""
        if not self._file.is_ours():
            self._file.reopen()
        row = {"iteration": epoch, **(logs or {})}
        # JSON has neither NaN nor infinities.
        row = {name: value if _is_json(value) else None for name, value in row.items()}
        self._file.write((json.dumps(row, allow_nan=False) + "\n").encode())

    def on_train_end(self, logs: Logs = None) -> None:
        """Closes the file."""
        self._file.close()
