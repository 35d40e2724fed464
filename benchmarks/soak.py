"""Does a long run stay as it began? The training command, watched from outside.

    python benchmarks/soak.py                     # 20M steps of CartPole-v1, 64 environments

Trains with everything that a run can write (checkpoints, metrics.csv, TensorBoard events, periodic
evaluation) and records resident memory, open files and time per step after every tenth of the run.
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
TRAIN = HERE.parent / "examples" / "train.py"
COLUMNS = ["steps", "us_per_step", "resident_mb", "open_files"]


def watch(process, metrics, total_steps, parts):
    """Yields a row for each part of the run, as soon as the process has completed it."""
    before, start = 0, 0.0
    for part in range(1, parts + 1):
        while (now := progress(metrics)) is None or now[0] < part * total_steps // parts * 0.999:
            if process.poll() is not None:
                return
            time.sleep(0.05)
        steps, seconds = now
        yield {
            "steps": steps,
            "us_per_step": round(1e6 * (seconds - start) / (steps - before), 2),
            "resident_mb": round(resident_mb(process.pid)),
            "open_files": len(os.listdir(f"/proc/{process.pid}/fd")),
        }
        before, start = steps, seconds


def progress(metrics):
    """Returns environment steps and seconds from the last complete row, or None."""
    if not metrics.exists():
        return None
    with open(metrics, "rb") as file:
        header = file.readline().decode().strip().split(",")
        file.seek(max(metrics.stat().st_size - 4096, 0))
        lines = file.read().decode().split("\n")[:-1]
    row = dict(zip(header, lines[-1].split(","), strict=False)) if lines else {}
    try:
        return int(float(row["rollout/steps"])), float(row["time/seconds"])
    except (KeyError, ValueError):  # the header alone
        return None


def resident_mb(pid):
    """Returns the resident memory of a process, in MB."""
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def main():
    """Trains, prints the table and writes it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=20_000_000, help="total (default: 20M)")
    parser.add_argument("--parts", type=int, default=10, help="rows of the table (default: 10)")
    default = HERE / "results" / "soak.csv"
    parser.add_argument("--out", type=Path, default=default, help=f"CSV file (default: {default})")
    args = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        logdir = Path(folder) / "run"
        flags = ["--env=CartPole-v1", "--num_envs=64", "--horizon=128", "--minibatch_size=1024"]
        flags += ["--epochs=4", "--checkpoint_every=1000000", "--eval_every=1000000"]
        process = subprocess.Popen(
            [sys.executable, TRAIN, *flags, f"--total_steps={args.steps}", f"--logdir={logdir}"],
            stdout=subprocess.DEVNULL,
        )
        print(*(f"{name:>12}" for name in COLUMNS))
        for row in watch(process, logdir / "metrics.csv", args.steps, args.parts):
            print(*(f"{value:>12,}" for value in row.values()), flush=True)
            rows.append(row)
        if process.wait():
            sys.exit(f"the run ended with code {process.returncode}")
    with open(args.out, "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
