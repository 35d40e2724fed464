"""Draws learning curves of training runs.

python examples/plot.py --runs=runs/NAME,runs/OTHER --out=curve.png
"""

import csv
import json
import sys
from pathlib import Path

from absl import app, flags

RUNS = flags.DEFINE_list("runs", None, "Log folders of the runs, comma-separated. Required.")
OUT = flags.DEFINE_string("out", "curve.png", "File to write, .png or .svg (default: curve.png).")
METRIC = flags.DEFINE_string(
    "metric", "rollout/episode_return", "Column of metrics.csv (default: rollout/episode_return)."
)


def read(folder):
    """A run's label, steps and values; rows without a value are left out."""
    config = json.loads((folder / "config.json").read_text())
    with open(folder / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    if rows and METRIC.value not in rows[0]:
        raise ValueError(f"--metric must be one of {sorted(rows[0])}. Received: {METRIC.value}")
    points = [(float(r["rollout/steps"]), float(r[METRIC.value])) for r in rows if r[METRIC.value]]
    steps, values = zip(*points, strict=True) if points else ((), ())
    return f"{config['env']}, seed {config['seed']}", steps, values


def main(argv):
    """Reads the runs and draws them; returns the exit code."""
    del argv
    try:
        if not RUNS.value:
            raise ValueError("--runs is required, for instance --runs=runs/NAME.")
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ImportError(
                "examples/plot.py needs the extra 'plot': pip install 'ppo_tf[plot]'"
            ) from error
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.add_subplot()
        for run in RUNS.value:
            label, steps, values = read(Path(run))
            axes.plot(steps, values, label=label, linewidth=1)
        axes.set_xlabel("environment steps")
        axes.set_ylabel(METRIC.value)
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
        figure.savefig(OUT.value, dpi=150)
    except (ValueError, ImportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {OUT.value}")
    return 0


if __name__ == "__main__":
    app.run(main)
