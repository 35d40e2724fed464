"""Draws learning curves: a line per run; of several seeds their mean and its 95% bootstrap band.

python examples/plot.py runs/NAME
python examples/plot.py runs --out=curves.svg

A run is a log folder, with config.json and metrics.csv. Runs of the same settings but the seed are
one curve, the legend says in what settings curves differ, and each environment has a panel.
"""

import csv
import glob
import importlib.util
import itertools
import json
import math
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import app, flags

OUT = flags.DEFINE_list(
    "out",
    ["curve.png", "curve.svg"],
    "Files to write, comma-separated, each .png, .svg or .pdf.",
)
METRIC = flags.DEFINE_string("metric", "rollout/episode_return", "Column of metrics.csv.")
SMOOTH = flags.DEFINE_integer(
    "smooth", None, "Moving average over so many environment steps back (default: none)."
)
GROUP_BY = flags.DEFINE_list(
    "group_by",
    None,
    "Settings, comma-separated, that runs of one curve share; seed: each run is a curve "
    "(default: all settings but the seed).",
)

SUFFIXES = (".png", ".svg", ".pdf")
STEPS = "rollout/steps"
RESAMPLES = 2_000  # of the bootstrap
PANEL = (6.4, 3.6)  # width and height, inches
LEGEND_ROW = 0.22  # height, inches


class Run(NamedTuple):
    """A run's curve and what it came from."""

    folder: Path
    env: str
    settings: dict  # {name: value}, the seed among them
    steps: np.ndarray  # float [N], increasing environment steps
    values: np.ndarray  # float [N], of the metric
    columns: list  # of metrics.csv


# ---- from folders to runs


def find(patterns):
    """The folders of runs: themselves, those below folders, and those that globs match."""
    found = {}
    for pattern in patterns:
        matches = [Path(match) for match in sorted(glob.glob(pattern))] or [Path(pattern)]
        if not any(match.exists() for match in matches):
            raise ValueError(f"No such folder. Received: {pattern}")
        runs = [file.parent for match in matches for file in sorted(match.rglob("metrics.csv"))]
        if not runs:
            raise ValueError(f"No run, a folder with metrics.csv, is there. Received: {pattern}")
        found |= {folder.resolve(): folder for folder in runs}
    return list(found.values())


def read(folder, metric):
    """The folder's run; rows without a value are left out, so there may be none."""
    config = json.loads((folder / "config.json").read_text())
    if lacking := {"env", "seed", "settings"} - config.keys():
        raise ValueError(f"{folder}/config.json has no {', '.join(sorted(lacking))}.")
    with open(folder / "metrics.csv", newline="") as file:
        reader = csv.DictReader(file)
        columns = list(reader.fieldnames or [])
        points = {row[STEPS]: row[metric] for row in reader if row.get(metric) and row.get(STEPS)}
    points = sorted((float(step), float(value)) for step, value in points.items())
    points = [point for point in points if math.isfinite(point[1])]
    steps, values = np.array(points).reshape(-1, 2).T
    settings = {name: setting["value"] for name, setting in config["settings"].items()}
    settings["seed"] = config["seed"]
    return Run(folder, config["env"], settings, steps, values, columns)


def drawable(runs, metric):
    """(the runs to draw, what to say of the others)."""
    columns = dict.fromkeys(column for run in runs for column in run.columns)
    if columns and metric not in columns:
        raise ValueError(f"--metric must be one of {', '.join(columns)}. Received: {metric}")
    kept, notes = {}, []
    for run in runs:
        key = json.dumps([run.env, run.settings], sort_keys=True)
        other = kept.get(key)
        if not len(run.steps):
            notes.append(f"left out, it has no {metric}: {run.folder}")
        elif other is None:
            kept[key] = run
        else:  # the same numbers twice would make the band too narrow
            shorter, kept[key] = sorted([run, other], key=lambda run: run.steps[-1])
            notes.append(
                f"left out, {kept[key].folder} has its seed and settings: {shorter.folder}"
            )
    if not kept:
        raise ValueError(f"Nothing to draw, no run has values. Received: metric={metric}")
    return list(kept.values()), notes


def smoothed(run, window):
    """The run with each value the mean of those at the last `window` steps."""
    first = np.searchsorted(run.steps, run.steps - window, side="right")
    sums = np.concatenate([[0.0], np.cumsum(run.values)])
    last = np.arange(1, len(run.steps) + 1)
    return run._replace(values=(sums[last] - sums[first]) / (last - first))


# ---- from runs to curves


def grouped(runs, names):
    """{environment: {the values of the settings `names`: [run]}}, in the order of the runs."""
    groups = defaultdict(lambda: defaultdict(list))
    for run in runs:
        groups[run.env][tuple(shown(run.settings.get(name)) for name in names)].append(run)
    return groups


def labels(groups, names):
    """{key: label} of what differs between the curves of any one environment."""
    differ = [
        i
        for i, _ in enumerate(names)
        if any(len({key[i] for key in curves}) > 1 for curves in groups.values())
    ]
    keys = [key for curves in groups.values() for key in curves]
    return {key: ", ".join(f"{names[i]}={key[i]}" for i in differ) for key in keys}


def shown(value):
    """A setting's value as its flag takes it."""
    if isinstance(value, list):
        return ",".join(map(str, value))
    return "none" if value is None else str(value)


def curve(runs):
    """(steps, mean, low, high) of a group: its runs interpolated to the steps that any of them
    has, where all of them have values; the band is None of a single run."""
    low, high = max(run.steps[0] for run in runs), min(run.steps[-1] for run in runs)
    grid = np.unique(np.concatenate([run.steps for run in runs]))
    grid = grid[(low <= grid) & (grid <= high)]
    if not len(grid):
        folders = ", ".join(str(run.folder) for run in runs)
        raise ValueError(f"Runs of one curve have no steps in common. Received: {folders}")
    values = np.stack([np.interp(grid, run.steps, run.values) for run in runs])
    return grid, values.mean(0), *(band(values) if len(runs) > 1 else (None, None))


def band(values):
    """(low, high) of the 95% percentile bootstrap interval of the mean, from values [runs, N]."""
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


# ---- from curves to a picture


def draw(groups, names, metric):
    """A figure with a panel per environment and one legend for all."""
    import matplotlib
    from matplotlib.figure import Figure

    columns = min(len(groups), 3)
    rows = math.ceil(len(groups) / columns)
    figure = Figure(layout="constrained")
    label_of = labels(groups, names)
    # Petroff's ten colours can be told apart with colour-blindness too; then dashes come.
    looks = itertools.product(["-", "--", ":", "-."], matplotlib.color_sequences["petroff10"])
    look_of = dict(zip(dict.fromkeys(label_of.values()), itertools.cycle(looks), strict=False))
    lines, members = {}, defaultdict(list)
    for i, (env, curves) in enumerate(sorted(groups.items())):
        axes = figure.add_subplot(rows, columns, i + 1)
        for key, runs in curves.items():
            label = label_of[key]
            style, color = look_of[label]
            steps, mean, low, high = curve(runs)
            (lines[label],) = axes.plot(steps, mean, style, color=color, linewidth=1.5)
            if low is not None:
                axes.fill_between(steps, low, high, color=color, alpha=0.25, linewidth=0)
            members[label].append(runs)
        axes.set_title(env)
        axes.set_xlabel("environment steps")
        axes.set_ylabel(metric)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(thousands)
    texts = list(lines)
    if "seed" not in names:
        texts = [", ".join(filter(None, [label, counted(members[label])])) for label in lines]
    several = any(len(runs) > 1 for curves in groups.values() for runs in curves.values())
    width = PANEL[0] * columns
    in_a_row = max(1, int(width / (0.8 + 0.09 * max(map(len, texts)))))  # as many as fit, inches
    figure.legend(
        lines.values(),
        texts,
        loc="outside lower center",
        ncols=in_a_row,
        frameon=False,
        title="mean and 95% bootstrap band" if several else None,
    )
    legend_rows = math.ceil(len(texts) / in_a_row) + several
    figure.set_size_inches(width, PANEL[1] * rows + LEGEND_ROW * legend_rows)
    return figure


def counted(groups):
    """Of how many runs a label's curves are, such as "5 seeds"."""
    few, many = min(map(len, groups)), max(map(len, groups))
    if many == 1:
        return f"seed {groups[0][0].settings['seed']}" if len(groups) == 1 else "1 seed"
    seeds = all(len({run.settings["seed"] for run in runs}) == len(runs) for runs in groups)
    return f"{few if few == many else f'{few} to {many}'} {'seeds' if seeds else 'runs'}"


def thousands(value, position):
    """A tick's text, such as 1,000,000."""
    return f"{value:,.10g}".replace("-", "\N{MINUS SIGN}")


# ---- the command


def run(patterns):
    """Reads the runs and writes the pictures; returns what to print."""
    for package in ("matplotlib", "scipy"):
        if importlib.util.find_spec(package) is None:
            raise ImportError("examples/plot.py needs the extra 'plot': pip install 'ppo_tf[plot]'")
    if not patterns:
        raise ValueError("Name a run or a folder of runs, for instance runs/NAME or runs.")
    if SMOOTH.value is not None and SMOOTH.value < 1:
        raise ValueError(f"smooth must be at least 1. Received: smooth={SMOOTH.value}")
    for out in OUT.value:
        if Path(out).suffix not in SUFFIXES:
            raise ValueError(f"--out must end in {', '.join(SUFFIXES)}. Received: {out}")
    runs, lines = drawable([read(folder, METRIC.value) for folder in find(patterns)], METRIC.value)
    if SMOOTH.value is not None:
        runs = [smoothed(run, SMOOTH.value) for run in runs]
    known = list(dict.fromkeys(name for run in runs for name in run.settings))
    names = GROUP_BY.value
    if names is None:
        names = [name for name in known if name != "seed"]
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"--group_by must be of {', '.join(known)}. Received: {unknown[0]}")
    figure = draw(grouped(runs, names), names, METRIC.value)
    for out in map(Path, OUT.value):
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out, dpi=150)
        lines.append(f"wrote {out}")
    return lines


def main(argv):
    """Runs everything; returns the exit code."""
    try:
        lines = run(argv[1:])
    except (ValueError, ImportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join(lines))
    return 0


def parse(argv):
    """Parses the flags; a bad one ends the program with one line."""
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        print(f"error: {str(error).replace(chr(10), ' ')}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
