"""Messages between processes, whose arrays go through shared memory and not through pickles.

A message is pickled with protocol 5, which leaves the contents of arrays out. They are copied once,
into a file that both processes map into their memory; the receiver's arrays are views of it, valid
until the next message comes.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

_ALIGNMENT = 64  # bytes, of a cache line
_SHARED = Path("/dev/shm")  # in memory, on Linux


class Channel:
    """One end of a connection.

    Args:
        readable: file descriptor to read from; this object closes it.
        writable: file descriptor to write to; likewise.
    """

    def __init__(self, readable: int, writable: int):
        self._in = Connection(readable, writable=False)
        self._out = Connection(writable, readable=False)
        self._mine: _Area | None = None  # what this end writes to
        self._theirs: _Area | None = None

    def send(self, message: Any) -> None:
        """Sends a message; arrays of the last one must not be needed any more.

        Raises:
            OSError: the other end is gone.
        """
        kept: list[pickle.PickleBuffer] = []
        content = pickle.dumps(message, protocol=5, buffer_callback=kept.append)
        buffers = [buffer.raw() for buffer in kept]
        places, size = [], 0
        for buffer in buffers:
            places.append((size, buffer.nbytes))
            size += -(-buffer.nbytes // _ALIGNMENT) * _ALIGNMENT
        new = None
        if size > (self._mine.size if self._mine else 0):
            self._drop_mine()
            self._mine = _Area.create(size)
            new = str(self._mine.path)
        for buffer, (start, length) in zip(buffers, places, strict=True):
            if self._mine is not None:
                self._mine.memory[start : start + length] = buffer
        self._out.send_bytes(pickle.dumps((new, places, content)))

    def receive(self, seconds: float | None = None) -> Any:
        """Returns the next message.

        Raises:
            TimeoutError: none came within these seconds.
            EOFError, OSError: the other end is gone.
        """
        if not self._in.poll(seconds):
            raise TimeoutError
        new, places, content = pickle.loads(self._in.recv_bytes())
        if new is not None:
            self._theirs = _Area.open(Path(new))
        memory = self._theirs.memory if self._theirs else memoryview(b"")  # of empty arrays
        buffers = [memory[start : start + length] for start, length in places]
        return pickle.loads(content, buffers=buffers)

    def close(self) -> None:
        """Closes this end."""
        self._drop_mine()
        self._in.close()
        self._out.close()

    def _drop_mine(self) -> None:
        if self._mine is not None:
            self._mine.path.unlink(missing_ok=True)  # if the other end has not opened it
        self._mine = None


class _Area:
    """A file in memory that two processes share."""

    def __init__(self, descriptor: int, path: Path, size: int):
        self.path, self.size = path, size
        self.memory = memoryview(mmap.mmap(descriptor, size))
        os.close(descriptor)

    @classmethod
    def create(cls, size: int) -> _Area:
        """Makes a file, in memory where there is room, otherwise among the temporary files."""
        for folder in _folders():
            with contextlib.suppress(OSError):
                return cls._create_in(folder, size)
        raise OSError(f"no room for {size:,} bytes in {' nor in '.join(map(str, _folders()))}")

    @classmethod
    def _create_in(cls, folder: Path, size: int) -> _Area:
        descriptor, name = tempfile.mkstemp(prefix=_prefix(os.getpid()), dir=folder)
        try:
            # Where a full disk is an error now, and not a crash at the first write.
            reserve = getattr(os, "posix_fallocate", lambda file, _, n: os.ftruncate(file, n))
            reserve(descriptor, 0, size)
        except OSError:
            os.close(descriptor)
            os.unlink(name)
            raise
        return cls(descriptor, Path(name), size)

    @classmethod
    def open(cls, path: Path) -> _Area:
        """Opens the other end's file, and removes its name: it lives as long as its users."""
        descriptor = os.open(path, os.O_RDWR)
        path.unlink()
        return cls(descriptor, path, os.fstat(descriptor).st_size)


def remove_files(pid: int) -> None:
    """Removes what a process that was killed has left."""
    for folder in _folders():
        for path in folder.glob(f"{_prefix(pid)}*"):
            path.unlink(missing_ok=True)


def _folders() -> list[Path]:
    return [folder for folder in (_SHARED, Path(tempfile.gettempdir())) if folder.is_dir()]


def _prefix(pid: int) -> str:
    return f"ppo_tf-{pid}-"
