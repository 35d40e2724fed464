"""Tries signals and faults of the system with the training command, and counts what comes of them.

    python tests/signal_table.py

As `fault_table`, whose processes it uses.
"""

import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import fault_table
import train_command


class Case(NamedTuple):
    """Something that happens to a run.

    Attributes:
        name: what happens.
        codes: exit codes that are right.
        prepare: what is done in the process before it begins.
        act: what is done to the process after two iterations; None: the training is a short one.
        policy: whether there must be a policy.
    """

    name: str
    codes: tuple[int, ...]
    prepare: Callable[[], None] = lambda: None
    act: Callable[[int], None] | None = None
    policy: bool = True


def send(*names, seconds=0.0):
    """Sends signals to all processes of a session, as terminals and clusters do."""

    def act(pid):
        for name in names:
            os.killpg(pid, getattr(signal, name))
            time.sleep(seconds)

    return act


def kill_a_worker(pid):
    """Kills one of the processes of the environments."""
    workers = [each for each in fault_table.session(pid) if each != pid]
    os.kill(max(workers), signal.SIGKILL)


def without(stream):
    """Closes a stream."""
    return lambda: os.close(stream)


def full(stream):
    """Puts a full device behind a stream."""
    return lambda: os.dup2(os.open("/dev/full", os.O_WRONLY), stream)


def small_files():
    """Lets no file grow beyond 2 kB, which is what a full disk looks like."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))


CASES = [
    Case("SIGTERM", (143,), act=send("SIGTERM")),
    Case("SIGHUP", (129,), act=send("SIGHUP")),
    Case("SIGTERM three times", (143,), act=send("SIGTERM", "SIGTERM", "SIGTERM")),
    Case("SIGINT", (130,), act=send("SIGINT")),
    # The second Ctrl-C is for those who don't want to wait for the export. Once Python has put back
    # the default handler at its very end, it kills the process: shells call that 130 as well.
    Case(
        "SIGINT twice",
        (130, -signal.SIGINT),
        act=send("SIGINT", "SIGINT", seconds=0.2),
        policy=False,
    ),
    Case("a worker killed", (1,), act=kill_a_worker),
    # It ends before the training, in one line.
    Case("no standard output", (1,), prepare=without(1), policy=False),
    Case("no standard error", (0,), prepare=without(2)),
    Case("a full standard output", (1,), prepare=full(1), policy=False),
    Case("a full standard error", (0,), prepare=full(2)),
    Case("a full disk", (1,), prepare=small_files, policy=False),
]


def flags(case, backend):
    """The command's flags."""
    steps = [] if case.act is None else ["--total_steps=1000000000"]
    few = [*train_command.TINY, "--checkpoint_every=32", "--logdir=run", *steps]
    return ["--env=faulty:Faulty-raise-make3-v0", *few, f"--backend={backend}"]


def attempt(case, backend):
    """Tries a case; returns (exit code, standard error, what is wrong)."""
    os.environ["FAULT"] = "no"
    folder = tempfile.mkdtemp()
    rows = Path(folder, "run", "metrics.csv")

    def when(pid):
        if case.act and rows.exists() and rows.read_text().count("\n") > 2:
            case.act(pid)
            return True
        return False

    code, left = fault_table.run(folder, flags(case, backend), "first", case.prepare, when)
    err = Path(folder, "first.err").read_text()
    good = {
        "ends": code is not None,
        "exit code": code in case.codes,
        "leaves no process": left == 0,
        "no traceback": "Traceback" not in err,
        "exports the policy": Path(folder, "run", "policy").exists() or not case.policy,
    }
    shutil.rmtree(folder)
    return code, err, [name for name, holds in good.items() if not holds]


def try_all(say=print):
    """Tries all cases; returns how many went wrong."""
    fault_table.preload()
    bad = 0
    for case in CASES:
        for backend in ("sync", "async") if case.act else ("sync",):
            if case.act is kill_a_worker and backend == "sync":
                continue
            code, err, wrong = attempt(case, backend)
            bad += bool(wrong)
            say(f"{case.name:24} {backend:5} exit {code!s:5} {', '.join(wrong) or 'good'}")
            say("    " + (err.strip().splitlines() or [""])[-1])
    return bad


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)
    sys.exit(bool(try_all()))
