"""Runs of a sweep as processes on the machines of a Ray cluster."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from ppo_tf.command.sweeping.grid import Run
from ppo_tf.command.sweeping.processes import KILL, run_words, send, start
from ppo_tf.support.files import write_text
from ppo_tf.support.telling import tell

KILL_SECONDS = 5.0  # for a machine to answer
MAX_RESTARTS = 3  # of a run whose machine is gone


class RayProcess:
    """A run's process on one of the cluster's machines; see `processes.Process`.

    A run whose machine is gone starts again on another one, from its last checkpoint, three times
    at most.

    Args:
        run: the run.
        command: Python's arguments.
        threads: cores that are reserved for it.
    """

    def __init__(self, run: Run, command: Sequence[str], threads: int):
        self._run, self._words, self._threads = run, run_words(run, command), threads
        self._starts, self._killed = 0, False
        self._begin()

    def _begin(self) -> None:
        self._starts += 1
        self._host = _HOST.options(num_cpus=self._threads).remote()
        output = str(self._run.output.absolute())
        self._asked = self._host.begin.remote(self._words, output, os.getcwd(), self._threads)

    def poll(self) -> int | None:
        """See `Process`."""
        if not ray.wait([self._asked], timeout=0)[0]:
            return None
        try:
            code = ray.get(self._asked)
        except RayTaskError as error:
            write_text(self._run.output, f"error: {error.cause}\n")
            return 1
        except RayError:
            if self._killed or self._starts > MAX_RESTARTS:
                return -KILL
            tell(f"{self._run.label}: its machine or process is gone, so it starts again")
            self._begin()
            return None
        if code is None:
            self._asked = self._host.poll.remote()
        else:
            ray.kill(self._host)
        return code

    def send(self, number: int) -> None:
        """See `Process`."""
        sent = self._host.send.remote(number)
        if number == KILL:
            self._killed = True
            ray.wait([sent], timeout=KILL_SECONDS)
            ray.kill(self._host)


class _Host:
    """Has a run's process as its child, on the machine where it should be."""

    def __init__(self) -> None:
        self._process: Any = None

    def begin(self, words: Sequence[str], output: str, folder: str, threads: int) -> None:
        """Starts the process."""
        for path in (folder, Path(output).parent):
            if not os.path.isdir(path):
                raise FileNotFoundError(
                    f"{path} is not on {socket.gethostname()}: a sweep on a cluster needs a folder "
                    "that all its machines share"
                )
        os.chdir(folder)
        self._process = start(words, Path(output), threads)

    def poll(self) -> int | None:
        """Returns the exit code; None if it runs on after a while."""
        try:
            return int(self._process.wait(0.5))
        except subprocess.TimeoutExpired:
            return None

    def send(self, number: int) -> None:
        """Sends a signal."""
        if self._process is not None:
            send(self._process, number)


_HOST: Any = ray.remote(max_restarts=0, max_concurrency=2)(_Host)
