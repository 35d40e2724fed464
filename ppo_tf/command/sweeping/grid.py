"""One training run of a sweep, and the runs of a grid."""

from __future__ import annotations

import collections
import csv
import functools
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ppo_tf.command.runs import CONFIG, RESULT
from ppo_tf.command.sweeping.space import as_flags, describe


@dataclass
class Run:
    """One training run: settings, a seed, and what became of it.

    Attributes:
        label: what printed lines call it.
        group: name of its setting, the same for all seeds.
        settings: values by name, as the space has them; the seed is not among them.
        seed: the run's seed.
        folder: log folder.
        trial: Optuna's number, in a search.
        status: waiting, running, finished, failed, pruned or interrupted.
        error: why it failed or was pruned.
        process: where it runs, once it has been started.
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
        if (self.folder / RESULT).exists():
            self.status = "finished"

    @property
    def output(self) -> Path:
        """File of what the run printed."""
        return self.folder.with_name(self.folder.name + ".txt")

    @functools.cached_property
    def evaluation(self) -> tuple[float, float]:
        """Mean and standard deviation of the final deterministic evaluation's returns."""
        results = json.loads((self.folder / RESULT).read_text())["deterministic"]
        return results["mean_return"], results["std_return"]

    def metrics(self, *names: str) -> list[list[float]]:
        """Columns of metrics.csv as rows of floats, NaN where a quantity has no value yet."""
        try:
            lines = (self.folder / "metrics.csv").read_text().splitlines(keepends=True)
        except FileNotFoundError:
            return []
        rows = csv.reader(line for line in lines if line.endswith("\n"))  # the last, half written
        header = next(rows, None)
        columns = [header.index(name) for name in names] if header else []
        return [[float(row[i] or "nan") for i in columns] for row in rows]

    def total_steps(self) -> int | None:
        """How many steps the run trains for; None before it has said so."""
        try:
            config = json.loads((self.folder / CONFIG).read_text())
        except FileNotFoundError:
            return None
        steps: int = config["settings"]["total_steps"]["value"]
        return steps

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
        """The last error that the run printed, else its last line."""
        lines = self.output.read_text(errors="replace").split("\n") if self.output.exists() else []
        lines = [line for line in lines if line.strip()] or ["no output"]
        errors = [line for line in lines if line.startswith("error: ")]
        return (errors or lines)[-1].removeprefix("error: ")


def folder_name(settings: Mapping[str, Any], prefix: Sequence[str] = ()) -> str:
    """Settings as the name of a folder: what is no letter, digit or . = + becomes a hyphen."""
    parts = [*prefix, *(flag.removeprefix("--") for flag in as_flags(settings))]
    return re.sub(r"[^\w.=+]", "-", "-".join(parts))[:200]  # of the 255 that file systems take


class Grid:
    """Every combination of the values, with every seed; see `processes.Source`.

    Args:
        folder: the sweep's.
        space: values by setting.
        seeds: runs per combination, count.

    Raises:
        ValueError: two combinations would have the same folder.
    """

    def __init__(self, folder: Path, space: Mapping[str, Sequence[Any]], seeds: int):
        settings = [
            dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())
        ]
        names = [folder_name(s) for s in settings]
        if len(set(names)) < len(names):
            raise ValueError(f"Two settings of the grid have the same name. Received: {names}")
        self._runs: list[Run] = []
        for seed in range(seeds):  # the seeds outside, so that every setting has a first result
            for setting, name in zip(settings, names, strict=True):
                run_folder = folder / "-".join(filter(None, [name, f"seed{seed}"]))
                label = f"{len(self._runs) + 1}/{len(names) * seeds} "
                label += describe(setting | {"seed": seed})
                self._runs.append(Run(label, name, setting, seed, run_folder))
        self._waiting = collections.deque(r for r in self._runs if r.status != "finished")

    def next(self) -> Run | None:
        """The next run to start; None if there is none."""
        return self._waiting.popleft() if self._waiting else None

    def prune(self, run: Run) -> bool:
        """A grid is trained to the end."""
        return False

    def end(self, run: Run) -> None:
        """Nothing follows from a run's end."""

    def runs(self) -> list[Run]:
        """All runs, also those that wait."""
        return self._runs
