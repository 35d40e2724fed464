"""Folders that are created, or replaced, completely or not at all."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from ppo_tf.support.files import reason_of


def check_new_folder(path: str | os.PathLike[str], argument: str = "path") -> Path:
    """Checks that a new folder can be created, and returns its path.

    Args:
        path: path of the folder.
        argument: name of the argument in errors.

    Raises:
        FileExistsError: the path exists already, and nothing is ever overwritten.
        NotADirectoryError, PermissionError, OSError: no folder can be created there.
    """
    path = Path(path)
    received = f"Received: {argument}={str(path)!r}"
    if os.path.lexists(path):
        what = "already exists and will not be overwritten"
        raise FileExistsError(f"{argument} {what}. {received}")
    parent = path.absolute().parent
    while not os.path.lexists(parent):
        parent = parent.parent
    if not parent.is_dir():
        raise NotADirectoryError(f"{parent} is not a folder. {received}")
    _try(path, parent, received)
    return path


def _try(path: Path, parent: Path, received: str) -> None:
    """Creates the folder's missing parents and an empty folder, and removes them again.

    Only this shows a read-only file system, a name too long, a quota, or a folder like /proc.
    """
    made: list[Path] = []
    try:
        steps = [p for p in path.absolute().parents if not os.path.lexists(p)][::-1]
        steps.append(path.absolute().with_name(_prefix(path) + "x" * 8))
        for step in steps:
            step.mkdir()
            made.append(step)
    except (OSError, ValueError) as error:  # the latter from a null byte
        number, why = getattr(error, "errno", None), reason_of(error)
        kind = PermissionError if number in (errno.EACCES, errno.EROFS) else OSError
        what = "is not writable" if kind is PermissionError else f"can't hold it: {why}"
        raise kind(f"{parent} {what}. {received}") from error
    finally:
        for step in reversed(made):
            step.rmdir()


def remove_link(path: Path) -> None:
    """Removes a symbolic link, so that what is written next does not follow it."""
    if path.is_symlink():
        path.unlink()


def check_replaceable(path: str | os.PathLike[str], marker: str) -> Path:
    """Checks that a folder can be created or replaced, and returns its path.

    Also cleans up what a crash during an earlier replacement left behind.

    Args:
        path: path of the folder.
        marker: name of the file that marks a folder as one that may be replaced.

    Raises:
        FileExistsError: the path exists and is not a folder with the marker.
        NotADirectoryError, PermissionError: see `check_new_folder`.
    """
    path = Path(path)
    _mend(path, marker)
    if _is_marked(path, marker):
        return path
    if path.exists():
        raise FileExistsError(
            f"path is not a folder with a {marker} and will not be replaced. Received: path={path}"
        )
    return check_new_folder(path)


@contextlib.contextmanager
def complete_folder(path: Path, marker: str | None = None) -> Iterator[Path]:
    """Yields a temporary folder to fill, and renames it to `path` once it is complete.

    With a marker, it replaces an older folder, which is called `.NAME.replaced` during the swap:
    whatever happens, a complete folder has one of the two names.

    Args:
        path: path of the folder, as returned by `check_new_folder` or `check_replaceable`.
        marker: see `check_replaceable`; None: nothing is replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(_prefix(path) + secrets.token_hex(4))
    temporary.mkdir()
    try:
        yield temporary
        if marker is not None and _is_marked(path, marker):
            path.rename(_aside(path))
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    finally:
        if marker is not None:
            _mend(path, marker)


def _mend(path: Path, marker: str) -> None:
    """Deletes the older folder if the new one is in place, and restores it if not."""
    for unfinished in path.parent.glob(glob.escape(_prefix(path)) + "*"):
        shutil.rmtree(unfinished)
    aside = _aside(path)
    if not _is_marked(aside, marker):
        return
    if not path.exists():
        aside.rename(path)
    elif _is_marked(path, marker):
        # Renamed first: a half-deleted folder must not pass for a complete one.
        shutil.rmtree(aside.rename(path.with_name(_prefix(path) + "replaced")))


def _is_marked(path: Path, marker: str) -> bool:
    return (path / marker).is_file() and not path.is_symlink()


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.replaced")


def _prefix(path: Path) -> str:
    """Returns the prefix of incomplete folders' names."""
    return f".{path.name}.unfinished-"
