"""Prints a learning table and draws its curves, for benchmarks/learning.py."""

import csv
import statistics
from pathlib import Path

import numpy as np
from scipy.stats import trim_mean

from ppo_tf.command.plotting.curves import Run, band
from ppo_tf.command.plotting.figure import draw


def report(name, rows, curves):
    """Prints the table of the rows, and draws the curves beside their file.

    Args:
        name: the table's name.
        rows: its rows, dicts of text.
        curves: path of the file of learning curves; the figure gets its name, with .png.
    """
    groups = {}
    for row in rows:
        groups.setdefault((row["env"], row["label"]), []).append(row)
    titles = ["environment", "settings", "seeds", "steps", "mean +- std", "95% of the mean", "IQM"]
    titles += ["worst", "best", "last 100 of training", "steps/s"]
    print("| " + " | ".join(titles) + " |\n" + "|---" * len(titles) + "|")
    for (env, label), group in groups.items():
        print("| " + " | ".join([env, label, *cells(group)]) + " |")
    if rows:
        figure = draw(groups_of(curves), ["settings"], "mean return of the last 100 episodes")
        for text in figure.legends[0].get_texts():
            text.set_text(text.get_text().removeprefix("settings="))
        figure.savefig(curves.with_suffix(".png"), dpi=100)
        print(f"\n{name}: {len(rows)} runs; curves: {curves.with_suffix('.png')}")


def cells(group):
    """Returns the texts of one row: statistics over seeds of the deterministic returns."""
    returns = np.array([float(row["mean_return"]) for row in group])
    training = statistics.fmean(float(row["training_return"] or "nan") for row in group)
    digits = 1 if np.abs(returns).max() >= 10 else 2
    few = len(returns) < 2
    low, high = (returns, returns) if few else band(returns[:, None])
    spread = "" if few else f" +- {returns.std(ddof=1):.{digits}f}"
    speed = statistics.median(float(row["steps_per_second"] or "nan") for row in group)
    return [
        f"{len(returns)}",
        f"{int(group[0]['steps']):,}",
        f"{returns.mean():.{digits}f}{spread}",
        f"{low[0]:.{digits}f} to {high[0]:.{digits}f}",
        f"{trim_mean(returns, 0.25):.{digits}f}" if len(returns) >= 4 else "",
        f"{returns.min():.{digits}f}",
        f"{returns.max():.{digits}f}",
        f"{training:.{digits}f}",
        f"{speed:,.0f}",
    ]


def groups_of(curves):
    """Reads the learning curves as `ppo_tf.command.plotting` draws them."""
    runs = {}
    with open(curves, newline="") as file:
        for row in csv.DictReader(file):
            points = runs.setdefault((row["env"], row["label"], row["seed"]), {})
            points[float(row["steps"])] = float(row["return"])  # twice after a kill between files
    groups = {}
    for (env, label, seed), points in runs.items():
        steps, values = np.array(list(points.items())).T
        run = Run(Path(seed), env, {"settings": label, "seed": int(seed)}, steps, values, [])
        groups.setdefault(env, {}).setdefault((label,), []).append(run)
    return groups
