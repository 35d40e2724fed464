"""One training run of a sweep, and the runs of a grid."""

from __future__ import annotations

import collections
import csv
import functools
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ppo_tf.command.runs import CONFIG, RESULT
from ppo_tf.command.sweeping.space import as_flags, describe
from ppo_tf.support.files import read_text
from ppo_tf.support.json_files import read_json
from ppo_tf.support.schema import COUNT, NUMBER

_RESULT = {"deterministic": {"mean_return": NUMBER, "std_return": NUMBER}}
_CONFIG = {"settings": {"total_steps": {"value": COUNT}}}


@dataclass(eq=False)
class Run:
    """One training run: its settings, its seed and its outcome.

    Attributes:
        label: name of the run in printed lines.
        group: name of its settings, the same for all seeds.
        settings: values by name, as in the space; without the seed.
        seed: the run's seed.
        folder: log folder.
        trial: number of the Optuna trial, in a search.
        status: waiting, held (by a process that still ends), running, finished, failed, pruned or
            interrupted.
        error: why it failed or was pruned.
        process: its process, once started.
    """

    label: str
    group: str
    settings: dict[str, Any]
    seed: int
    folder: Path
    trial: int | None = None
    status: str = "waiting"
    error: str = ""
    process: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.has_result:
            self.status = "finished"

    @property
    def has_result(self) -> bool:
        """Whether the run has ended with its result; one that can't be read is none."""
        try:
            return bool(self.evaluation)
        except (OSError, ValueError):
            return False

    @property
    def output(self) -> Path:
        """Path of the file with the run's output."""
        return self.folder.with_name(self.folder.name + ".txt")

    @functools.cached_property
    def evaluation(self) -> tuple[float, float]:
        """Mean and standard deviation of the returns in the final deterministic evaluation.

        Raises:
            OSError, ValueError: there is no result, or it can't be read.
        """
        results = read_json(self.folder / RESULT, _RESULT)["deterministic"]
        return results["mean_return"], results["std_return"]

    def metrics(self, *names: str) -> list[list[float]]:
        """Reads columns of metrics.csv as rows of floats, NaN where a field is empty."""
        try:
            text = read_text(self.folder / "metrics.csv")
        except OSError:
            return []
        lines = text.splitlines(keepends=True)
        rows = csv.reader(line for line in lines if line.endswith("\n"))  # whole lines only
        header = next(rows, [])
        if not set(names) <= set(header):
            return []
        columns = [header.index(name) for name in names]
        return [[_number(row[i]) for i in columns] for row in rows if len(row) == len(header)]

    def total_steps(self) -> int | None:
        """Returns the number of steps the run trains for; None before config.json is written."""
        try:
            settings = read_json(self.folder / CONFIG, _CONFIG)["settings"]
        except (OSError, ValueError):
            return None
        return int(settings["total_steps"]["value"])

    @functools.cached_property
    def seconds(self) -> float | None:
        """Seconds of training; None without metrics."""
        rows = self.metrics("time/seconds")
        return round(rows[-1][0], 2) if rows else None

    @functools.cached_property
    def steps_per_second(self) -> float | None:
        """Steps per second of training after the first iteration, which compiles; None without a
        second one."""
        rows = self.metrics("rollout/steps", "time/seconds")
        if len(rows) < 2:
            return None
        (first_steps, first_seconds), (steps, seconds) = rows[0], rows[-1]
        return round((steps - first_steps) / (seconds - first_seconds), 1)

    def last_error(self) -> str:
        """Returns the last error that the run printed, or its last line if there is none."""
        try:
            text = read_text(self.output)
        except OSError as error:
            text = f"no output: {error.strerror}"
        lines = text.split("\n")
        lines = [line for line in lines if line.strip()] or ["no output"]
        errors = [line for line in lines if line.startswith("error: ")]
        return (errors or lines)[-1].removeprefix("error: ")


def _number(text: str) -> float:
    """The number in a field, NaN if there is none."""
    try:
        return float(text or "nan")
    except ValueError:
        return float("nan")


def folder_name(settings: Mapping[str, Any], prefix: Sequence[str] = ()) -> str:
    """Returns a folder name for settings: all but letters, digits and _ . = + become hyphens."""
    parts = [*prefix, *(flag.removeprefix("--") for flag in as_flags(settings))]
    return re.sub(r"[^\w.=+]", "-", "-".join(parts))[:200]  # file systems allow 255


class Grid:
    """Every combination of the values, with every seed; see `processes.Source`.

    Args:
        folder: folder of the sweep.
        space: values by setting.
        seeds: number of runs per combination.

    Raises:
        ValueError: two combinations would have the same folder.
    """

    def __init__(self, folder: Path, space: Mapping[str, Sequence[Any]], seeds: int):
        settings = [
            dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())
        ]
        names = [folder_name(s) for s in settings]
        if len(set(names)) < len(names):
            raise ValueError(f"Two combinations have the same folder name. Received: {names}")
        self._runs: list[Run] = []
        for seed in range(seeds):  # outer loop: every combination gets a result early
            for setting, name in zip(settings, names, strict=True):
                run_folder = folder / "-".join(filter(None, [name, f"seed{seed}"]))
                label = f"{len(self._runs) + 1}/{len(names) * seeds} "
                label += describe(setting | {"seed": seed})
                self._runs.append(Run(label, name, setting, seed, run_folder))
        self._waiting = collections.deque(r for r in self._runs if r.status != "finished")

    def next(self) -> Run | None:
        """Returns the next run to start, or None."""
        return self._waiting.popleft() if self._waiting else None

    def prune(self, run: Run) -> bool:
        """Returns False: the runs of a grid are never pruned."""
        return False

    def end(self, run: Run) -> None:
        """Does nothing."""

    def runs(self) -> list[Run]:
        """Returns all runs, including those waiting."""
        return self._runs
