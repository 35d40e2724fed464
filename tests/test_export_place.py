"""Where a policy is exported to: checked before training, and nobody else's is ever replaced."""

import json
import os

import pytest

import ppo_tf
from ppo_tf.command import runs

ID = "0123456789abcdef"
BAD = {
    "the log folder": "run",
    "one that holds it": ".",
    "its parent": "new",
    "the checkpoints": "run/checkpoints",
    "in the checkpoints": "run/checkpoints/policy",
    "a log": "run/metrics.csv",
    "the root": "/",
    "a name too long": "x" * 250,
    "a parent too long": "x" * 300 + "/policy",
    "a path too long": "x/" * 3000,
    "a null byte": "a\0b",
    "under a file": "file/policy",
    "a file": "file",
    "a dangling link": "dangling",
    "under a dangling link": "dangling/policy",
    "in /proc": "/proc/policy",
    "a device": "/dev/full",
    "under a device": "/dev/full/policy",
}


@pytest.mark.skipif(not os.path.exists("/proc/self"), reason="made for Linux")
@pytest.mark.parametrize("name", BAD)
def test_an_unusable_place_is_refused_before_training(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    before = sorted(tmp_path.iterdir())
    logdir = "new/run" if name == "its parent" else "run"
    with pytest.raises((OSError, ValueError)) as caught:
        runs.plan("CartPole-v1", {}, logdir=logdir, export_dir=BAD[name])
    assert "export_dir" in str(caught.value) and "\n" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("place", ["policy", "run/policy", "run/mine", "new/er/policy"])
def test_a_usable_place_is_left_as_it_was(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = runs.plan("CartPole-v1", {}, logdir="run", export_dir=place)
    assert str(plan.policy_path) == place and not list(tmp_path.iterdir())


@pytest.fixture
def folder(tmp_path):
    """The folder of a run to resume."""
    (tmp_path / "run").mkdir()
    settings = ppo_tf.presets.resolve("CartPole-v1", {})
    config = runs.make_config(ID, "CartPole-v1", settings, {})
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    return tmp_path / "run"


def policy(path, metadata):
    (path / "assets.extra").mkdir(parents=True)
    (path / "saved_model.pb").write_text("a model")
    if metadata is not None:
        (path / "assets.extra" / "policy.json").write_text(json.dumps(metadata))


@pytest.mark.parametrize(
    "metadata", [None, {}, [], {"env": "CartPole-v1"}, {"env": "CartPole-v1", "run": "f" * 16}]
)
@pytest.mark.parametrize("given", [True, False])
def test_somebody_elses_policy_is_never_replaced(metadata, given, folder, tmp_path):
    place = tmp_path / "theirs" if given else folder / "policy"
    policy(place, metadata)
    with pytest.raises(FileExistsError, match="export_dir already exists"):
        runs.plan(None, {}, resume=str(folder), export_dir=str(place) if given else None)


def test_the_runs_own_policy_is_replaced(folder):
    policy(folder / "policy", {"env": "CartPole-v1", "run": ID})
    assert runs.plan(None, {}, resume=str(folder)).policy_path == folder / "policy"


@pytest.mark.parametrize(
    "name", ["metrics.csv", "checkpoints", ".lock", "policy", "videos/steps-000000001.mp4"]
)
def test_a_link_in_a_runs_folder_is_refused(name, folder, tmp_path):
    (folder / name).parent.mkdir(exist_ok=True)
    (tmp_path / "mine").write_text("mine")
    (folder / name).symlink_to(tmp_path / "mine")
    with pytest.raises(ValueError, match=r"is a symbolic link, .* Received: resume="):
        runs.plan(None, {}, resume=str(folder))
    assert (tmp_path / "mine").read_text() == "mine"
