"""Files and folders: permissions by the umask, and nothing but regular files opened."""

import os
import signal
import stat

import pytest

from ppo_tf.support import files, folders
from ppo_tf.support.appended_file import AppendedFile

pytestmark = pytest.mark.skipif(os.name == "nt", reason="no links, pipes and umask")


@pytest.fixture
def limit():
    """Ends a test that waits for ever."""
    signal.alarm(20)
    yield
    signal.alarm(0)


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_the_umask_decides_who_may_read(mask, tmp_path):
    before = os.umask(mask)
    try:
        files.write_atomically(tmp_path / "file", b"")
        AppendedFile(tmp_path / "log").open()
        with folders.complete_folder(tmp_path / "folder") as folder:
            (folder / "file").touch()
    finally:
        os.umask(before)
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in tmp_path.iterdir()}
    assert modes == {"file": 0o666 & ~mask, "log": 0o666 & ~mask, "folder": 0o777 & ~mask}


def odd(kind, path):
    """Puts something that is no regular file at the path."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "dangling link":
        path.symlink_to(path.with_name("nowhere"))
    else:
        path.with_name("elsewhere").write_bytes(b"mine")
        path.symlink_to(path.with_name("elsewhere"))


ODD = ("pipe", "folder", "dangling link", "link")


@pytest.mark.parametrize("kind", ODD)
def test_what_is_no_regular_file_is_an_error_at_once(kind, tmp_path, limit):
    odd(kind, tmp_path / "file")
    with pytest.raises(OSError):
        files.read_regular(tmp_path / "file", 100)
    with pytest.raises(OSError, match=r"cannot write .*file: "):
        AppendedFile(tmp_path / "file").open()
    assert not (tmp_path / "nowhere").exists()
    if kind == "link":
        assert (tmp_path / "elsewhere").read_bytes() == b"mine"


def test_a_link_is_replaced_not_followed(tmp_path):
    odd("link", tmp_path / "file")
    files.write_atomically(tmp_path / "file", b"new")
    assert (tmp_path / "elsewhere").read_bytes() == b"mine"
    assert (tmp_path / "file").read_bytes() == b"new" and not (tmp_path / "file").is_symlink()


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    with open(tmp_path / "file", "wb") as file:
        file.truncate(2**40)  # takes no room on the disk
    with pytest.raises(OSError, match="Larger than 1,000 bytes"):
        files.read_regular(tmp_path / "file", 1000)
    (tmp_path / "small").write_bytes(b"12345")
    assert files.read_regular(tmp_path / "small", 5) == b"12345"


def test_an_interrupt_right_after_the_rename_stays_an_interrupt(tmp_path, monkeypatch):
    replace = os.replace

    def interrupted(*paths):
        replace(*paths)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        files.write_atomically(tmp_path / "file", b"new")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"new")]
