"""Runs a sweep's training runs as parallel processes.

Separate processes ensure that a crash ends one run only and that each gets its share of the cores.
Each has a guard, which ends it when the sweep is killed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from ppo_tf.command.runs import RESULT, is_locked
from ppo_tf.command.sweeping.grid import Run
from ppo_tf.support.files import open_regular

TRAIN = ("-m", "ppo_tf", "train")  # the training command, as Python's arguments
GUARD = ("-m", "ppo_tf.command.sweeping.guard")
POLL_SECONDS = 0.05
LOOK_SECONDS = 1.0  # between two looks at a run's metrics
GRACE_SECONDS = 60.0  # for an interrupted run to end on its own
KILL = getattr(signal, "SIGKILL", signal.SIGTERM)


class Source(Protocol):
    """Where the runs of a sweep come from: a grid or a search."""

    def next(self) -> Run | None:
        """Returns a run to start, or None if there is none now."""
        ...

    def prune(self, run: Run) -> bool:
        """Whether to stop a running run."""
        ...

    def end(self, run: Run) -> None:
        """Processes the outcome of a run."""
        ...

    def runs(self) -> list[Run]:
        """Returns all runs so far."""
        ...


class Process(Protocol):
    """A run's process, wherever it is."""

    def poll(self) -> int | None:
        """Returns the exit code, negative for a signal; None while it runs."""
        ...

    def send(self, number: int) -> None:
        """Sends a signal to it and to the processes that it started."""
        ...


Launch = Callable[[Run, Sequence[str], int], Process]  # (run, Python's arguments, threads)


def run_all(
    source: Source,
    command_of: Callable[[Run], Sequence[str]],
    jobs: int,
    threads: int,
    signals: Sequence[int],
    on_end: Callable[[Run], None],
    launch: Launch,
) -> None:
    """Keeps `jobs` processes running until the source has no more runs or a signal arrives.

    Args:
        source: where runs come from.
        command_of: returns Python's arguments for a run: the training command or a script with its
            flags, but for the run's seed and folder.
        jobs: number of parallel processes.
        threads: number of threads of each process.
        signals: signals received so far, see `caught_signals`. The first interrupts the runs, the
            second kills them.
        on_end: called with every run that has ended, after the source's `end`.
        launch: starts a run's process: `LocalProcess`, or on a cluster.
    """
    running: list[Run] = []
    starting: dict[Run, float] = {}  # with the time until which to wait for their folders
    next_look = deadline = None
    try:
        while True:
            while not signals and len(running) + len(starting) < jobs and (run := source.next()):
                starting[run] = time.monotonic() + GRACE_SECONDS
            for run in [] if signals else list(starting):
                if _is_free(run, starting[run]):
                    del starting[run]
                    run.process = launch(run, command_of(run), threads)
                    run.status = "running"
                    running.append(run)
            if not running and (signals or not starting):
                return
            if signals and deadline is None:
                deadline = time.monotonic() + GRACE_SECONDS
                for run in running:
                    run.process.send(signal.SIGINT)
            elif len(signals) > 1 or (deadline and time.monotonic() > deadline):
                for run in running:
                    run.process.send(KILL)
            look = not signals and (next_look is None or time.monotonic() >= next_look)
            if look:
                next_look = time.monotonic() + LOOK_SECONDS
            for run in running.copy():
                if (code := run.process.poll()) is not None:
                    running.remove(run)
                    _settle(run, code, bool(signals))
                    source.end(run)
                    on_end(run)
                elif look and run.status == "running" and source.prune(run):
                    run.status = "pruned"
                    run.process.send(signal.SIGTERM)
            time.sleep(POLL_SECONDS)
    finally:
        for run in running:
            run.process.send(KILL)


def _is_free(run: Run, until: float) -> bool:
    """Whether a run can start: runs of a sweep that was killed may take a while to end.

    After a time it starts in any case; whoever else writes to its folder is then its error.
    """
    if not is_locked(run.folder) or time.monotonic() > until:
        return True
    if run.status == "waiting":
        run.status = "held"
        print(f"{run.label}: waits for the process that still writes to its folder", flush=True)
    return False


def run_words(run: Run, command: Sequence[str]) -> list[str]:
    """Returns Python's arguments for a run, with its seed and its folder."""
    # From its checkpoint, if any.
    return [*command, f"--seed={run.seed}", f"--logdir={run.folder}", "--resume=auto"]


def start(words: Sequence[str], output: Path, threads: int) -> subprocess.Popen[bytes]:
    """Starts a process of Python in the background, under guard.

    Args:
        words: Python's arguments.
        output: file of what it prints.
        threads: number of its threads.
    """
    names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
    # The user's own values win. Unbuffered, so that lines appear in the order of printing.
    environment = dict.fromkeys(names, str(threads)) | os.environ | {"PYTHONUNBUFFERED": "1"}
    handle = open_regular(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    with open(handle, "wb") as file:
        return subprocess.Popen(
            [sys.executable, *GUARD, sys.executable, *words],
            stdin=subprocess.PIPE,  # the guard sees it close when the sweep ends
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # only the sweep gets Ctrl-C, and passes it on
        )


def send(process: subprocess.Popen[bytes], number: int) -> None:
    """Sends a signal to a process under guard, and to the processes that it started."""
    if os.name == "posix":
        with contextlib.suppress(ProcessLookupError, PermissionError):  # it has just ended
            os.killpg(process.pid, number)
    else:
        process.terminate()


class LocalProcess:
    """A run's process on this machine; see `Process`."""

    def __init__(self, run: Run, command: Sequence[str], threads: int):
        self._process = start(run_words(run, command), run.output, threads)

    def poll(self) -> int | None:
        """See `Process`."""
        code = self._process.poll()
        if code is not None and self._process.stdin is not None:
            self._process.stdin.close()
        return code

    def send(self, number: int) -> None:
        """See `Process`."""
        send(self._process, number)


def _settle(run: Run, code: int, interrupted: bool) -> None:
    """Sets the status of a run whose process has ended with an exit code."""
    if (code == 0 or interrupted) and run.has_result:
        run.status = "finished"  # the result is its last file
    elif interrupted and run.status != "pruned":
        run.status = "interrupted"
    elif code == 0 and run.status != "pruned":
        run.status, run.error = "failed", f"its {RESULT} is missing or can't be read"
    elif run.status != "pruned":
        run.status = "failed"
        run.error = f"ended by signal {-code}" if code < 0 else run.last_error()


@contextlib.contextmanager
def caught_signals() -> Iterator[list[int]]:
    """Context in which Ctrl-C and termination signals do not raise, but are appended to a list.

    Yields:
        The list of signal numbers received so far.
    """
    signals: list[int] = []
    before: dict[int, Any] = {}
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        # An ignored hang-up (nohup) stays ignored; an ignored SIGINT would be inherited by runs.
        if number and not (name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN):
            before[number] = signal.signal(number, lambda received, frame: signals.append(received))
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def cores() -> int:
    """Returns the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
