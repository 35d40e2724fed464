"""Long waits for environments in this process: said in the log, and ended where that can be done.

A step in our own process can't be watched from within. One thread looks at all environments once a
second; what is stepped only counts, which costs nothing that can be measured.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import sysconfig
import threading
import time
import traceback
import types
import weakref
from collections.abc import Hashable, Iterator
from typing import Any, NamedTuple, Protocol

import gymnasium

from ppo_tf.environments.failures import Overdue, is_own, message_of

LONG_WAIT = 10.0  # seconds after which a wait is first mentioned; then after 6 times as long
LOOK_EVERY = 1.0  # seconds
NO_REACTION = 5.0  # seconds after the limit
_STDLIB = os.path.join(sysconfig.get_paths()["stdlib"], "")
_LOG = logging.getLogger("ppo_tf")


class Call(NamedTuple):
    """A call of an environment.

    Attributes:
        key: what tells it from other calls.
        name: which environment, and where it is, such as "environment 2 at its step 31".
        thread: id of the thread that called.
    """

    key: Hashable
    name: str
    thread: int


class Watched(Protocol):
    """What can be watched.

    Attributes:
        max_seconds: how long a call may take; None: for ever.
    """

    max_seconds: float | None

    def under_way(self) -> Call | None:
        """Returns the present call, asked from another thread."""
        ...


class _Wait:
    """A call, and since when it has been waited for."""

    def __init__(self, call: Call | None):
        self.key = None if call is None else call.key
        self.since = time.monotonic()  # when it was first seen, at most LOOK_EVERY too late
        self.mention = LONG_WAIT
        self.overdue = self.unmoved = False

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.since


class _Watch:
    """The thread that looks, and the environments that it looks at."""

    def __init__(self) -> None:
        self._waits: weakref.WeakKeyDictionary[Any, _Wait] = weakref.WeakKeyDictionary()
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._handler_before: Any = None

    def add(self, watched: Watched) -> None:
        """Starts to look at something, until `remove` or its last reference is gone."""
        with self._lock:
            if watched.max_seconds is not None:
                before = signal.signal(signal.SIGALRM, self._on_signal)
                if before != self._on_signal:
                    self._handler_before = before
            self._waits[watched] = _Wait(None)
            if self._thread is None or not self._thread.is_alive():  # it does not survive a fork
                self._thread = threading.Thread(
                    target=self._run, daemon=True, name="waiting for environments"
                )
                self._thread.start()

    def remove(self, watched: Any) -> None:
        """Stops looking at something, if it was looked at."""
        with self._lock:
            if self._waits.pop(watched, None) is None or watched.max_seconds is None:
                return
            limited = any(each.max_seconds is not None for each in self._waits)
            if not limited and threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGALRM, self._handler_before)

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._waits:
                    self._thread = None
                    return
                limits = [each.max_seconds or LOOK_EVERY for each in self._waits]
            time.sleep(max(0.05, min([LOOK_EVERY, *limits])))
            with self._lock:
                for watched in list(self._waits):
                    self._look(watched)
                watched = None  # or this thread would keep it alive

    def _look(self, watched: Watched) -> None:
        call, wait = watched.under_way(), self._waits[watched]
        if call is None or call.key != wait.key:
            self._waits[watched] = _Wait(call)
            return
        if wait.seconds >= wait.mention:
            where = place(call.thread)
            _LOG.warning("waiting for %s for %.0f s%s", call.name, wait.seconds, where)
            wait.mention *= 6
        limit = watched.max_seconds
        if limit is None or wait.seconds < limit:
            return
        wait.overdue = True
        signal.pthread_kill(call.thread, signal.SIGALRM)  # ends a sleep, too
        if wait.seconds >= limit + NO_REACTION and not wait.unmoved:
            wait.unmoved = True
            _LOG.warning(
                "%s can't be ended: native code runs on in this process; backend=async can end it",
                call.name,
            )

    def _on_signal(self, number: int, frame: types.FrameType | None) -> None:
        """Raises in the main thread, if it still is in the call."""
        for watched, wait in list(self._waits.items()):
            call = watched.under_way()
            here = call is not None and call.thread == threading.get_ident()
            if here and wait.overdue and call.key == wait.key:
                wait.overdue = False  # until the next look, if the environment goes on
                raise Overdue(f"waited for {wait.seconds:.1f} s")
        if callable(self._handler_before):
            self._handler_before(number, frame)


WATCH = _Watch()


class _Named:
    """A call that has a name already."""

    max_seconds: float | None = None

    def __init__(self, name: str):
        self._call = Call(0, name, threading.get_ident())

    def under_way(self) -> Call:
        return self._call


@contextlib.contextmanager
def mentioned(name: str) -> Iterator[None]:
    """Context that is mentioned if it takes long.

    Args:
        name: what is waited for.
    """
    watched = _Named(name)
    WATCH.add(watched)
    try:
        yield
    finally:
        WATCH.remove(watched)


def can_end_calls() -> bool:
    """Whether a call that is made now can be ended: by a signal, which the main thread gets."""
    in_main = threading.current_thread() is threading.main_thread()
    return hasattr(signal, "pthread_kill") and in_main


def place(thread: int) -> str:
    """Where a thread is in an environment's own code, such as ": env.py, line 12, in step"."""
    frame = sys._current_frames().get(thread)
    for each in reversed(traceback.extract_stack(frame) if frame else []):
        name = each.filename
        if is_own(name) and (not name.startswith(_STDLIB) or "site-packages" in name):
            return f": {name}, line {each.lineno}, in {each.name}"
    return ""


def close_within(envs: gymnasium.vector.VectorEnv[Any, Any, Any], seconds: float = 5.0) -> None:
    """Closes environments in this process; what goes wrong is a warning in the log "ppo_tf".

    Args:
        envs: the environments.
        seconds: how long they may take; then they are left as they are. A window is waited for,
            because only the main thread can close it.
    """
    if envs.render_mode == "human":
        envs.close()
        return
    errors: list[BaseException] = []

    def run() -> None:
        try:
            envs.close()
        except BaseException as error:
            errors.append(error)

    WATCH.remove(envs)  # here, because only the main thread changes how signals are handled
    thread = threading.Thread(target=run, daemon=True, name="closing environments")
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        _LOG.warning("the environments did not close within %g s", seconds)
    for error in errors:
        said = "an environment raised %s while it was closed: %s"
        _LOG.warning(said, type(error).__name__, message_of(error))
    envs.closed = True  # otherwise Python closes them again, and waits, when it ends
