"""Suppresses messages of C++ libraries that users can do nothing about."""

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
    """Context that suppresses output to file descriptor 2, where log levels have no effect.

    Args:
        show_if_failed: whether to show the output after all if the block raises an exception.
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
    """Suppresses TensorFlow's start-up messages, wherever it is imported, unless the import fails.

    While its libraries load, TensorFlow 2.21 writes about oneDNN and missing GPU drivers straight
    to file descriptor 2, whatever its log level. If the user has set TF_CPP_MIN_LOG_LEVEL, or
    TensorFlow is already imported, this does nothing.
    """
    if "tensorflow" not in sys.modules:
        sys.meta_path.insert(0, _QuietTensorFlow())


class _QuietTensorFlow(importlib.abc.MetaPathFinder):
    """Finds TensorFlow as usual, but executes it with its messages suppressed."""

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
            os.environ[LOG_LEVEL] = "3"  # also applies after the import
            with held_back(show_if_failed=True):
                execute(module)

        spec.loader.exec_module = execute_quietly  # type: ignore[method-assign]
        return spec
