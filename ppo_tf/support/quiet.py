"""Holding back what C++ libraries print and nobody can act on."""

from __future__ import annotations

import contextlib
import importlib.abc
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"


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


def quieten_tensorflow() -> None:
    """Holds back TensorFlow's start-up messages, whoever imports it, unless the import fails.

    TensorFlow 2.21 writes about oneDNN and missing GPU drivers straight to file descriptor 2 while
    its libraries load, whatever its log level. A user who sets TF_CPP_MIN_LOG_LEVEL gets what that
    asks for. Once TensorFlow is imported there is nothing left to hold back.
    """
    if "tensorflow" not in sys.modules:
        sys.meta_path.insert(0, _QuietTensorFlow())


class _QuietTensorFlow(importlib.abc.MetaPathFinder):
    """Finds TensorFlow where it is, and has it run with its messages held back."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "tensorflow" or LOG_LEVEL in os.environ:
            return None
        spec = PathFinder.find_spec(fullname, path)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_quietly(module: ModuleType) -> None:
            os.environ[LOG_LEVEL] = "3"  # counts after the import, too
            with held_back(show_if_failed=True):
                execute(module)

        spec.loader.exec_module = execute_quietly  # type: ignore[method-assign]
        return spec
