"""Stands between a sweep and one of its runs, and ends the run when the sweep is gone.

    python -m ppo_tf.command.sweeping.guard COMMAND...

Standard input is a pipe whose other end the sweep holds: the operating system closes it when the
sweep ends in any way, also by SIGKILL. The exit code, or the signal, is that of the command.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

_PR_SET_PDEATHSIG = 1  # of prctl(2)
GRACE_SECONDS = 20.0  # for the run to end on its own


def main(command: Sequence[str]) -> int:
    """Runs a command; returns its exit code."""
    if hasattr(signal, "pthread_sigmask"):  # Ray's workers block it, which the run would inherit
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        # Signals to the group are for the run. They are not ignored here: that would be inherited.
        # An ignored hang-up (nohup) stays so; SIGINT never does, as the sweep sends it.
        if number is not None and (name == "SIGINT" or signal.getsignal(number) != signal.SIG_IGN):
            signal.signal(number, lambda number, frame: None)
    linux = sys.platform == "linux"
    run = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, preexec_fn=_end_with_parent if linux else None
    )
    threading.Thread(target=_end_with_sweep, args=(run,), daemon=True).start()
    code = run.wait()
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


def _end_with_parent() -> None:
    """Has Linux end this process when its parent is gone: Ray kills children that it knows."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _end_with_sweep(run: subprocess.Popen[bytes]) -> None:
    """Waits for the end of the sweep, then ends the run and what it started."""
    while os.read(0, 1):  # nothing is ever written
        pass
    if os.name == "posix" and os.getpgrp() == os.getpid():  # the sweep made it a group's leader
        os.killpg(0, signal.SIGTERM)
        time.sleep(GRACE_SECONDS)
        os.killpg(0, signal.SIGKILL)
    else:
        run.terminate()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
