"""A worker in a process of its own, on this machine."""

from __future__ import annotations

import contextlib
import functools
import mmap
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector.utils import CloudpickleWrapper

from ppo_tf.collecting.workers.channel import Channel, remove_files
from ppo_tf.collecting.workers.handles import Lost
from ppo_tf.collecting.workers.worker import MakePart, Worker

# Without the working directory, which -c puts first.
_START = f"import sys; sys.path[:] = filter(None, sys.path); from {__name__} import main; main()"
_LOOK_EVERY = 1.0  # seconds
_END_SECONDS = 5.0  # how long a process may take to close its environments


class ProcessHandle:
    """A worker in a new process, which ends when this one is gone.

    The first result is the worker's facts.

    Args:
        make: makes the environments; functions and classes that no module has are sent along.
        first: index of the first one.
        count: how many.
        timeout: seconds without a step after which the worker counts as lost; None: never.

    Raises:
        OSError: the process can't be started.
    """

    def __init__(self, make: MakePart, first: int, count: int, timeout: float | None = None):
        self._timeout = timeout
        self._waiting = False
        with tempfile.NamedTemporaryFile(prefix="ppo_tf-", delete=False) as file:
            file.truncate(np.dtype(np.int64).itemsize)
            self._progress = np.frombuffer(mmap.mmap(file.fileno(), 0), np.int64)
            self._file = file.name
        paths = [path or os.getcwd() for path in sys.path]
        process = subprocess.Popen(
            [sys.executable, "-c", _START],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        )
        assert process.stdin is not None and process.stdout is not None
        self._channel = Channel(os.dup(process.stdout.fileno()), os.dup(process.stdin.fileno()))
        process.stdin.close()
        process.stdout.close()
        self._process = process
        packed: Any = make
        self._send((self._file, CloudpickleWrapper(packed), first, count))

    @property
    def pid(self) -> int:
        """The process's."""
        return self._process.pid

    def call(self, method: str, *arguments: Any) -> None:
        """See `Handle`."""
        self._send((method, arguments))

    def _send(self, message: Any) -> None:
        self._waiting = True
        with contextlib.suppress(OSError):  # gone, which `result` will say
            self._channel.send(message)

    def result(self) -> Any:
        """See `Handle`."""
        steps, since = -1, time.monotonic()
        while True:
            try:
                succeeded, value = self._channel.receive(_LOOK_EVERY)
                break
            except TimeoutError:
                now = int(self._progress[0])
                if now != steps:
                    steps, since = now, time.monotonic()
                elif self._timeout is not None and time.monotonic() - since >= self._timeout:
                    raise Lost(f"took no step for {self._timeout:g} s", now) from None
            except (EOFError, OSError):
                raise self._lost() from None
        self._waiting = False
        self._remove_files()
        if not succeeded:
            raise value
        return value

    def _lost(self) -> Lost:
        """How the process ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_SECONDS)
        code = self._process.returncode
        how = f"ended with exit code {code}"
        if code is not None and code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
        return Lost(f"(process {self.pid}) {how}", int(self._progress[0]))

    def end(self) -> None:
        """See `Handle`."""
        self._channel.close()  # which ends a process that waits for work
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0.0 if self._waiting else _END_SECONDS)
        self._process.kill()
        self._process.wait()
        self._remove_files()
        remove_files(self.pid)

    def _remove_files(self) -> None:
        Path(self._file).unlink(missing_ok=True)


def main() -> None:
    """Works for the process at the other end of stdin and stdout, until it is gone.

    Signals to the whole group, such as Ctrl-C, are the main process's to answer.
    """
    for name in ("SIGINT", "SIGHUP"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    channel = Channel(os.dup(0), os.dup(1))
    os.dup2(2, 1)  # what environments print
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(EOFError, OSError):
        path, packed, first, count = channel.receive()
        with open(path, "r+b") as file:
            progress = np.frombuffer(mmap.mmap(file.fileno(), 0), np.int64)
        worker: Any = None

        def start() -> Any:
            nonlocal worker
            worker = Worker(packed.fn, first, count, progress)
            return worker.facts()

        _answer(channel, start)
        while True:
            method, arguments = channel.receive()
            _answer(channel, functools.partial(getattr(worker, method), *arguments))
    if worker is not None:
        worker.close()


def _answer(channel: Channel, function: Any) -> None:
    """Sends (True, what a function returns) or (False, what it raises)."""
    try:
        answer = True, function()
    except BaseException as error:
        answer = False, error
    try:
        channel.send(answer)
    except (OSError, EOFError):
        raise
    except Exception as problem:  # it can't be pickled
        what = answer[1] if not answer[0] else problem
        channel.send((False, RuntimeError(f"{type(what).__name__}: {what}")))


def _end_with_parent() -> None:
    """Ends this process when the other end of stdin is gone, whatever it is doing."""
    poller = select.poll()
    poller.register(0, 0)  # says when the other end hangs up, not when there is something to read
    poller.poll()
    time.sleep(_END_SECONDS)  # for environments to be closed, if nothing is under way
    os._exit(1)
