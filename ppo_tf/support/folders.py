"""Folders that appear complete or not at all, also where one takes the place of another."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


def check_new_folder(path: str | os.PathLike, argument: str = "path") -> Path:
    """Returns path, of a folder that does not exist yet but can be made.

    Args:
        path: of the folder.
        argument: what errors call it.

    Raises:
        FileExistsError: something is there, and nothing is ever overwritten.
        NotADirectoryError, PermissionError: nothing can be made there.
    """
    path = Path(path)
    if path.exists():
        raise FileExistsError(
            f"{argument} exists and is not overwritten. Received: {argument}={path}"
        )
    parent = path.absolute().parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise NotADirectoryError(f"{parent} is not a folder. Received: {argument}={path}")
    if not os.access(parent, os.W_OK):
        raise PermissionError(f"{parent} cannot be written. Received: {argument}={path}")
    return path


def check_replaceable(path: str | os.PathLike, marker: str) -> Path:
    """Returns path, of a new folder or one that may be replaced; mends what a crash left there.

    Args:
        path: of the folder.
        marker: name of the file by which a folder that may be replaced is known.

    Raises:
        FileExistsError: something else is there.
        NotADirectoryError, PermissionError: see `check_new_folder`.
    """
    path = Path(path)
    _mend(path, marker)
    if _is_marked(path, marker):
        return path
    if path.exists():
        raise FileExistsError(
            f"path is no folder with a {marker} and is not replaced. Received: path={path}"
        )
    return check_new_folder(path)


@contextlib.contextmanager
def complete_folder(path: Path, marker: str | None = None) -> Iterator[Path]:
    """A context in which to fill a temporary folder, that has its name once it is complete.

    With a marker it replaces an older one, which goes aside to `.NAME.replaced` for the moment of
    the change: whatever happens, a complete folder is here or there.

    Args:
        path: of the folder, as `check_new_folder` or `check_replaceable` returned it.
        marker: as of `check_replaceable`; None: nothing is replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=_prefix(path), dir=path.parent))
    try:
        os.chmod(temporary, 0o755)  # mkdtemp's folders are private
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
    """An older folder is deleted if the new one is there, and comes back if it is not."""
    for unfinished in path.parent.glob(glob.escape(_prefix(path)) + "*"):
        shutil.rmtree(unfinished)
    aside = _aside(path)
    if not _is_marked(aside, marker):
        return
    if not path.exists():
        aside.rename(path)
    elif _is_marked(path, marker):
        # Half deleted it must not be taken for complete.
        shutil.rmtree(aside.rename(path.with_name(_prefix(path) + "replaced")))


def _is_marked(path: Path, marker: str) -> bool:
    return (path / marker).is_file() and not path.is_symlink()


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.replaced")


def _prefix(path: Path) -> str:
    """Of folders that are not complete."""
    return f".{path.name}.unfinished-"
