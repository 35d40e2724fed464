r"""Trains many times in parallel processes: seeds, a grid of settings, or a search with Optuna.

    python examples/sweep.py --env=Pendulum-v1 --seeds=5
    python examples/sweep.py --env=CartPole-v1 --seeds=3 --grid="estimator=gae,n_step"
    python examples/sweep.py --env=Pendulum-v1 --seeds=2 --trials=30 \
        --search="learning_rate=1e-5..1e-2 log" --search="loss=clip,kl_penalty" \
        -- --total_steps=50000

What follows -- goes to examples/train.py as it stands. The sweep's folder holds sweep.json (what
was asked), per run a log folder and a .txt file of its output, results.csv (a row per run),
results.md (a row per setting, best first) and best.json. Interrupted, `--sweepdir=FOLDER` goes on:
finished runs are not run again.

Every run computes with its share of the cores. The results of a seed do not depend on that with
the default networks; those of convolutions do, by rounding.
"""

import contextlib
import csv
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

from absl import app, flags
from sweeping.runs import Grid
from sweeping.search import Search, import_optuna
from sweeping.settings import parse, text
from sweeping.tables import best_settings, csv_rows, digits_of, summary

from ppo_tf.command.runs import RESULT, is_new, lock_folder, write_json

ENV = flags.DEFINE_string("env", None, "Gymnasium id of the environment. Required, to begin.")
SEEDS = flags.DEFINE_integer("seeds", None, "Seeds per setting: 0 to SEEDS - 1. (default: 1)")
GRID = flags.DEFINE_multi_string(
    "grid", [], 'Values to try, as "estimator=gae,n_step"; again for a further setting.'
)
SEARCH = flags.DEFINE_multi_string(
    "search",
    [],
    'Values or a range for Optuna, as "loss=clip,kl_penalty", "epochs=1..20" or '
    '"learning_rate=1e-5..1e-2 log"; again for a further setting.',
)
TRIALS = flags.DEFINE_integer("trials", None, "Settings that a search tries, count. (default: 20)")
PRUNE = flags.DEFINE_boolean(
    "prune", None, "Whether a search stops trials below the median. (default: true)"
)
JOBS = flags.DEFINE_integer(
    "jobs", None, "Runs side by side, about 1 GB of memory each. (default: cores available)"
)
SWEEPDIR = flags.DEFINE_string(
    "sweepdir", None, "Folder of the sweep, new or to go on with. (default: sweeps/ENV-TIME)"
)
SCRIPT = flags.DEFINE_string(
    "script", None, "Training command of yours with the flags of the default. (default: train.py)"
)

TRAIN = Path(__file__).with_name("train.py")
POLL_SECONDS = 0.05
LOOK_SECONDS = 1.0  # between two looks at the metrics of a run
GRACE_SECONDS = 60.0  # for an interrupted run to end by itself


def what_is_asked(before, train_flags):
    """What sweep.json says, from the flags; without --env what they leave out is as before.

    Args:
        before: the folder's sweep.json; empty for a new sweep.
        train_flags: what follows --.

    Raises:
        ValueError: bad input.
    """
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
    names = list(given)
    given = {name: value for name, value in given.items() if value not in (None, {}, [])}
    if ENV.value is None:
        given = before | given
    if "env" not in given:
        raise ValueError("--env is required, for instance --env=Pendulum-v1.")
    if "grid" in given and "search" in given:
        raise ValueError("--grid and --search exclude each other. Received: both")
    if "search" in given:
        given = {"trials": 20, "prune": True} | given
    elif "trials" in given or "prune" in given:
        raise ValueError("--trials and --prune belong to a search. Received: no --search")
    given = {"seeds": 1} | given
    for name in ("seeds", "trials"):
        if given.get(name, 1) < 1:
            raise ValueError(f"{name} must be at least 1. Received: {name}={given[name]}")
    ours = {"env", "seed", "logdir", "export_dir", "resume"}
    ours |= given.get("grid", {}).keys() | given.get("search", {}).keys()
    for word in train_flags:
        name = word.lstrip("-").partition("=")[0]
        if name in ours or name.removeprefix("no") in ours:
            raise ValueError(f"The sweep itself sets {name}. Received: {word} after --")
    return {name: given[name] for name in names if name in given}


def check_folder(folder, before, asked):
    """Refuses a folder that holds something else; seeds of a grid and trials may become more.

    Raises:
        ValueError: it is neither new nor empty nor of this sweep.
    """
    if not before:
        if not is_new(folder):
            raise ValueError(f"sweepdir must be new, empty or of a sweep. Received: {folder}")
        return
    more = "trials" if "search" in asked else "seeds"
    for name in dict.fromkeys([*asked, *before]):
        there, here = before.get(name), asked.get(name)
        if there != here and not (name == more and there and here > there):
            raise ValueError(
                f"sweepdir holds another sweep, with {name}={there}. Received: {name}={here}"
            )


def training_flags(settings, asked):
    """The flags of train.py that make a setting, those after -- included."""
    # A setting of none is train.py's own where the flag is left out.
    chosen = [f"--{name}={text(v)}" for name, v in settings.items() if v is not None]
    return [f"--env={asked['env']}", *chosen, *asked.get("train_flags", [])]


def start(run, asked, threads):
    """Starts the run's process in the background."""
    arguments = [*training_flags(run.settings, asked), f"--seed={run.seed}"]
    arguments += [f"--logdir={run.folder}", "--resume=auto"]  # goes on, if there is a checkpoint
    names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
    # What the user has set goes before; unbuffered, the output stands in the order it was made in.
    environment = dict.fromkeys(names, str(threads)) | os.environ | {"PYTHONUNBUFFERED": "1"}
    script = asked.get("script") or str(TRAIN)
    with open(run.output, "w") as output:
        run.process = subprocess.Popen(
            [sys.executable, script, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches the sweep alone, which passes it on
        )
    run.status = "running"


def send(run, number):
    """Sends a signal to the run and to the processes that it started itself."""
    if os.name == "posix":
        with contextlib.suppress(ProcessLookupError, PermissionError):  # it has just ended
            os.killpg(run.process.pid, number)
    else:
        run.process.terminate()


def settle(run, interrupted):
    """Sets what became of a run whose process has ended."""
    code = run.process.returncode
    if (code == 0 or interrupted) and (run.folder / RESULT).exists():
        run.status = "finished"  # its last file
    elif interrupted and run.status != "pruned":
        run.status = "interrupted"
    elif run.status != "pruned":
        run.status = "failed"
        run.error = f"ended by signal {-code}" if code < 0 else run.last_error()


def run_all(source, asked, jobs, threads, signals, on_end):
    """Keeps `jobs` processes running until the source has no more runs, or a signal came.

    Args:
        source: a Grid or a Search.
        asked: as `what_is_asked`.
        jobs: processes side by side.
        threads: of each process.
        signals: list that a signal handler appends to; the second one kills what still runs.
        on_end: called with every run that has ended, of which the source knows already.
    """
    running = []
    next_look = deadline = None
    try:
        while True:
            while not signals and len(running) < jobs and (run := source.next()) is not None:
                start(run, asked, threads)
                running.append(run)
            if not running:
                return
            if signals and deadline is None:
                deadline = time.monotonic() + GRACE_SECONDS
                for run in running:
                    send(run, signal.SIGINT)
            elif len(signals) > 1 or (deadline and time.monotonic() > deadline):
                for run in running:
                    send(run, getattr(signal, "SIGKILL", signal.SIGTERM))
            look = not signals and (next_look is None or time.monotonic() >= next_look)
            if look:
                next_look = time.monotonic() + LOOK_SECONDS
            for run in running.copy():
                if run.process.poll() is not None:
                    running.remove(run)
                    settle(run, bool(signals))
                    source.end(run)
                    on_end(run)
                elif look and run.status == "running" and source.prune(run):
                    run.status = "pruned"
                    send(run, signal.SIGTERM)
            time.sleep(POLL_SECONDS)
    finally:
        for run in running:
            send(run, getattr(signal, "SIGKILL", signal.SIGTERM))


def cores():
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def catch_signals():
    """Returns a list to which Ctrl-C and requests to end are appended, instead of raising."""
    signals = []
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        # Ignored, as under nohup, a hang-up remains so. SIGINT must not: the runs would inherit it.
        if number and not (name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN):
            signal.signal(number, lambda received, frame: signals.append(received))
    return signals


def write_results(folder, asked, runs):
    """Writes results.csv, results.md and best.json; returns results.md's text below its title."""
    rows = csv_rows(runs)
    with open(folder / "results.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    results = summary(runs, asked["seeds"])
    best = best_settings(runs)
    if best is not None:
        write_json(folder / "best.json", best)
        script = asked.get("script") or str(Path(sys.argv[0]).with_name(TRAIN.name))
        command = shlex.join(["python", script, *training_flags(best, asked)])
        results += f"\n\nThe best setting:\n\n    {command}"
    title = shlex.join(training_flags({}, asked)).removeprefix("--env=")
    (folder / "results.md").write_text(f"# {title}\n\n{results}\n")
    return results


def show_end(run):
    """Prints what became of a run."""
    if run.status == "finished":
        mean, std = run.evaluation
        digits = digits_of(mean)
        print(f"{run.label}: return {mean:.{digits}f} +- {std:.{digits}f}", flush=True)
    else:
        print(f"{run.label}: {', '.join(filter(None, [run.status, run.error]))}", flush=True)


def main(argv):
    """Runs the sweep; returns the exit code: 0, 1 if a run failed, 2 bad input, 130 Ctrl-C."""
    signals = catch_signals()
    new = f"{(ENV.value or '').replace('/', '-')}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder = Path(SWEEPDIR.value or Path("sweeps") / new)
    try:
        jobs = cores() if JOBS.value is None else JOBS.value
        if jobs < 1:
            raise ValueError(f"jobs must be at least 1. Received: jobs={jobs}")
        file = folder / "sweep.json"
        before = json.loads(file.read_text()) if file.exists() else {}
        asked = what_is_asked(before, train_flags=argv[1:])
        check_folder(folder, before, asked)
        if "search" in asked:
            import_optuna()
            jobs = min(jobs, asked["trials"])
        else:
            source = Grid(folder, asked.get("grid", {}), asked["seeds"])
            jobs = min(jobs, len(source.runs()))
        folder.mkdir(parents=True, exist_ok=True)
        lock = lock_folder(folder, "sweepdir")
        write_json(file, asked)
        if "search" in asked:
            options = {name: asked[name] for name in ("seeds", "trials", "prune")}
            source = Search(folder, asked["search"], **options)
    except (ValueError, ImportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    threads = max(1, cores() // jobs)
    what = f"trials: {asked['trials']}" if "search" in asked else f"runs: {len(source.runs())}"
    print(f"{folder}: {what}, at a time: {jobs}, threads each: {threads}", flush=True)
    if before:
        finished = sum(run.status == "finished" for run in source.runs())
        print(f"runs finished before: {finished}", flush=True)

    def on_end(run):
        write_results(folder, asked, source.runs())
        show_end(run)

    with lock:
        run_all(source, asked, jobs, threads, signals, on_end)
    if runs := source.runs():
        print(f"\n{write_results(folder, asked, runs)}\n\nresults: {folder / 'results.csv'}")
    if signals:
        command = shlex.join(["python", sys.argv[0], f"--sweepdir={folder}"])
        print(f"interrupted; to go on: {command}", file=sys.stderr)
        return 130
    return int(any(run.status == "failed" for run in runs))


def parse_flags(argv):
    """Parses the flags; returns the rest, what follows --; a bad flag ends with one line."""
    end = argv.index("--") if "--" in argv else len(argv)
    try:
        words = flags.FLAGS(argv[:end])
    except flags.Error as error:
        print(f"error: {str(error).replace(chr(10), ' ')}", file=sys.stderr)
        sys.exit(2)
    if words[1:]:
        print(f"error: Only flags are taken before --. Received: {words[1]}", file=sys.stderr)
        sys.exit(2)
    return [argv[0], *argv[end + 1 :]]


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
