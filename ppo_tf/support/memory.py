"""How much memory there is."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

# Where Linux keeps the limit of a container: control groups of version 2 and 1.
_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def total_bytes() -> int | None:
    """Returns the memory that a process here can ever have, in bytes; None where nobody says."""
    found = []
    with contextlib.suppress(AttributeError, ValueError, OSError):  # no sysconf, or not these names
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for path in _LIMITS:
        with contextlib.suppress(OSError, ValueError):  # no such file, or the text "max"
            found.append(int(path.read_text()))
    return min((size for size in found if size > 0), default=None)
