"""Lines on standard error that never end what a program does."""

from __future__ import annotations

import contextlib
import os
import sys


def tell(line: str) -> None:
    """Prints a line to standard error.

    If that is full or closed, this and all later lines are dropped: a training is worth more than
    what it says. Otherwise Python would try again when it exits, and turn the exit code into 120.
    """
    try:
        print(line, file=sys.stderr, flush=True)  # looked up late: rich replaces it for a while
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
