"""One training run of a sweep, and the runs of a grid."""

import collections
import csv
import functools
import itertools
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ppo_tf.command.runs import CONFIG, RESULT
from sweeping.settings import describe, text


@dataclass
class Run:
    """One training run: settings, a seed, and what became of it.

    Attributes:
        label: for the lines printed.
        group: name of its setting, the same for all seeds.
        folder: log folder.
        status: waiting, running, finished, failed, pruned or interrupted.
        error: why it failed or was pruned.
        trial: Optuna's number, in a search.
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

    def __post_init__(self):
        if (self.folder / RESULT).exists():
            self.status = "finished"

    @property
    def output(self):
        """File of what the run printed."""
        return self.folder.with_name(self.folder.name + ".txt")

    @functools.cached_property
    def evaluation(self):
        """Mean and standard deviation of the final deterministic evaluation's returns."""
        results = json.loads((self.folder / RESULT).read_text())["deterministic"]
        return results["mean_return"], results["std_return"]

    def metrics(self, *names):
        """Columns of metrics.csv as rows of floats, NaN where a quantity has no value yet."""
        try:
            lines = (self.folder / "metrics.csv").read_text().splitlines(keepends=True)
        except FileNotFoundError:
            return []
        rows = csv.reader(line for line in lines if line.endswith("\n"))  # the last, half written
        header = next(rows, None)
        columns = [header.index(name) for name in names] if header else []
        return [[float(row[i] or "nan") for i in columns] for row in rows]

    def total_steps(self):
        """What the run resolved --total_steps to; None before it has said so."""
        try:
            config = json.loads((self.folder / CONFIG).read_text())
        except FileNotFoundError:
            return None
        return config["settings"]["total_steps"]["value"]

    @functools.cached_property
    def seconds(self):
        """Of the training; None without metrics."""
        rows = self.metrics("time/seconds")
        return round(rows[-1][0], 2) if rows else None

    @functools.cached_property
    def steps_per_second(self):
        """Of the training after its first iteration, which compiles; None without a second one."""
        rows = self.metrics("rollout/steps", "time/seconds")
        if len(rows) < 2:
            return None
        (first_steps, first_seconds), (steps, seconds) = rows[0], rows[-1]
        return round((steps - first_steps) / (seconds - first_seconds), 1)

    def last_error(self):
        """The last error that the run printed, else its last line."""
        lines = self.output.read_text(errors="replace").split("\n") if self.output.exists() else []
        lines = [line for line in lines if line.strip()] or ["no output"]
        errors = [line for line in lines if line.startswith("error: ")]
        return (errors or lines)[-1].removeprefix("error: ")


def folder_name(settings, prefix=()):
    """Settings as the name of a folder: what is no letter, digit or . = + becomes a hyphen."""
    parts = [*prefix, *(f"{name}={text(value)}" for name, value in settings.items())]
    return re.sub(r"[^\w.=+]", "-", "-".join(parts))[:200]  # of the 255 that file systems take


class Grid:
    """Every combination of the values, with every seed.

    As in a Search, `next()` gives a run to start, or None for now; `prune(run)` says whether a
    running one is to be stopped; `end(run)` takes what became of it; `runs()` are all so far.

    Raises:
        ValueError: two combinations would have the same folder.
    """

    def __init__(self, folder, space, seeds):
        settings = [
            dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())
        ]
        names = [folder_name(s) for s in settings]
        if len(set(names)) < len(names):
            raise ValueError(f"Two settings of the grid have the same name. Received: {names}")
        self._runs = []
        for seed in range(seeds):  # the seeds outside, so that every setting has a first result
            for setting, name in zip(settings, names, strict=True):
                run_folder = folder / "-".join(filter(None, [name, f"seed{seed}"]))
                label = f"{len(self._runs) + 1}/{len(names) * seeds} "
                label += describe(setting | {"seed": seed})
                self._runs.append(Run(label, name, setting, seed, run_folder))
        self._waiting = collections.deque(r for r in self._runs if r.status != "finished")

    def next(self):
        """The next run to start; None if there is none."""
        return self._waiting.popleft() if self._waiting else None

    def prune(self, run):
        """A grid is trained to the end."""
        return False

    def end(self, run):
        """Nothing follows from a run's end."""

    def runs(self):
        """All runs, those that wait too."""
        return self._runs
