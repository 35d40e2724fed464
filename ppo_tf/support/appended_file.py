"""A log file: appended to for days, cut on resume, whatever others do to it meanwhile."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

from ppo_tf.support.files import naming, open_regular, write_atomically
from ppo_tf.support.folders import remove_link
from ppo_tf.support.telling import tell


class AppendedFile:
    """A file to append to, which can be truncated to its size at a checkpoint.

    A log that others removed or shortened is worth a line, but not a training: what is left of it
    is continued.

    Args:
        path: path of the file.
        lines: whether it consists of lines; of what others left, only whole ones are kept.
    """

    def __init__(self, path: str | os.PathLike[str], *, lines: bool = False):
        self.path = Path(path)
        self._lines = lines
        self._file: IO[bytes] | None = None
        self._size: int | None = None  # bytes to keep; None: none

    def cut(self, size: int) -> None:
        """Keeps the first `size` bytes when the file is opened."""
        self._size = size

    def open(self) -> None:
        """Opens the file, empty or with the bytes that `cut` keeps.

        If there are fewer, a line says so.

        Raises:
            OSError: it can't be opened, or is a link or no regular file; the message names it.
        """
        with naming(self.path):
            there = self._open()
        assert self._file is not None
        keep = self._size or 0
        if there < keep:
            tell(f"warning: {self.path} had {keep} bytes at the checkpoint and has {there} now")
            keep = self._usable(there)
        self._file.truncate(keep)
        self._file.seek(0, os.SEEK_END)

    def is_ours(self) -> bool:
        """Whether the path still leads to the open file, and nothing of it is missing."""
        assert self._file is not None
        here = os.fstat(self._file.fileno())
        try:
            there = os.lstat(self.path)
        except OSError:
            return False
        same = (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)
        return same and here.st_size >= self._file.tell()

    def reopen(self) -> int:
        """Continues what is left of the file, and says so; returns its size in bytes.

        A symbolic link in its place is removed, not followed.

        Raises:
            OSError: see `open`.
        """
        assert self._file is not None
        self._file.close()
        tell(f"warning: {self.path} was removed or changed by others; its log goes on without that")
        with naming(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            remove_link(self.path)
            there = self._open()
        self._file.truncate(self._usable(there))
        return self._file.seek(0, os.SEEK_END)

    def _open(self) -> int:
        """Opens the file, or a new one; returns its size in bytes."""
        handle = open_regular(self.path, os.O_RDWR | os.O_CREAT)
        self._file = open(handle, "r+b", buffering=0)  # noqa: SIM115
        return os.fstat(handle).st_size

    def _usable(self, there: int) -> int:
        """Returns how many of the first `there` bytes can be kept."""
        assert self._file is not None
        if not self._lines:
            return there
        self._file.seek(0)
        return self._file.read(there).rfind(b"\n") + 1

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
