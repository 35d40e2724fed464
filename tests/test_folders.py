"""Replacing a folder always leaves a complete one, and the next call cleans up.

A crash is simulated by an error at some step after which no further step has an effect, so that the
code that cleans up after an error does nothing either.
"""

import itertools
import os
import shutil

import pytest

from ppo_tf.support import folders

MARKER = "mark"


class Crash(BaseException):
    pass


class Steps:
    """Counts file operations, and lets none through from the step `last` on."""

    def __init__(self, monkeypatch, last):
        self.left, self.crashed = last, False
        rename, rmtree = os.rename, shutil.rmtree

        def half_and_whole(folder, **kwargs):
            self()
            for path in [p for p in folder.iterdir() if p.name != MARKER][:1]:
                path.unlink()
            self()
            rmtree(folder, **kwargs)

        monkeypatch.setattr(os, "rename", lambda *paths: self() or rename(*paths))
        monkeypatch.setattr(shutil, "rmtree", half_and_whole)

    def __call__(self):
        self.crashed = self.crashed or self.left == 0
        if self.crashed:
            raise Crash
        self.left -= 1


def write(path, content, step=lambda: None):
    path = folders.check_replaceable(path, MARKER)
    with folders.complete_folder(path, MARKER) as new:
        for name in ("a", MARKER, "z"):
            step()
            (new / name).write_text(content)


def crashes_at(last, path, content):
    """Whether writing reached step `last` and crashed there."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        steps = Steps(monkeypatch, last)
        try:
            write(path, content, steps)
        except Crash:
            pass
        return steps.crashed


def found(path):
    """Returns the contents of the complete folders: at path and set aside."""
    places = [path, path.with_name(".policy.replaced")]
    contents = [
        {name: (p / name).read_text() for name in ("a", MARKER, "z")} for p in places if p.exists()
    ]
    assert all(len(set(c.values())) == 1 for c in contents)
    return {c["a"] for c in contents}


def test_a_crash_at_any_step_leaves_the_old_folder_or_the_new_one(tmp_path):
    for first in itertools.count():
        for second in itertools.count():
            path = tmp_path / f"{first}-{second}" / "policy"
            write(path, "old")
            if not crashes_at(first, path, "new"):
                assert first == 8  # three files, two renames to swap, three steps to delete
                return
            left = found(path)
            assert left and left <= {"old", "new"}
            crashed = crashes_at(second, path, "newer")
            assert found(path) and found(path) <= left | {"newer"}
            write(path, "newest")
            assert os.listdir(path.parent) == ["policy"] and found(path) == {"newest"}
            if not crashed:
                break


def test_an_error_keeps_the_old_folder(tmp_path):
    path = tmp_path / "policy"
    write(path, "old")
    with (
        pytest.raises(ZeroDivisionError),
        folders.complete_folder(path, MARKER) as new,
    ):
        (new / MARKER).write_text("new")
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == ["policy"] and found(path) == {"old"}


def test_a_failing_swap_keeps_the_old_folder(tmp_path, monkeypatch):
    path = tmp_path / "policy"
    write(path, "old")
    rename = os.rename

    def fails(source, target):
        if ".unfinished-" in str(source):
            raise OSError("no room")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fails)
    with pytest.raises(OSError, match="no room"):
        write(path, "new")
    assert os.listdir(tmp_path) == ["policy"] and found(path) == {"old"}


def test_a_folder_created_in_the_meantime_is_not_replaced(tmp_path):
    path = tmp_path / "policy"
    with pytest.raises(OSError), folders.complete_folder(path, MARKER) as new:
        (new / MARKER).touch()
        path.mkdir()
        (path / "other").touch()
    assert os.listdir(tmp_path) == ["policy"] and os.listdir(path) == ["other"]


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_only_a_marked_folder_is_replaced(kind, tmp_path):
    path = tmp_path / "policy"
    if kind == "folder":
        path.mkdir()
        (path / "other").touch()
    elif kind == "file":
        path.write_text("mine")
    else:
        write(tmp_path / "elsewhere", "old")
        path.symlink_to(tmp_path / "elsewhere")
    before = sorted(tmp_path.rglob("*"))
    message = "not a folder with a mark .*Received: path=.*policy"
    with pytest.raises(FileExistsError, match=message):
        folders.check_replaceable(path, MARKER)
    assert sorted(tmp_path.rglob("*")) == before


def test_folders_with_similar_names_are_untouched(tmp_path):
    for name in ("policy-best", ".policy-best.unfinished-1", ".policy"):
        write(tmp_path / name, "other")
    before = sorted(os.listdir(tmp_path))
    for content in ("old", "new"):
        write(tmp_path / "policy", content)
    assert sorted(os.listdir(tmp_path)) == sorted([*before, "policy"])
