"""How a command ends: by a signal, such as a cluster's, as by Ctrl-C; and in spite of threads."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
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


def despite_threads(code: int, seconds: float = 5.0) -> None:
    """Lets Python end although threads, as an environment may leave some, still run.

    Python would wait for them. It does for `seconds` after the main thread has ended.

    Args:
        code: exit code of the process.
        seconds: how long to wait.
    """
    main = threading.main_thread()
    left = [thread for thread in threading.enumerate() if thread is not main and not thread.daemon]

    def end() -> None:
        main.join()
        deadline = time.monotonic() + seconds
        for thread in left:
            thread.join(max(0.0, deadline - time.monotonic()))
        if any(thread.is_alive() for thread in left):
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    if left:
        threading.Thread(target=end, daemon=True, name="end despite threads").start()
