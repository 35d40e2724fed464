"""Reads runs and computes their curves: the mean over seeds and its 95% bootstrap band."""

from __future__ import annotations

import csv
import glob
import io
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ppo_tf.support.files import read_text, reason_of
from ppo_tf.support.json_files import read_json
from ppo_tf.support.schema import ANY, COUNT, TEXT, Named

STEPS = "rollout/steps"
RESAMPLES = 2_000  # bootstrap resamples

_CONFIG = {"env": TEXT, "seed": COUNT, "settings": Named(TEXT, {"value": ANY})}


class Run(NamedTuple):
    """A run: its curve, folder and settings."""

    folder: Path
    env: str
    settings: dict[str, Any]  # {name: value}, including the seed
    steps: np.ndarray  # float [N], increasing environment steps
    values: np.ndarray  # float [N], of the metric
    columns: list[str]  # of metrics.csv


Groups = dict[str, dict[tuple[str, ...], list[Run]]]  # runs by environment and settings
Band = np.ndarray | None  # one edge, float [N]; None for a single run


def find(patterns: Iterable[str]) -> list[Path]:
    """Returns the folders of runs: those named, those inside folders and those matching globs."""
    found: dict[Path, Path] = {}
    for pattern in patterns:
        matches = [Path(match) for match in sorted(glob.glob(pattern))] or [Path(pattern)]
        if not any(match.exists() for match in matches):
            raise ValueError(f"No such folder. Received: {pattern}")
        runs = [file.parent for match in matches for file in sorted(match.rglob("metrics.csv"))]
        if not runs:
            raise ValueError(f"No run (a folder with metrics.csv) found. Received: {pattern}")
        found |= {folder.resolve(): folder for folder in runs}
    return list(found.values())


def read(folder: Path, metric: str) -> Run:
    """Reads the run in a folder. Rows without a value are skipped, so there may be no points."""
    file = folder / "config.json"
    try:
        config = read_json(file, _CONFIG, follow=True)
        file = folder / "metrics.csv"
        content = read_text(file, follow=True)
        reader = csv.DictReader(io.StringIO(content, newline=""))
        columns = list(reader.fieldnames or [])
        found = {row[STEPS]: row[metric] for row in reader if row.get(metric) and row.get(STEPS)}
        points = sorted((float(step), float(value)) for step, value in found.items())
    except (OSError, ValueError, csv.Error) as error:
        raise ValueError(f"{file} can't be read: {reason_of(error)}.") from error
    finite = [point for point in points if math.isfinite(point[1])]
    steps, values = np.array(finite).reshape(-1, 2).T
    settings = {name: setting["value"] for name, setting in config["settings"].items()}
    settings.pop("checkpoint_at", None)  # a run that repeats another has its boundaries here
    settings["seed"] = config["seed"]
    return Run(folder, config["env"], settings, steps, values, columns)


def drawable(runs: Sequence[Run], metric: str) -> tuple[list[Run], list[str]]:
    """Returns the runs to draw, and a message about each of the others."""
    columns = dict.fromkeys(column for run in runs for column in run.columns)
    if columns and metric not in columns:
        raise ValueError(f"--metric must be one of {', '.join(columns)}. Received: {metric}")
    kept: dict[str, Run] = {}
    notes = []
    for run in runs:
        key = json.dumps([run.env, run.settings], sort_keys=True)
        other = kept.get(key)
        if not len(run.steps):
            notes.append(f"skipped {run.folder}: it has no {metric}")
        elif other is None:
            kept[key] = run
        else:  # the same numbers twice would make the band too narrow
            shorter, kept[key] = sorted([run, other], key=lambda run: run.steps[-1])
            notes.append(
                f"skipped {shorter.folder}: {kept[key].folder} has the same seed and settings"
            )
    if not kept:
        raise ValueError(f"Nothing to draw: no run has values. Received: metric={metric}")
    return list(kept.values()), notes


def smoothed(run: Run, window: int) -> Run:
    """Replaces each value of a run by the mean of the values in the last `window` steps."""
    first = np.searchsorted(run.steps, run.steps - window, side="right")
    sums = np.concatenate([[0.0], np.cumsum(run.values)])
    last = np.arange(1, len(run.steps) + 1)
    return run._replace(values=(sums[last] - sums[first]) / (last - first))


def grouped(runs: Iterable[Run], names: Sequence[str]) -> Groups:
    """Groups runs by environment and by their values of the settings `names`, keeping the order."""
    groups: Groups = defaultdict(lambda: defaultdict(list))
    for run in runs:
        groups[run.env][tuple(shown(run.settings.get(name)) for name in names)].append(run)
    return groups


def labels(groups: Groups, names: Sequence[str]) -> dict[tuple[str, ...], str]:
    """Returns a label per curve: the settings in which the curves of an environment differ."""
    differ = [
        i
        for i, _ in enumerate(names)
        if any(len({key[i] for key in curves}) > 1 for curves in groups.values())
    ]
    keys = [key for curves in groups.values() for key in curves]
    return {key: ", ".join(f"{names[i]}={key[i]}" for i in differ) for key in keys}


def shown(value: Any) -> str:
    """Formats the value of a setting as its flag accepts it."""
    if isinstance(value, list):
        return ",".join(map(str, value))
    return "none" if value is None else str(value)


def curve(runs: Sequence[Run]) -> tuple[np.ndarray, np.ndarray, Band, Band]:
    """Returns (steps, mean, low, high), each float [N], of the runs of one curve.

    The runs are interpolated to the union of their steps, within the range that all of them cover.
    """
    low, high = max(run.steps[0] for run in runs), min(run.steps[-1] for run in runs)
    grid = np.unique(np.concatenate([run.steps for run in runs]))
    grid = grid[(low <= grid) & (grid <= high)]
    if not len(grid):
        folders = ", ".join(str(run.folder) for run in runs)
        raise ValueError(f"Runs of one curve have no steps in common. Received: {folders}")
    values = np.stack([np.interp(grid, run.steps, run.values) for run in runs])
    return grid, values.mean(0), *(band(values) if len(runs) > 1 else (None, None))


def band(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns (low, high), float [N]: the 95% percentile bootstrap interval of the mean over runs.

    Args:
        values: float [runs, N].
    """
    from scipy.stats import bootstrap

    interval = bootstrap(
        (values,),
        np.mean,
        axis=0,
        confidence_level=0.95,
        n_resamples=RESAMPLES,
        batch=100,  # bounds the memory
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return interval.low, interval.high
