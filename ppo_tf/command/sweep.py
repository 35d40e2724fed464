r"""Trains many times in parallel processes: seeds, a grid of settings, or a search with Optuna.

    ppo-tf sweep --env=Pendulum-v1 --seeds=5
    ppo-tf sweep --env=CartPole-v1 --seeds=3 --grid="estimator=gae,n_step"
    ppo-tf sweep --env=Pendulum-v1 --seeds=2 --trials=30 \
        --search="learning_rate=1e-5..1e-2 log" --search="loss=clip,kl_penalty" \
        -- --total_steps=50000

Flags after -- are passed to the training command unchanged. The sweep's folder holds sweep.json
(the request), a log folder and a .txt file of output per run, results.csv (a row per run),
results.md (a row per combination of settings, best first) and best.json. `--sweepdir=FOLDER`
resumes an interrupted sweep; finished runs are not repeated. A --script is given again then: what a
folder's file names is never run.

Each run uses its share of the cores. With the default networks the results of a seed do not depend
on it; those of convolutions do, through rounding.
"""

from __future__ import annotations

import csv
import io
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import filelock
from absl import flags

from ppo_tf.command import parsing
from ppo_tf.command.runs import lock_folder
from ppo_tf.command.sweeping.grid import Grid, Run
from ppo_tf.command.sweeping.processes import (
    TRAIN,
    Launch,
    LocalProcess,
    Source,
    caught_signals,
    cores,
    run_all,
)
from ppo_tf.command.sweeping.request import (
    Request,
    check_folder,
    complete,
    read,
    training_flags,
)
from ppo_tf.command.sweeping.search import Search, import_optuna
from ppo_tf.command.sweeping.space import parse
from ppo_tf.command.sweeping.tables import best_settings, csv_rows, digits_of, summary
from ppo_tf.support.files import write_text
from ppo_tf.support.json_files import write_json
from ppo_tf.support.ray_cluster import connect
from ppo_tf.support.telling import tell

FLAGS = flags.FlagValues()
ENV = flags.DEFINE_string(
    "env",
    None,
    "Gymnasium id of the environment. Required for a new sweep.",
    flag_values=FLAGS,
)
SEEDS = flags.DEFINE_integer(
    "seeds",
    None,
    "Seeds per combination: 0 to SEEDS - 1 (default: 1).",
    flag_values=FLAGS,
)
GRID = flags.DEFINE_multi_string(
    "grid",
    [],
    'Values to try, as "estimator=gae,n_step"; repeat for further settings.',
    flag_values=FLAGS,
)
SEARCH = flags.DEFINE_multi_string(
    "search",
    [],
    'Values or a range for Optuna, as "loss=clip,kl_penalty", "epochs=1..20" or '
    '"learning_rate=1e-5..1e-2 log"; repeat for further settings.',
    flag_values=FLAGS,
)
TRIALS = flags.DEFINE_integer(
    "trials", None, "Number of trials of a search (default: 20).", flag_values=FLAGS
)
PRUNE = flags.DEFINE_boolean(
    "prune",
    None,
    "Whether to stop trials of a search below the median (default: true).",
    flag_values=FLAGS,
)
JOBS = flags.DEFINE_integer(
    "jobs",
    None,
    "Number of parallel runs, about 1 GB of memory each (default: available cores).",
    flag_values=FLAGS,
)
RAY_ADDRESS = flags.DEFINE_string(
    "ray_address",
    None,
    "Ray cluster whose machines run the sweep: auto, local or HOST:PORT (default: this machine).",
    flag_values=FLAGS,
)
SWEEPDIR = flags.DEFINE_string(
    "sweepdir",
    None,
    "Folder of a new sweep or of one to resume (default: sweeps/ENV-TIME).",
    flag_values=FLAGS,
)
SCRIPT = flags.DEFINE_string(
    "script",
    None,
    "Your own training script, with the flags of `ppo-tf train` (default: that command).",
    flag_values=FLAGS,
)


class Sweep(NamedTuple):
    """A sweep that is ready to run.

    Attributes:
        folder: folder of all files.
        asked: the request.
        source: the runs.
        jobs: number of parallel runs.
        threads: number of threads of each.
        launch: starts a run.
        resumed: whether the sweep was started before.
        lock: keeps other processes from writing to the folder.
    """

    folder: Path
    asked: Request
    source: Source
    jobs: int
    threads: int
    launch: Launch
    resumed: bool
    lock: filelock.BaseFileLock


def main(argv: Sequence[str]) -> int:
    """Runs the command.

    Args:
        argv: arguments after the command's name; those after -- are for the training command.

    Returns:
        The exit code: 0; 1 if a run failed or a result could not be written; 2 if the sweep did not
        start; 130 after Ctrl-C.
    """
    end = list(argv).index("--") if "--" in argv else len(argv)
    train_flags = list(argv[end + 1 :])
    with caught_signals() as signals:
        return parsing.run(
            lambda words: sweep(train_flags, signals), FLAGS, argv[:end], description=__doc__
        )


def sweep(train_flags: list[str], signals: Sequence[int]) -> int:
    """Prepares the sweep, runs it and prints the results; returns the exit code."""
    prepared = prepare(train_flags)
    try:
        with prepared.lock:
            perform(prepared, signals)
        runs = prepared.source.runs()
        if runs:
            results = write_results(prepared.folder, prepared.asked, runs)
            print(f"\n{results}\n\nresults: {prepared.folder / 'results.csv'}")
    except OSError as error:
        parsing.fail(error)
        return 1
    if signals:
        script = [f"--script={prepared.asked['script']}"] if "script" in prepared.asked else []
        cluster = [f"--ray_address={RAY_ADDRESS.value}"] if RAY_ADDRESS.value else []
        words = ["ppo-tf", "sweep", f"--sweepdir={prepared.folder}", *script, *cluster]
        command = shlex.join(words)
        tell(f"interrupted; to resume: {command}")
        return 130
    return int(any(run.status == "failed" for run in runs))


def prepare(train_flags: list[str]) -> Sweep:
    """Returns the sweep that the flags describe, with its folder created and locked.

    Raises:
        ValueError: bad input, or another process is running the sweep.
        ImportError: a search needs Optuna, which is not installed.
        OSError: the folder can't be created.
    """
    if JOBS.value is not None and JOBS.value < 1:
        raise ValueError(f"jobs must be at least 1. Received: jobs={JOBS.value}")
    new = f"{(ENV.value or '').replace('/', '-')}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = Path(SWEEPDIR.value or Path("sweeps") / new)
    before = read(folder)
    given = {
        "env": ENV.value,
        "seeds": SEEDS.value,
        "grid": parse("grid", GRID.value),
        "search": parse("search", SEARCH.value),
        "trials": TRIALS.value,
        "prune": PRUNE.value,
        "script": SCRIPT.value,
        "train_flags": train_flags,
    }
    asked = complete(given, before)
    check_folder(folder, before, asked)
    if given["env"] is None:
        parsing.name_module(asked["env"], folder / "sweep.json")
    if "search" in asked:
        import_optuna()
    else:
        source: Source = Grid(folder, asked.get("grid", {}), asked["seeds"])
    count, largest, launch = machines(RAY_ADDRESS.value)
    folder.mkdir(parents=True, exist_ok=True)
    lock = lock_folder(folder, "sweepdir")
    write_json(folder / "sweep.json", asked)
    if "search" in asked:
        options = {name: asked[name] for name in ("seeds", "trials", "prune")}
        source = Search(folder, asked["search"], **options)
    runs = asked["trials"] if "search" in asked else len(source.runs())
    jobs = min(JOBS.value or count, runs)
    threads = max(1, min(count // jobs, largest))
    return Sweep(folder, asked, source, jobs, threads, launch, bool(before), lock)


def machines(ray_address: str | None) -> tuple[int, int, Launch]:
    """Returns the number of cores for the sweep, those of the largest machine, and who starts runs.

    Raises:
        ImportError: Ray is not installed.
        ConnectionError: there is no cluster at the address.
    """
    if ray_address is None:
        return cores(), cores(), LocalProcess
    ray = connect(ray_address)
    from ppo_tf.command.sweeping.ray_processes import RayProcess  # which imports Ray

    counts = [int(x["Resources"].get("CPU", 0)) for x in ray.nodes() if x["Alive"]]
    return max(1, sum(counts)), max(1, *counts), RayProcess


def perform(prepared: Sweep, signals: Sequence[int]) -> None:
    """Performs the unfinished runs, and writes the results after each."""
    folder, asked, source, jobs, threads, launch = prepared[:6]
    what = f"trials: {asked['trials']}" if "search" in asked else f"runs: {len(source.runs())}"
    print(f"{folder}: {what}, in parallel: {jobs}, threads each: {threads}", flush=True)
    if prepared.resumed:
        finished = sum(run.status == "finished" for run in source.runs())
        print(f"runs already finished: {finished}", flush=True)

    def command_of(run: Run) -> list[str]:
        script = [asked["script"]] if "script" in asked else TRAIN
        return [*script, *training_flags(run.settings, asked)]

    def on_end(run: Run) -> None:
        write_results(folder, asked, source.runs())
        show_end(run)

    run_all(source, command_of, jobs, threads, signals, on_end, launch)


def write_results(folder: Path, asked: Request, runs: Sequence[Run]) -> str:
    """Writes results.csv, results.md and best.json; returns results.md without its title."""
    rows = csv_rows(runs)
    table = io.StringIO()
    writer = csv.DictWriter(table, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(folder / "results.csv", table.getvalue())
    results = summary(runs, asked["seeds"])
    best = best_settings(runs)
    if best is not None:
        write_json(folder / "best.json", best)
        command = ["python", asked["script"]] if "script" in asked else ["ppo-tf", "train"]
        words = shlex.join([*command, *training_flags(best, asked)])
        results += f"\n\nThe best settings:\n\n    {words}"
    title = shlex.join(training_flags({}, asked)).removeprefix("--env=")
    write_text(folder / "results.md", f"# {title}\n\n{results}\n")
    return results


def show_end(run: Run) -> None:
    """Prints the outcome of a run."""
    if run.status == "finished":
        mean, std = run.evaluation
        digits = digits_of(mean)
        print(f"{run.label}: return {mean:.{digits}f} +- {std:.{digits}f}", flush=True)
    else:
        print(f"{run.label}: {', '.join(filter(None, [run.status, run.error]))}", flush=True)
