"""Signals that end a run, such as a cluster's, treated like Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any


class Ended(KeyboardInterrupt):
    """A signal asked the process to end.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int):
        super().__init__(signal.Signals(number).name)
        self.number = number


def exit_code(interrupt: KeyboardInterrupt) -> int:
    """Returns the exit code after an interrupt: 128 and the signal's number, as shells have it."""
    return 128 + (interrupt.number if isinstance(interrupt, Ended) else signal.SIGINT)


@contextlib.contextmanager
def like_ctrl_c() -> Iterator[None]:
    """Context in which the first SIGTERM or SIGHUP raises `Ended`; later ones are ignored.

    A signal that is ignored, as SIGHUP under nohup, stays so. Threads other than the main one can't
    change how signals are handled: there, the context does nothing.
    """
    before: dict[int, Any] = {}
    terminals = [stream for stream in (1, 2) if os.isatty(stream)]

    def end(number: int, frame: object) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        for stream in terminals:
            if not os.isatty(stream):  # it was closed: writing to it would fail
                with open(os.devnull, "w") as nowhere:
                    os.dup2(nowhere.fileno(), stream)
        raise Ended(number)

    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def name(interrupt: KeyboardInterrupt) -> str:
    """Says what ended a run."""
    return f"ended by {interrupt}" if isinstance(interrupt, Ended) else "interrupted"
