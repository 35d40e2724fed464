"""Writing files that survive a crash or a full disk."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO


@contextlib.contextmanager
def naming(what: object) -> Iterator[None]:
    """Names the file in an OSError raised while writing it."""
    try:
        yield
    except OSError as error:
        raise OSError(f"cannot write {what}: {error.strerror}") from error


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file completely or not at all, even if the machine stops halfway.

    Raises:
        OSError: the file can't be written; a previous one is unchanged.
    """
    handle, temporary = tempfile.mkstemp(
        prefix=f".{path.name}-", suffix=".unfinished", dir=path.parent
    )
    try:
        with open(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp's files are private
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Makes a rename durable; Windows can't open folders and does not need this."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class AppendedFile:
    """A file to append to, which can be truncated to its size at a checkpoint."""

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self._file: IO[bytes] | None = None
        self._size: int | None = None  # bytes to keep; None: none

    def cut(self, size: int) -> None:
        """Keeps the first `size` bytes.

        Raises:
            ValueError: the file is shorter or missing.
        """
        there = self.path.stat().st_size if self.path.exists() else 0
        if there < size:
            raise ValueError(
                f"{self.path} was {size} bytes long at the checkpoint. Received: {there} bytes"
            )
        self._size = size

    def open(self) -> None:
        """Opens the file, empty or with the bytes that `cut` keeps."""
        self._file = open(self.path, "wb" if self._size is None else "r+b", buffering=0)  # noqa: SIM115
        self._file.truncate(self._size)
        self._file.seek(0, os.SEEK_END)

    def write(self, rest: bytes) -> None:
        """Appends bytes, which readers see at once.

        Raises:
            OSError: the file can't be written; the message names it.
        """
        assert self._file is not None
        with naming(self.path):
            while rest:  # an unbuffered write may be partial
                rest = rest[self._file.write(rest) :]

    def replace(self, content: bytes) -> None:
        """Replaces the content, completely or not at all; later writes append to the new one.

        Raises:
            OSError: the file can't be written; the message names it, and it is unchanged.
        """
        assert self._file is not None
        self._file.close()  # Windows can't replace an open file
        with naming(self.path):
            write_atomically(self.path, content)
        self._size = len(content)
        self.open()

    def sync(self) -> int:
        """Flushes everything to disk and returns the file's size in bytes."""
        assert self._file is not None
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """Closes the file; the next `open` starts it empty."""
        self._size = None
        if self._file is not None:
            self._file.close()
