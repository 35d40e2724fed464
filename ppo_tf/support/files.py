"""Reading files that may be anything, and writing files that survive a crash or a full disk."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

# Opening never waits for the other end of a pipe, and never follows a link; Windows lacks both.
_AT_ONCE = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
MOST_BYTES = 2**30  # of a text, such as a metrics.csv of a long run


def open_regular(path: str | os.PathLike[str], flags: int, *, follow: bool = False) -> int:
    """Opens a regular file; returns its descriptor.

    Args:
        path: path of the file.
        flags: those of `os.open`; a file that they create gets the permissions of the umask.
        follow: whether the path may be a symbolic link.

    Raises:
        OSError: it can't be opened, or is a folder, pipe, socket, device or link.
    """
    try:
        handle = os.open(path, flags | _AT_ONCE | (0 if follow else _NO_LINK), 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "Is a symbolic link", str(path)) from None
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "Not a regular file", str(path))
    return handle


def read_regular(path: str | os.PathLike[str], most: int, *, follow: bool = False) -> bytes:
    """Reads a regular file of at most `most` bytes.

    Raises:
        OSError: see `open_regular`; or the file is larger, or can't be read.
    """
    with open(open_regular(path, os.O_RDONLY, follow=follow), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise OSError(errno.EFBIG, f"Larger than {most:,} bytes", str(path))
        return file.read(size)


def read_text(path: str | os.PathLike[str], *, follow: bool = False) -> str:
    """Reads a text file of at most `MOST_BYTES`, whatever its bytes.

    Raises:
        OSError: see `read_regular`.
    """
    return read_regular(path, MOST_BYTES, follow=follow).decode(errors="replace")


def reason_of(error: BaseException) -> str:
    """Returns what went wrong, without the number and the path that an OSError begins with."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


@contextlib.contextmanager
def naming(what: object) -> Iterator[None]:
    """Names the file in an OSError raised while writing it."""
    try:
        yield
    except OSError as error:
        raise OSError(f"cannot write {what}: {error.strerror}") from error


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file completely or not at all, even if the machine stops halfway.

    A symbolic link in its place is replaced, not followed. The umask decides who may read the file.

    Raises:
        OSError: the file can't be written; a previous one is unchanged.
    """
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(4)}.unfinished")
    handle = open_regular(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        with open(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):  # Ctrl-C may come right after the rename
            os.unlink(temporary)
        raise
    _sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Writes a text file completely or not at all.

    Raises:
        OSError: the file can't be written; the message names it.
    """
    with naming(path):
        write_atomically(path, text.encode())


def _sync_folder(folder: Path) -> None:
    """Makes a rename durable; Windows can't open folders and does not need this."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
