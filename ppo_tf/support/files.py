"""Files that a crash, or a full disk, leaves whole."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO


@contextlib.contextmanager
def naming(what: object) -> Iterator[None]:
    """Has an OSError of what writes a file say which."""
    try:
        yield
    except OSError as error:
        raise OSError(f"cannot write {what}: {error.strerror}") from error


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file that is there as a whole or not at all, whenever the machine stops.

    Raises:
        OSError: it can't be written; what was there before is as it was.
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
    """Makes a rename last; Windows opens no folders, and needs none of it."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class AppendedFile:
    """A file that only grows, and can be cut back to where it was at a checkpoint."""

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self._file: IO[bytes] | None = None
        self._size: int | None = None  # of what is kept; None: nothing

    def cut(self, size: int) -> None:
        """Keeps the first `size` bytes.

        Raises:
            ValueError: the file is shorter, or not there.
        """
        there = self.path.stat().st_size if self.path.exists() else 0
        if there < size:
            raise ValueError(
                f"{self.path} was {size} bytes long at the checkpoint. Received: {there} bytes"
            )
        self._size = size

    def open(self) -> None:
        """Opens it, empty or cut."""
        self._file = open(self.path, "wb" if self._size is None else "r+b", buffering=0)  # noqa: SIM115
        self._file.truncate(self._size)
        self._file.seek(0, os.SEEK_END)

    def write(self, rest: bytes) -> None:
        """Appends; it can be read at once.

        Raises:
            OSError: it can't be written; names the file.
        """
        assert self._file is not None
        with naming(self.path):
            while rest:  # unbuffered files may write a part
                rest = rest[self._file.write(rest) :]

    def replace(self, content: bytes) -> None:
        """Has this in the file instead, as a whole or not at all, and goes on behind it.

        Raises:
            OSError: it can't be written; names the file, which is as it was.
        """
        assert self._file is not None
        self._file.close()  # Windows replaces no open file
        with naming(self.path):
            write_atomically(self.path, content)
        self._size = len(content)
        self.open()

    def sync(self) -> int:
        """Has all of it on the disk and returns the file's size in bytes."""
        assert self._file is not None
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """Closes it; opened again, it is written anew."""
        self._size = None
        if self._file is not None:
            self._file.close()
