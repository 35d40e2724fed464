"""The folder of a training run: its config.json, who may write in it, which run to go on with."""

from __future__ import annotations

import json
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import filelock

from ppo_tf.files import write_atomically
from ppo_tf.presets import DEFAULTS, Setting

CONFIG = "config.json"
RESULT = "evaluation.json"  # a run that has it is finished
LOCK = ".lock"

# Settings that may be others when a run goes on: they say how long, not what is learned how.
MAY_CHANGE = ("total_steps", "eval_episodes")

_PACKAGES = ("ppo_tf", "tensorflow", "keras", "tensorflow-probability", "gymnasium", "numpy")


def versions() -> dict[str, str]:
    """Versions of what a run's numbers depend on."""
    return {"python": platform.python_version()} | {p: metadata.version(p) for p in _PACKAGES}


def make_config(
    env_id: str, settings: dict[str, Setting], engines: dict[str, str], **more: Any
) -> dict[str, Any]:
    """What config.json says of a run.

    Args:
        env_id: of the environment.
        settings: as `presets.resolve` gives them.
        engines: what was chosen to run it, in words by name.
        more: JSON values.
    """
    return {
        "env": env_id,
        "seed": settings["seed"].value,
        "settings": {name: setting._asdict() for name, setting in settings.items()},
        "engines": engines,
        **more,
        "versions": versions(),
    }


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file that is there as a whole or not at all.

    Raises:
        OSError: it can't be written; names the file.
    """
    try:
        write_atomically(path, f"{json.dumps(value, indent=2)}\n".encode())
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror}") from error


def read_config(path: str | os.PathLike, argument: str = "config") -> dict[str, Any]:
    """A run's config.json; "settings" holds a `Setting` by name, lists as tuples.

    Args:
        path: of the file, or of the run's folder.
        argument: what errors call it.

    Raises:
        ValueError: it is not there, or not such a file.
    """
    path = Path(path)
    file = path / CONFIG if path.is_dir() else path
    try:
        config = json.loads(file.read_text())
        settings = {name: Setting(**setting) for name, setting in config["settings"].items()}
        config["env"], config["versions"]["ppo_tf"]
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror}. Received: {argument}={path}") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} is no run's config. Received: {argument}={path}") from error
    if unknown := settings.keys() - DEFAULTS.keys():
        raise ValueError(
            f"{file} has settings that are none: {sorted(unknown)}. Received: {argument}={path}"
        )
    for name, (value, source) in settings.items():
        if isinstance(value, list):
            settings[name] = Setting(tuple(value), source)
    return {**config, "settings": settings}


def check_same_run(
    folder: Path, config: dict[str, Any], env_id: str, given: dict[str, Any]
) -> None:
    """Raises ValueError, naming what differs, unless a run may go on as it is asked to.

    Args:
        folder: of the run.
        config: of the run, from `read_config`.
        env_id: asked for.
        given: settings asked for, by name; None counts as not given.
    """
    if env_id != config["env"]:
        raise ValueError(f"{folder} is a run of env={config['env']}. Received: env={env_id}")
    written, here = config["versions"]["ppo_tf"], metadata.version("ppo_tf")
    if written != here:
        raise ValueError(f"{folder} is a run of ppo_tf {written}. Received: ppo_tf {here}")
    before = config["settings"]
    others = [
        f"{name}={value} (was {before[name].value})"
        for name, value in given.items()
        if value is not None and value != before[name].value and name not in MAY_CHANGE
    ]
    if others:
        raise ValueError(
            f"{folder} goes on with its own settings; only {' and '.join(MAY_CHANGE)} may change. "
            f"Received: {', '.join(others)}"
        )


def changed_versions(config: dict[str, Any]) -> list[str]:
    """What is installed in another version than when the run began, in words."""
    return [
        f"{name} {config['versions'].get(name)} -> {version}"
        for name, version in versions().items()
        if version != config["versions"].get(name)
    ]


def is_new(folder: Path) -> bool:
    """Whether nothing is there yet, or no more than a lock."""
    return not folder.exists() or (
        folder.is_dir() and all(path.name == LOCK for path in folder.iterdir())
    )


def newest_unfinished(root: Path, env_id: str, seed: int) -> Path | None:
    """The folder in `root` of the newest run of an environment and seed that has no result."""
    for path in sorted(root.glob(f"*/{CONFIG}"), key=lambda p: p.stat().st_mtime, reverse=True):
        if (path.parent / RESULT).exists():
            continue
        try:
            config = read_config(path)
        except ValueError:  # another program's
            continue
        if (config["env"], config["seed"]) == (env_id, seed):
            return path.parent
    return None


def lock_folder(folder: Path, argument: str = "logdir") -> filelock.BaseFileLock:
    """Makes this process the only one that writes in the folder, until it ends, however it ends.

    The operating system keeps the lock and drops it with the process: the file .lock that stays
    behind means nothing.

    Raises:
        ValueError: another process has it.
    """
    lock = filelock.FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=1.0)  # children of a killed run may take a moment to end
    except filelock.Timeout:
        raise ValueError(
            f"Another run is writing in the folder. Received: {argument}={folder}"
        ) from None
    return lock
