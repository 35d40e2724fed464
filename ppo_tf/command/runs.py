"""The folder of a training run: its config.json, who may write in it, which run to go on with.

Nothing here waits for TensorFlow.
"""

from __future__ import annotations

import json
import os
import platform
import time
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import filelock

from ppo_tf.command.presets import Setting, resolve
from ppo_tf.command.settings import DEFAULTS, MAY_CHANGE, check, check_all
from ppo_tf.support.files import naming, write_atomically
from ppo_tf.support.folders import check_new_folder

CONFIG = "config.json"
RESULT = "evaluation.json"  # a run that has it is finished
LOCK = ".lock"

_PACKAGES = ("ppo_tf", "tensorflow", "keras", "tensorflow-probability", "gymnasium", "numpy")


class Plan(NamedTuple):
    """What to run, and where.

    Attributes:
        env_id: of the environment.
        settings: every setting by name.
        logdir: folder of the run's files.
        export_dir: folder of the exported policy as it was asked for, or None.
        resumed: config of the run that goes on, as `read_config` gives it; None: a new run.
    """

    env_id: str
    settings: dict[str, Setting]
    logdir: Path
    export_dir: str | None
    resumed: dict[str, Any] | None = None

    @property
    def policy_path(self) -> Path:
        """Folder of the exported policy."""
        return Path(self.export_dir or self.logdir / "policy")

    @property
    def finished(self) -> bool:
        """Whether the run has its result, and no other number of steps is asked for."""
        if self.resumed is None or not (self.logdir / RESULT).exists():
            return False
        return self.settings["total_steps"].value == self.resumed["settings"]["total_steps"].value


def plan(
    env_id: str | None,
    given: dict[str, Any],
    *,
    logdir: str | None = None,
    export_dir: str | None = None,
    resume: str | None = None,
    config: str | None = None,
) -> Plan:
    """Which run is asked for: a new one, or one to go on with. Nothing is written.

    Args:
        env_id: of the environment; None: that of the config, or of the run that goes on.
        given: settings asked for, by name.
        logdir: folder of the run's files, by default runs/ENV-seedSEED-TIME.
        export_dir: folder of the exported policy, by default policy in logdir.
        resume: folder of a run to go on with. "auto": logdir if a run is there, or, without
            logdir, the newest unfinished run of the environment and seed in runs, if there is one.
        config: a run's config.json, whose settings count unless others are given.

    Raises:
        ValueError: arguments that do not go together, no environment, a setting that does not
            exist or has a wrong value, a folder that is no run's, or a run that can't go on as it
            is asked to.
        FileExistsError, NotADirectoryError, PermissionError: logdir or export_dir, see
            `check_new_folder`.
    """
    given = check_all(given)
    if resume and config:
        raise ValueError(f"resume has a config of its own. Received: config={config}")
    if resume and resume != "auto":
        if logdir:
            raise ValueError(f"resume is the folder of the run. Received: logdir={logdir}")
        return _resumed(Path(resume), env_id, given, export_dir)
    before = read_config(config) if config else {"env": None, "settings": {}}
    env_id = env_id or before["env"]
    if env_id is None:
        raise ValueError("--env is required, for instance --env=Pendulum-v1.")
    settings = resolve(env_id, given, {n: s.value for n, s in before["settings"].items()})
    seed = settings["seed"].value
    if resume == "auto":
        folder = Path(logdir) if logdir else newest_unfinished(Path("runs"), env_id, seed)
        if folder is not None and not is_new(folder):
            return _resumed(folder, env_id, given, export_dir)
    name = f"{env_id.replace('/', '-')}-seed{seed}-{time.strftime('%Y%m%d-%H%M%S')}"
    path = Path(logdir or Path("runs") / name)
    if resume is None or not is_new(path):
        check_new_folder(path, "logdir")
    new = Plan(env_id, settings, path, export_dir)
    check_new_folder(new.policy_path, "export_dir")
    return new


def _resumed(
    folder: Path, env_id: str | None, given: dict[str, Any], export_dir: str | None
) -> Plan:
    """The run in a folder, to go on."""
    config = read_config(folder, "resume")
    check_same_run(folder, config, env_id or config["env"], given)
    changed = {n: Setting(given[n], "flag") for n in MAY_CHANGE if n in given}
    settings = {**config["settings"], **changed}
    return Plan(config["env"], settings, folder, export_dir or config.get("export_dir"), config)


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
    with naming(path):
        write_atomically(path, f"{json.dumps(value, indent=2)}\n".encode())


def read_config(path: str | os.PathLike[str], argument: str = "config") -> dict[str, Any]:
    """A run's config.json; "settings" holds a `Setting` by name, lists as tuples.

    Args:
        path: path of the file, or of the run's folder.
        argument: what errors call it.

    Raises:
        ValueError: it is not there, it is not such a file, or a setting in it is unknown or has a
            value that does not suit it.
    """
    path = Path(path)
    file = path / CONFIG if path.is_dir() else path
    try:
        config = json.loads(file.read_text())
        written = {name: Setting(**setting) for name, setting in config["settings"].items()}
        config["env"], config["seed"], config["engines"], config["versions"]["ppo_tf"]
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror}. Received: {argument}={path}") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} is no run's config. Received: {argument}={path}") from error
    try:
        settings = {n: Setting(check(n, value), source) for n, (value, source) in written.items()}
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    return {**config, "settings": settings}


def check_same_run(
    folder: Path, config: dict[str, Any], env_id: str, given: dict[str, Any]
) -> None:
    """Raises ValueError, naming what differs, unless a run may go on as it is asked to.

    Args:
        folder: of the run.
        config: of the run, from `read_config`.
        env_id: asked for.
        given: settings asked for, by name.
    """
    if env_id != config["env"]:
        raise ValueError(f"{folder} is a run of env={config['env']}. Received: env={env_id}")
    written, here = config["versions"]["ppo_tf"], metadata.version("ppo_tf")
    if written != here:
        raise ValueError(f"{folder} is a run of ppo_tf {written}. Received: ppo_tf {here}")
    before = config["settings"]
    if lacking := [name for name in DEFAULTS if name not in before]:
        raise ValueError(f"{folder / CONFIG} lacks settings. Received: no {', '.join(lacking)}")
    others = [
        f"{name}={value} (was {before[name].value})"
        for name, value in given.items()
        if value != before[name].value and name not in MAY_CHANGE
    ]
    if others:
        raise ValueError(
            f"{folder} goes on with its own settings; only {', '.join(MAY_CHANGE)} may change. "
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
