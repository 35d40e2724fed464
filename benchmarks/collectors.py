"""What collectors gain, and what it costs when they are killed.

    python benchmarks/collectors.py scaling    # a simulator that sleeps 5 ms a step
    python benchmarks/collectors.py python     # training on Acrobot-v1, stepped by Python
    python benchmarks/collectors.py kills      # runs whose collectors are killed

Every measurement is a separate process; those of a table take turns. The raw figures are in
results/collectors-NAME.csv. Gymnasium's AsyncVectorEnv is measured beside ours.
"""

import argparse
import csv
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ppo_tf.training.packing import unpack

HERE = Path(__file__).resolve().parent
WORKER = "collecting.workers.process import main"  # in the command line of a collector


def measure(**job):
    """Measures in a process; returns the row."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)])}
    done = subprocess.run(
        [sys.executable, HERE / "collectors_worker.py", json.dumps(job)],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{job} failed:\n{done.stderr[-2000:]}")
    return job | json.loads(done.stdout.strip().splitlines()[-1])


def scaling(args):
    """Steps/s of 32 sleeping environments by number of workers."""
    jobs = [{"what": "ppo_tf", "collectors": n} for n in (0, 1, 2, 4, 8, 16, 32)]
    jobs += [{"what": "AsyncVectorEnv"}]
    rows = in_turns(args, [{**job, "env": "sleeping:Sleeping-v0"} for job in jobs])
    one = statistics.median(r["steps_per_second"] for r in rows if r.get("collectors") == 1)
    for row in table(rows, ("what", "collectors")):
        workers = row["collectors"]
        share = f"{row['rate'] / one / workers:5.2f} of linear" if workers else ""
        print(f"{row['text']}  {share}")


def python_bound(args):
    """Training on Acrobot-v1 without EnvPool."""
    jobs = [{"what": "ppo_tf", "collectors": 0}, {"what": "ppo_tf", "collectors": 2}]
    jobs += [{"what": "ppo_tf", "collectors": n, "staleness": 1} for n in (1, 2)]
    common = {"env": "Acrobot-v1", "train": True}
    rows = in_turns(args, [{**common, **job} for job in jobs])
    keys = ("what", "collectors", "staleness")
    base = statistics.median(r["steps_per_second"] for r in rows if r["collectors"] == 0)
    for row in table(rows, keys):
        print(f"{row['text']}  {row['rate'] / base:5.2f} times the rate of one process")


def in_turns(args, jobs):
    """Measures all jobs `repeats` times in turns, and writes the rows to the CSV."""
    rows = []
    for repeat in range(args.repeats):
        for job in jobs:
            rows.append(measure(**job) | {"repeat": repeat})
            print(rows[-1], flush=True)
    write(args.table, rows)
    return rows


def write(table, rows):
    """Writes the CSV of a table."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with open(HERE / "results" / f"collectors-{table}.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def table(rows, keys):
    """Medians over the repeats, by job."""
    groups = {}
    for row in rows:
        groups.setdefault(tuple(row.get(key) for key in keys), []).append(row)
    for key, group in groups.items():
        rates = [row["steps_per_second"] for row in group]
        memory = statistics.median(row.get("worker_mb", 0) for row in group)
        name = " ".join(f"{k}={v}" for k, v in zip(keys, key, strict=True) if v is not None)
        rate = statistics.median(rates)
        text = f"{name:40} {rate:9,.0f} steps/s ({min(rates):,.0f} to {max(rates):,.0f})"
        text += f"  {memory:4.0f} MB a worker" if memory else ""
        yield dict(zip(keys, key, strict=True)) | {"text": text, "rate": rate}


def kills(args):
    """Kills collectors, and now and then a learner; compares with a run in peace."""
    flags = ["--env=Pendulum-v1", "--backend=sync", "--total_steps=120000", "--collectors=4"]
    flags += ["--checkpoint_every=20000", "--checkpoint_minutes=0", "--eval_episodes=5"]
    flags += ["--max_restarts=20"]
    generator, done, runs, rows = random.Random(args.seed), 0, 0, []
    with tempfile.TemporaryDirectory() as folder:
        quiet = Path(folder) / "quiet"
        run_with_kills(flags, quiet, generator, 0)
        while done < args.kills:
            logdir = Path(folder) / f"run{runs}"
            counts = run_with_kills(flags, logdir, generator, args.kills - done)
            same = {name: contents(logdir, name) == contents(quiet, name) for name in COMPARED}
            done, runs = done + counts["collectors"], runs + 1
            rows.append({"run": runs, **counts, **same})
            print(rows[-1], flush=True)
            shutil.rmtree(logdir)
    write(args.table, rows)
    good = sum(all(row[name] for name in COMPARED) for row in rows)
    print(f"{done} kills of collectors in {runs} runs; {good} ended like the one in peace")
    return 0 if good == runs else 1


COMPARED = ("metrics.csv", "evaluation.json", "weights")


def contents(logdir, name):
    """What a run has produced, apart from times."""
    if name == "weights":
        newest = max((logdir / "checkpoints").glob("*.checkpoint"), key=lambda p: p.stat().st_mtime)
        variables, _ = unpack(newest.read_bytes())
        return {key: array.tobytes() for key, array in variables.items()}
    if name.endswith(".csv"):
        with open(logdir / name, newline="") as file:
            rows = list(csv.DictReader(file))
        return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]
    return (logdir / name).read_text()


def run_with_kills(flags, logdir, generator, most):
    """Trains; kills collectors at random moments and the learner once in a while."""
    counts = {"collectors": 0, "learner": 0}
    command = [sys.executable, "-m", "ppo_tf", "train", *flags, f"--logdir={logdir}"]
    while True:
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        while process.poll() is None and most:
            time.sleep(generator.uniform(0.3, 2.0))
            workers = children(process.pid)
            if counts["learner"] < 1 and generator.random() < 0.05 and checkpointed(logdir):
                process.kill()
                counts["learner"] += 1
                break
            if workers and counts["collectors"] < most and training(logdir):
                try:
                    os.kill(generator.choice(workers), signal.SIGKILL)
                except ProcessLookupError:
                    continue
                counts["collectors"] += 1
        error = process.communicate()[1]
        if process.returncode == 0:
            return counts
        if process.returncode != -signal.SIGKILL:
            sys.exit(f"the run failed:\n{error[-2000:]}")
        command = [sys.executable, "-m", "ppo_tf", "train", f"--resume={logdir}"]


def training(logdir):
    """Whether a run has begun to train and not yet ended."""
    return (logdir / "metrics.csv").exists()


def checkpointed(logdir):
    """Whether a run has a checkpoint."""
    return any((logdir / "checkpoints").glob("*.checkpoint"))


def children(pid):
    """The collectors of a process."""
    listed = subprocess.run(
        ["pgrep", "-P", str(pid), "-f", WORKER], capture_output=True, text=True, check=False
    )
    return [int(word) for word in listed.stdout.split()]


def main():
    """Runs a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("table", choices=("scaling", "python", "kills"), help="what to measure")
    parser.add_argument("--repeats", type=int, default=3, help="repeats of each (default: 3)")
    parser.add_argument("--kills", type=int, default=100, help="collectors to kill (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="of the kills (default: 0)")
    args = parser.parse_args()
    return {"scaling": scaling, "python": python_bound, "kills": kills}[args.table](args)


if __name__ == "__main__":
    sys.exit(main())
