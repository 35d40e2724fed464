"""Draws learning curves: a line per run, or the mean over seeds with its 95% bootstrap band.

    ppo-tf plot runs/NAME
    ppo-tf plot runs --out=curves.svg

A run is a log folder with config.json and metrics.csv. Runs that differ only in their seed form one
curve, the legend shows the settings in which the curves differ, and each environment has a panel.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from ppo_tf.command import parsing
from ppo_tf.command.plotting.curves import Run, drawable, find, grouped, read, smoothed
from ppo_tf.command.plotting.figure import draw
from ppo_tf.support.extras import needs

FLAGS = flags.FlagValues()
OUT = flags.DEFINE_list(
    "out",
    ["curve.png", "curve.svg"],
    "Comma-separated files to write, each .png, .svg or .pdf.",
    flag_values=FLAGS,
)
METRIC = flags.DEFINE_string(
    "metric", "rollout/episode_return", "Column of metrics.csv to draw.", flag_values=FLAGS
)
SMOOTH = flags.DEFINE_integer(
    "smooth",
    None,
    "Window of a trailing moving average, in environment steps (default: none).",
    flag_values=FLAGS,
)
GROUP_BY = flags.DEFINE_list(
    "group_by",
    None,
    "Comma-separated settings that the runs of a curve share; with seed, each run is a curve "
    "(default: all settings but the seed).",
    flag_values=FLAGS,
)

SUFFIXES = (".png", ".svg", ".pdf")


def main(argv: Sequence[str]) -> int:
    """Runs the command; returns its exit code."""
    words = "run folders, folders that contain runs, or globs of either"
    return parsing.run(plot, FLAGS, argv, description=__doc__, words=words)


def plot(patterns: Sequence[str]) -> int:
    """Reads the runs, writes the pictures and prints their names."""
    for package in ("matplotlib", "scipy"):
        if importlib.util.find_spec(package) is None:
            raise ImportError(needs("ppo-tf plot", "plot"))
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
    names = shared_settings(runs)
    figure = draw(grouped(runs, names), names, METRIC.value)
    for out in OUT.value:
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out, dpi=150)
        lines.append(f"wrote {out}")
    print("\n".join(lines))
    return 0


def shared_settings(runs: Sequence[Run]) -> list[str]:
    """Returns the names of the settings that the runs of a curve share.

    Raises:
        ValueError: --group_by names an unknown setting.
    """
    known = list(dict.fromkeys(name for run in runs for name in run.settings))
    names: list[str] | None = GROUP_BY.value
    if names is None:
        return [name for name in known if name != "seed"]
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"--group_by must be among {', '.join(known)}. Received: {unknown[0]}")
    return names
