"""Stepping single environments each in its own process, with failures that have names.

Gymnasium's vector class neither says which environment failed nor stops waiting for a process that
is gone.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import select
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import gymnasium
from gymnasium.vector import AutoresetMode
from gymnasium.vector.async_vector_env import _async_worker

from ppo_tf.environments import waiting
from ppo_tf.environments.failures import (
    MISSING_PACKAGES,
    Guard,
    MakeEnv,
    failure_of,
    name_call,
)
from ppo_tf.types import EnvironmentFailure

CLOSE_SECONDS = 5.0  # how long environments may take to close
STOPPED_SECONDS = 60.0  # how long a process may be stopped, as by SIGSTOP
_LOG = logging.getLogger("ppo_tf")


class AsyncEnvs(gymnasium.vector.AsyncVectorEnv):
    """Steps environments each in its own process; what goes wrong is an `EnvironmentFailure`.

    A process that has ended, or has been stopped for a minute, ends the wait for it. A long wait is
    mentioned in the log "ppo_tf".

    Args:
        make: makes an environment.
        num_envs: number of environments.
        autoreset_mode: see gymnasium.vector.
        context: multiprocessing start method; None: the platform's default.
        max_seconds: how long a step or reset may take; None: for ever.
    """

    def __init__(
        self,
        make: MakeEnv,
        num_envs: int,
        autoreset_mode: AutoresetMode,
        context: str | None = None,
        max_seconds: float | None = None,
    ):
        self._max_seconds: float | None = None  # making may take longer than a step
        self._look_every = min(waiting.LOOK_EVERY, max_seconds or waiting.LOOK_EVERY)
        self._polls: list[Any] = []
        self._steps: int | None = None  # None: not made yet
        self._resetting = False
        makers = [functools.partial(Guard.around, make, index) for index in range(num_envs)]
        try:
            with contextlib.ExitStack() as self._trial:  # Gymnasium makes one in this process first
                self._trial.enter_context(waiting.mentioned(name_call(0, None)))
                super().__init__(
                    makers, context=context, autoreset_mode=autoreset_mode, worker=_work
                )
        except BaseException as error:
            lost = self._failure(error) if isinstance(error, EOFError | OSError) else None
            if hasattr(self, "error_queue"):  # there may be processes
                self.processes = [process for process in self.processes if process.pid is not None]
                self.close_extras(terminate=True)
            self.closed = True
            if lost is not None:
                raise lost from error
            raise
        self._max_seconds, self._steps = max_seconds, 0

    def _check_spaces(self) -> None:
        """Waits for the environments to be made, before Gymnasium would without end."""
        self._trial.close()
        self._polls = [_poll(pipe) for pipe in self.parent_pipes]
        self.get_attr("index")
        super()._check_spaces()  # type: ignore[no-untyped-call]

    def reset(
        self,
        *,
        seed: int | list[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> Any:
        """Resets all environments."""
        self._resetting = True
        try:
            result = super().reset(seed=seed, options=options)
        except (EnvironmentFailure, *MISSING_PACKAGES):
            raise
        except Exception as error:
            raise self._failure(error) from error
        self._resetting = False
        return result

    def step(self, actions: Any) -> Any:
        """Steps all environments."""
        try:
            result = super().step(actions)
        except EnvironmentFailure:
            raise
        except Exception as error:
            raise self._failure(error) from error
        self._steps = (self._steps or 0) + 1
        return result

    def close_extras(self, timeout: float | None = None, terminate: bool = False) -> None:
        """Closes the environments and ends their processes, which never takes long.

        Args:
            timeout: seconds that closing may take before processes are ended by force; None: 5.
            terminate: whether to end them by force at once.
        """
        if not terminate:
            for pipe in self.parent_pipes:
                with contextlib.suppress(OSError, AttributeError):  # gone, or closed after an error
                    pipe.send(("close", None))
        late = _join(self.processes, 0.0 if terminate else timeout or CLOSE_SECONDS)
        for process in late:
            process.terminate()
        for process in _join(late, 1.0):
            process.kill()  # stopped, or deaf to SIGTERM
        for pipe in self.parent_pipes:
            if pipe is not None:
                pipe.close()
        if late and not terminate:
            ended = ", ".join(f"{self.processes.index(p)} (process {p.pid})" for p in late)
            _LOG.warning("ended by force because they did not close: environments %s", ended)
        _join(late, 1.0)

    def _poll_pipe_envs(self, timeout: float | None = None) -> bool:
        """Waits for all answers; False after `timeout` seconds."""
        if timeout is not None:
            return super()._poll_pipe_envs(timeout)
        self._assert_is_running()
        milliseconds = 1000 * self._look_every
        start = time.monotonic()
        for index, poll in enumerate(self._polls):
            if not poll(milliseconds):
                self._wait(index, poll, start)
        return True

    def _wait(self, index: int, poll: Callable[[float], Any], start: float) -> None:
        """Waits for an environment that takes long.

        Args:
            index: of the environment.
            poll: of its pipe.
            start: when its step began.

        Raises:
            EnvironmentFailure: it has ended, is stopped, or takes longer than it may.
        """
        process, stopped, mention = self.processes[index], 0.0, waiting.LONG_WAIT
        while True:
            waited = time.monotonic() - start
            pid = process.pid
            stopped = stopped + self._look_every if _is_stopped(pid) else 0.0
            state = f"process {pid} is {'stopped' if stopped else 'running'}"
            if not process.is_alive() and not poll(0):
                raise self._lost(index)
            if stopped >= STOPPED_SECONDS or waited >= (self._max_seconds or float("inf")):
                detail = f"waited for {waited:.1f} s, {state}"
                raise self._new_failure(index, "did not answer", detail)
            if waited >= mention:
                name = name_call(index, self._steps, self._resetting)
                _LOG.warning("waiting for %s for %.0f s: %s", name, waited, state)
                mention *= 6
            if poll(1000 * self._look_every):
                return

    def _raise_if_errors(self, successes: Iterable[bool]) -> None:
        """Raises the first error that a process reported."""
        failed = [index for index, success in enumerate(successes) if not success]
        if not failed:
            return
        try:
            index, _, error, _ = self.error_queue.get(timeout=CLOSE_SECONDS)
        except Exception as problem:  # nothing came, or something that can't be unpickled
            detail = "its process reported an error that could not be read"
            raise self._new_failure(failed[0], "failed", detail) from problem
        if isinstance(error, (EnvironmentFailure, *MISSING_PACKAGES)):
            raise error
        raise failure_of(error, index, self._steps, self._resetting)

    def _failure(self, error: Exception) -> EnvironmentFailure:
        """The failure behind an error in talking to the processes."""
        if isinstance(error, EOFError | OSError):
            # If the same signal was sent to all processes, ours comes now: it ends the sleep.
            time.sleep(0.5)
            for index, process in enumerate(getattr(self, "processes", [])):
                if not process.is_alive():
                    return self._lost(index)
        return failure_of(error, None, self._steps, self._resetting)

    def _lost(self, index: int) -> EnvironmentFailure:
        process = self.processes[index]
        code = process.exitcode
        how = f"ended with exit code {code}"
        if code is not None and code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
        detail = f"process {process.pid} {how}"
        return self._new_failure(index, "lost its process", detail)

    def _new_failure(self, index: int, what: str, detail: str) -> EnvironmentFailure:
        return EnvironmentFailure(index, what, detail, self._steps, self._resetting)


def close(envs: gymnasium.vector.VectorEnv[Any, Any, Any], seconds: float | None = None) -> None:
    """Closes environments; what goes wrong is a warning in the log "ppo_tf".

    Args:
        envs: the environments.
        seconds: how long they may take; None: 5. Then processes are ended, and environments in this
            process are left as they are.
    """
    seconds = CLOSE_SECONDS if seconds is None else seconds
    if isinstance(envs, AsyncEnvs):
        envs.close(timeout=seconds)
    else:
        waiting.close_within(envs, seconds)


def _work(index: int, make: MakeEnv, pipe: Any, *others: Any) -> None:
    """Runs an environment in a process of its own; the arguments are those of Gymnasium's worker.

    Signals to the whole group, such as Ctrl-C, are the main process's to answer: it ends the others
    when it no longer needs them.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        env = make()
    except BaseException as error:
        pipe.recv()  # who asks gets the error for an answer
        error_queue: Any = others[2]
        failure = error
        if not isinstance(error, EnvironmentFailure):
            failure = failure_of(error, index, None)
        error_queue.put((index, EnvironmentFailure, failure, ""))
        pipe.send((None, False))
        return
    _async_worker(index, lambda: env, pipe, *others)


def _poll(pipe: Any) -> Callable[[float], Any]:
    """A function that waits, in milliseconds, for something to read; much faster than the pipe's.

    Returns:
        Function of the milliseconds; what it returns is false if nothing came.
    """
    if not hasattr(select, "poll"):  # Windows
        return lambda milliseconds: pipe.poll(milliseconds / 1000)
    poller = select.poll()
    poller.register(pipe.fileno(), select.POLLIN)
    return poller.poll


def _join(processes: Sequence[Any], seconds: float) -> list[Any]:
    """Waits until processes have ended, together for `seconds`; returns those that have not."""
    deadline = time.monotonic() + seconds
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
    return [process for process in processes if process.is_alive()]


def _is_stopped(pid: int | None) -> bool:
    """Whether a process is stopped, as by SIGSTOP; False where the system does not say."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except OSError:
        return False
