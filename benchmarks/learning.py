"""What the training command learns, over seeds: the tables of benchmarks/README.md with raw CSV.

    python benchmarks/learning.py --env=Pendulum-v1 --seeds=10
    python benchmarks/learning.py --env=CartPole-v1 --seeds=3 --pairs

Each run is examples/train.py in a separate process, with no flags but the environment, the seed
and, with --pairs, the estimator and the loss. Other flags are passed on to the training command.
"""

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = ["env", "estimator", "loss", "seed", "steps", "mean_return", "std_return", "episodes"]
COLUMNS += ["min_return", "sampled_mean_return", "seconds"]


def run(env, seed, flags, estimator="", loss=""):
    """Trains once; returns the run's row."""
    with tempfile.TemporaryDirectory() as folder:
        logdir = Path(folder) / "run"
        command = [sys.executable, ROOT / "examples" / "train.py", f"--env={env}", f"--seed={seed}"]
        start = time.perf_counter()
        subprocess.run(
            [*command, f"--logdir={logdir}", *flags], check=True, stdout=subprocess.DEVNULL
        )
        seconds = time.perf_counter() - start
        evaluation = json.loads((logdir / "evaluation.json").read_text())
        with open(logdir / "metrics.csv") as file:
            steps = [row["rollout/steps"] for row in csv.DictReader(file)][-1]
    result = evaluation["deterministic"]
    return {
        "env": env,
        "estimator": estimator,
        "loss": loss,
        "seed": seed,
        "steps": int(float(steps)),
        "sampled_mean_return": evaluation["sampled"]["mean_return"],
        "seconds": round(seconds, 1),
        **{name: result[name] for name in ("mean_return", "std_return", "episodes", "min_return")},
    }


def jobs(args):
    """Returns the arguments of `run` for each run to make."""
    if not args.pairs:
        return [(args.env, seed, args.flags) for seed in range(args.seeds)]
    listed = []
    for estimator in ("gae", "n_step", "reward_to_go"):
        for loss in ("clip", "kl_penalty", "policy_gradient"):
            flags = [f"--estimator={estimator}", f"--loss={loss}", *args.flags]
            if loss == "policy_gradient":  # right for one pass over fresh data: less at a time
                flags += ["--epochs=1", "--horizon=32", "--minibatch_size=64"]
            listed += [(args.env, seed, flags, estimator, loss) for seed in range(args.seeds)]
    return listed


def main():
    """Runs everything, writes the CSV and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--env", required=True)
    parser.add_argument("--seeds", type=int, default=10, help="seeds 0 to N-1 (default: 10)")
    parser.add_argument("--pairs", action="store_true", help="all estimators with all losses")
    parser.add_argument("--parallel", type=int, default=1, help="runs at a time (default: 1)")
    parser.add_argument("--out", type=Path, help="CSV file (default: in benchmarks/results)")
    args, args.flags = parser.parse_known_args()
    with ThreadPoolExecutor(args.parallel) as pool:
        rows = list(pool.map(lambda job: run(*job), jobs(args)))
    name = f"learning-{args.env}{'-pairs' if args.pairs else ''}.csv"
    out = args.out or ROOT / "benchmarks" / "results" / name
    with open(out, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    groups = {}
    for row in rows:
        groups.setdefault((row["estimator"], row["loss"]), []).append(row)
    for (estimator, loss), group in groups.items():
        means = [row["mean_return"] for row in group]
        seconds = statistics.median(row["seconds"] for row in group)
        spread = statistics.stdev(means) if len(means) > 1 else 0.0
        print(
            f"{args.env} {estimator} {loss}: mean {statistics.mean(means):.1f} +- {spread:.1f} "
            f"over {len(means)} seeds, worst {min(means):.1f}, best {max(means):.1f}, "
            f"{group[0]['steps']:,} steps, median {seconds:.1f} s"
        )
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
