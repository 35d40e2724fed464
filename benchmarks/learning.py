"""What the training command learns: tables of environments x settings x seeds, with raw CSV.

    python benchmarks/learning.py cartpole
    python benchmarks/learning.py mujoco --envs=Hopper-v5,Ant-v5 --seeds=0,1
    nohup python benchmarks/learning.py paper > paper.log &

The tables are declared in benchmarks/tables.py. Each run is the training command in a process of
its own with its share of the cores; `--jobs` run at a time. When a run ends, its row is appended to
results/learning-NAME.csv and its learning curve to results/curves-NAME.csv. Started again, the
command skips the runs that have a row and resumes the others from their checkpoints in
runs/learning/NAME. At the end, and with --report alone, it prints the table and draws the curves.
"""

import argparse
import collections
import csv
import json
import sys
import time
from pathlib import Path

import numpy as np
from tables import TABLES

from ppo_tf.command.runs import RESULT
from ppo_tf.command.sweeping.grid import Run
from ppo_tf.command.sweeping.processes import TRAIN, caught_signals, cores, run_all
from ppo_tf.command.sweeping.space import as_flags, describe
from ppo_tf.support.extras import missing, needs

FOLDER = Path(__file__).resolve().parent
RESULTS = FOLDER / "results"
RUNS = FOLDER.parent / "runs" / "learning"
ROW = ["env", "label", "seed", "steps", "mean_return", "std_return", "min_return", "max_return"]
ROW += ["episodes", "sampled_mean_return", "training_return", "seconds", "steps_per_second"]
ROW += ["settings"]
POINT = ["env", "label", "seed", "steps", "return"]
POINTS = 50  # of a learning curve


class Cells:
    """The runs of a table that have no row yet; see `processes.Source`.

    Args:
        name: the table's name.
        envs: environments to run.
        labels: settings to run.
        seeds: seeds to run.
    """

    def __init__(self, name, envs, labels, seeds):
        self.name = name
        table = TABLES[name]
        done = rows_by_cell(name)
        self.waiting = collections.deque()
        for seed in seeds:  # outer loop: every cell gets a result early
            for env in envs:
                for label in labels:
                    settings = table.settings_of(env, label)
                    row = done.get((env, label, seed))
                    if row is None:
                        folder = RUNS / name / f"{env}-{label.replace(' ', '_')}-seed{seed}"
                        text = f"{env} {label}, seed {seed}".replace("/", "-")
                        run = Run(text, label, {"env": env, **settings}, seed, folder)
                        self.waiting.append(run)
                    elif {*row["settings"].split()} != {*describe(settings).split()}:
                        sys.exit(
                            f"error: {file_of(name)} has a row of {env}, {label}, seed {seed} with "
                            f"other settings; delete it to rerun. Received: {row['settings']}"
                        )

    def next(self):
        """Returns the next run to start, or None; what has ended without a row gets it."""
        while self.waiting:
            run = self.waiting.popleft()
            run.folder.parent.mkdir(parents=True, exist_ok=True)
            if run.status != "finished":
                return run
            self.end(run)
        return None

    def prune(self, run):
        """Returns False: no run is pruned."""
        return False

    def end(self, run):
        """Appends the row and the curve of a run that has finished."""
        if run.status == "finished":
            means = training(run)
            record(self.name, row_of(run, means), means, run.total_steps())
        print(time.strftime("%H:%M"), run.label, outcome(run), flush=True)


def outcome(run):
    """Returns how a run ended."""
    if run.status == "finished":
        return "{:.1f} +- {:.1f}".format(*run.evaluation)
    return f"{run.status} {run.error}"


def file_of(name, what="learning"):
    """Returns the path of a table's results."""
    return RESULTS / f"{what}-{name}.csv"


def rows_of(name):
    """Returns the rows of a table so far."""
    if not file_of(name).exists():
        return []
    with open(file_of(name), newline="") as file:
        return list(csv.DictReader(file))


def rows_by_cell(name):
    """Returns the rows of a table so far by environment, label and seed."""
    return {(row["env"], row["label"], int(row["seed"])): row for row in rows_of(name)}


def record(name, row, means, total_steps):
    """Appends a run's curve and row to a table; the row says that it is done.

    Args:
        name: the table's name.
        row: the row by column.
        means: float [N, 2], steps and the mean return of the last 100 episodes at these steps.
        total_steps: steps of the run.
    """
    append(file_of(name, "curves"), POINT, points(row, means, total_steps))
    append(file_of(name), ROW, [row])


def append(path, columns, rows):
    """Appends rows to a CSV file, which gets its header first."""
    with open(path, "a", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        if file.tell() == 0:
            writer.writeheader()
        writer.writerows(rows)


def row_of(run, means):
    """Returns the row of a finished run; means as in `record`."""
    result = json.loads((run.folder / RESULT).read_text())
    deterministic = result["deterministic"]
    names = ROW[4:9]
    settings = {name: value for name, value in run.settings.items() if name != "env"}
    return {
        "env": run.settings["env"],
        "label": run.group,
        "seed": run.seed,
        "steps": int(run.metrics("rollout/steps")[-1][0]),
        **{name: round(deterministic[name], 3) for name in names},
        "sampled_mean_return": round(result["sampled"]["mean_return"], 3),
        "training_return": round(means[-1, 1], 3) if len(means) else "",
        "seconds": run.seconds,
        "steps_per_second": run.steps_per_second,
        "settings": describe(settings),
    }


def training(run):
    """Returns float [N, 2]: steps, and the mean return of the last 100 episodes at these steps."""
    found = np.array(run.metrics("rollout/steps", "rollout/episode_return"))
    return found[np.isfinite(found[:, 1])]


def points(row, means, total_steps):
    """Returns the learning curve: the last of the means [N, 2] in each fiftieth of the steps."""
    width = total_steps / POINTS
    last = {int(np.ceil(steps / width)): mean for steps, mean in means}
    return [
        {name: row[name] for name in POINT[:3]}
        | {"steps": round(number * width), "return": round(mean, 3)}
        for number, mean in last.items()
    ]


def command_of(run):
    """Returns the training command of a run."""
    return [*TRAIN, *as_flags(run.settings)]


def chosen(given, all_of, what):
    """Returns the given names, or all."""
    for name in given:
        if name not in all_of:
            sys.exit(f"error: --{what} must be of {', '.join(all_of)}. Received: {name}")
    return given or list(all_of)


def main():
    """Runs what is missing of a table, prints it and draws its curves."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("table", choices=list(TABLES), help="name of the table")
    parser.add_argument("--envs", default="", help="these of its environments (default: all)")
    parser.add_argument("--labels", default="", help="these of its settings (default: all)")
    parser.add_argument("--seeds", default="", help="these seeds (default: all)")
    parser.add_argument("--jobs", type=int, default=cores(), help="runs at a time (default: cores)")
    parser.add_argument("--report", action="store_true", help="only print and draw what is there")
    args = parser.parse_args()
    table = TABLES[args.table]
    split = [[word for word in text.split(",") if word] for text in (args.envs, args.labels)]
    envs = chosen(split[0], table.envs, "envs")
    labels = chosen(split[1], table.settings, "labels")
    default = range(table.first_seed, table.first_seed + table.seeds)
    seeds = [int(word) for word in args.seeds.split(",") if word] or default
    failed = []
    if not args.report:
        cells = Cells(args.table, envs, labels, seeds)
        threads = max(1, cores() // args.jobs)
        with caught_signals() as signals:
            run_all(
                cells,
                command_of,
                args.jobs,
                threads,
                signals,
                lambda run: failed.append(run) if run.status == "failed" else None,
            )
    if missing("plot"):
        print(needs("The report", "plot"))
        return 1
    from report import report

    report(args.table, rows_of(args.table), file_of(args.table, "curves"))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
