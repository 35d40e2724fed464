"""Holding back what C++ libraries print and nobody can act on."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def held_back(show_if_failed: bool) -> Iterator[None]:
    """Holds back what is written to file descriptor 2, where log levels don't reach.

    Args:
        show_if_failed: whether it is shown after all if an exception comes out of the block.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as messages:
        os.dup2(messages.fileno(), 2)
        try:
            yield
        except Exception:
            if show_if_failed:
                messages.seek(0)
                os.write(kept, messages.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def import_tensorflow() -> None:
    """Imports TensorFlow, its start-up messages held back unless the import fails.

    TensorFlow 2.21 writes about oneDNN and missing GPU drivers straight to file descriptor 2 while
    its libraries load, whatever its log level. Who sets TF_CPP_MIN_LOG_LEVEL gets what that asks
    for.
    """
    if "tensorflow" in sys.modules or "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    with held_back(show_if_failed=True):
        import tensorflow  # noqa: F401
