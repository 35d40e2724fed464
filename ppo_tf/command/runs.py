"""The folder of a training run: its config.json, its lock, and which run to resume.

Nothing here imports TensorFlow.
"""

from __future__ import annotations

import os
import platform
import secrets
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import filelock

from ppo_tf.artefacts.metadata import METADATA
from ppo_tf.command.presets import SOURCES, Setting, resolve
from ppo_tf.command.settings import DEFAULTS, MAY_CHANGE, check, check_all
from ppo_tf.support.folders import check_new_folder
from ppo_tf.support.json_files import read_json
from ppo_tf.support.schema import ANY, COUNT, OBJECT, TEXT, Named, Rule, matching, optional

CONFIG = "config.json"
RESULT = "evaluation.json"  # exists once a run is finished
LOCK = ".lock"
RESERVED = {
    *(CONFIG, RESULT, LOCK, "checkpoints", "videos", "best_policy", "wandb"),
    *("metrics.csv", "metrics.jsonl"),
}

_SOURCE = Rule("a source", lambda v: v in SOURCES)
_SCHEMA = {
    "id": matching("a run's id", r"[0-9a-f]{16}"),
    "env": matching("an environment's id", r"[^\s\0]{1,200}"),
    "seed": COUNT,
    "settings": Named(TEXT, {"value": ANY, "source": _SOURCE}),
    "engines": Named(TEXT, TEXT),
    "export_dir": optional(TEXT),
    "boundaries": [COUNT],
    "versions": Named(TEXT, TEXT),
}

_PACKAGES = ("ppo_tf", "tensorflow", "keras", "tensorflow-probability", "gymnasium", "numpy")


class Plan(NamedTuple):
    """What to run, and where.

    Attributes:
        env_id: Gymnasium id of the environment.
        settings: every setting by name.
        logdir: folder of the run's files.
        export_dir: folder requested for the exported policy, or None.
        resumed: config of the run to resume, from `read_config`; None: a new run.
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
        """Whether the run has its result, and no other number of steps is requested."""
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
    """Plans a new run, or one to resume. Nothing is written.

    Args:
        env_id: Gymnasium id of the environment; None: that of the config or of the run to resume.
        given: the user's settings by name.
        logdir: folder of the run's files, by default runs/ENV-seedSEED-TIME.
        export_dir: folder of the exported policy, by default policy in logdir.
        resume: folder of a run to resume. "auto": logdir if it holds a run, or, without logdir, the
            newest unfinished run of the environment and seed in runs, if there is one.
        config: path of a run's config.json; `given` overrides its settings.

    Raises:
        ValueError: arguments are incompatible, there is no environment, a setting does not exist or
            has an invalid value, the folder to resume is not that of a run, or the run can't be
            resumed with these settings.
        FileExistsError, NotADirectoryError, PermissionError: see `check_new_folder`; raised for
            logdir and export_dir.
    """
    given = check_all(given)
    if resume and config:
        raise ValueError(f"config cannot be combined with resume. Received: config={config}")
    if resume and resume != "auto":
        if logdir:
            raise ValueError(f"logdir cannot be combined with resume. Received: logdir={logdir}")
        return _resumed(Path(resume), env_id, given, export_dir)
    before = read_config(config) if config else {"env": None, "settings": {}, "boundaries": []}
    env_id = env_id or before["env"]
    if env_id is None:
        raise ValueError("--env is required, for instance --env=Pendulum-v1.")
    settings = resolve(env_id, given, to_repeat(before, given))
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
    check_apart(new)
    return new


def _resumed(
    folder: Path, env_id: str | None, given: dict[str, Any], export_dir: str | None
) -> Plan:
    """Plans to resume the run in a folder."""
    config = read_config(folder, "resume")
    check_same_run(folder, config, env_id or config["env"], given)
    changed = {n: Setting(given[n], "flag") for n in MAY_CHANGE if n in given}
    settings = {**config["settings"], **changed}
    resumed = Plan(config["env"], settings, folder, export_dir or config["export_dir"], config)
    check_no_links(folder)
    check_own_policy(resumed.policy_path, config["id"])
    return resumed


def to_repeat(config: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings that repeat a run, by name.

    They include its boundaries as `checkpoint_at`: without them, those by time would fall elsewhere
    and change the numbers. The end of the run is one only for a run of the same length.

    Args:
        config: config of the run to repeat, from `read_config`.
        given: the user's settings by name, which override it.
    """
    values = {name: setting.value for name, setting in config["settings"].items()}
    every = config["settings"].get("checkpoint_every")
    if every is not None and every.source == "default" and "num_envs" in given:
        del values["checkpoint_every"]  # it was computed from another number
    places = config["boundaries"]
    if not places or given.keys() & {"checkpoint_every", "checkpoint_minutes", "checkpoint_at"}:
        return values
    before = DEFAULTS | values
    if given.get("total_steps", before["total_steps"]) != before["total_steps"]:
        batch = before["num_envs"] * before["horizon"]
        places = [place for place in places if place + batch <= before["total_steps"]]
    return {**values, "checkpoint_at": tuple(places)}


def check_apart(new: Plan) -> None:
    """Checks that the exported policy has a place of its own.

    Raises:
        ValueError: it is the log folder, one that holds it, or one of the run's files in it.
    """
    logdir, policy = (Path(os.path.abspath(path)) for path in (new.logdir, new.policy_path))
    inside = policy.is_relative_to(logdir) and policy.relative_to(logdir).parts[:1]
    if logdir.is_relative_to(policy) or (inside and inside[0] in RESERVED):
        raise ValueError(
            "export_dir must be apart from the run's own files. "
            f"Received: export_dir={new.policy_path}, logdir={new.logdir}"
        )


def check_no_links(folder: Path) -> None:
    """Checks that nothing in a run's folder leads elsewhere, where writing would follow.

    Raises:
        ValueError: there is a symbolic link; the message names it.
    """
    inside = (
        *folder.iterdir(),
        *(folder / "checkpoints").glob("*"),
        *(folder / "videos").glob("*"),
    )
    for path in inside:
        if path.is_symlink() and path.suffix != ".checkpoint":  # those are replaced, not followed
            raise ValueError(
                f"{path} is a symbolic link, and none is followed in a run's folder. "
                f"Received: resume={folder}"
            )


def check_own_policy(path: Path, run_id: str) -> None:
    """Checks that a policy can be exported to a path: a new one, or in place of the run's own.

    Raises:
        FileExistsError: there is something else.
        NotADirectoryError, PermissionError: see `check_new_folder`.
    """
    try:
        ours = read_json(path / METADATA, OBJECT).get("run") == run_id
    except (OSError, ValueError):
        ours = False
    if not ours or path.is_symlink():
        check_new_folder(path, "export_dir")


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that a run's numbers depend on."""
    return {"python": platform.python_version()} | {p: metadata.version(p) for p in _PACKAGES}


def new_id() -> str:
    """Returns an id for a new run, by which its files are recognised."""
    return secrets.token_hex(8)


def make_config(
    run_id: str,
    env_id: str,
    settings: dict[str, Setting],
    engines: dict[str, str],
    export_dir: str | None = None,
    boundaries: Sequence[int] = (),
) -> dict[str, Any]:
    """Returns the contents of a run's config.json.

    Args:
        run_id: id of the run, see `new_id`.
        env_id: Gymnasium id of the environment.
        settings: every setting by name, from `presets.resolve`.
        engines: descriptions of the selected back end and acting engine, by name.
        export_dir: folder requested for the exported policy.
        boundaries: environment steps of the checkpoints so far that a run needs to be given to be
            the same, from `Boundaries.known`.
    """
    return {
        "id": run_id,
        "env": env_id,
        "seed": settings["seed"].value,
        "settings": {name: setting._asdict() for name, setting in settings.items()},
        "engines": engines,
        "export_dir": export_dir,
        "boundaries": [*boundaries],
        "versions": versions(),
    }


def read_config(path: str | os.PathLike[str], argument: str = "config") -> dict[str, Any]:
    """Reads a run's config.json; "settings" holds a `Setting` by name, with lists as tuples.

    Args:
        path: path of the file, or of the run's folder.
        argument: name of the argument in errors.

    Raises:
        ValueError: the file can't be read or is not a run's config, or a setting in it is unknown
            or has an invalid value.
    """
    path = Path(path)
    file = path / CONFIG if path.is_dir() else path
    received = f"Received: {argument}={path}"
    try:
        config = read_json(file, _SCHEMA, follow=True)
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror}. {received}") from error
    except ValueError as error:
        raise ValueError(f"{file} is not a run's config: {error}. {received}") from error
    written = config["settings"].items()
    try:
        settings = {n: Setting(check(n, s["value"]), s["source"]) for n, s in written}
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    return {**config, "settings": settings}


def check_same_run(
    folder: Path, config: dict[str, Any], env_id: str, given: dict[str, Any]
) -> None:
    """Checks that a run can be resumed with these settings.

    Args:
        folder: folder of the run.
        config: config of the run, from `read_config`.
        env_id: requested environment.
        given: requested settings by name.

    Raises:
        ValueError: the environment, the version of ppo_tf or a setting that may not change differs;
            the message names it.
    """
    if env_id != config["env"]:
        raise ValueError(f"{folder} is a run of env={config['env']}. Received: env={env_id}")
    written, here = config["versions"]["ppo_tf"], metadata.version("ppo_tf")
    if written != here:
        raise ValueError(f"{folder} is a run of ppo_tf {written}. Received: ppo_tf {here}")
    before = config["settings"]
    if lacking := [name for name in DEFAULTS if name not in before]:
        raise ValueError(f"{folder / CONFIG} must be complete. Received: no {', '.join(lacking)}")
    others = [
        f"{name}={value} (was {before[name].value})"
        for name, value in given.items()
        if value != before[name].value and name not in MAY_CHANGE
    ]
    if others:
        raise ValueError(
            f"{folder} resumes with its own settings; only {', '.join(MAY_CHANGE)} may change. "
            f"Received: {', '.join(others)}"
        )


def changed_versions(config: dict[str, Any]) -> list[str]:
    """Describes the packages whose version differs from that at the start of the run."""
    return [
        f"{name} {config['versions'].get(name)} -> {version}"
        for name, version in versions().items()
        if version != config["versions"].get(name)
    ]


def is_new(folder: Path) -> bool:
    """Whether the folder does not exist, or is empty but for a lock."""
    return not folder.exists() or (
        folder.is_dir() and all(path.name == LOCK for path in folder.iterdir())
    )


def newest_unfinished(root: Path, env_id: str, seed: int) -> Path | None:
    """Returns the newest unfinished run of an environment and seed in `root`, or None."""
    for path in sorted(root.glob(f"*/{CONFIG}"), key=lambda p: p.stat().st_mtime, reverse=True):
        if (path.parent / RESULT).exists():
            continue
        try:
            config = read_config(path)
        except ValueError:  # not a run of this program
            continue
        if (config["env"], config["seed"]) == (env_id, seed):
            return path.parent
    return None


def is_locked(folder: Path) -> bool:
    """Whether another process holds the lock of a folder."""
    if not folder.is_dir():
        return False
    try:
        with filelock.FileLock(folder / LOCK).acquire(blocking=False):
            return False
    except filelock.Timeout:
        return True


def lock_folder(folder: Path, argument: str = "logdir") -> filelock.BaseFileLock:
    """Locks a folder so that only this process writes to it, until the process ends in any way.

    The operating system holds the lock and releases it with the process. The file .lock that stays
    behind means nothing.

    Raises:
        ValueError: another process holds the lock.
    """
    lock = filelock.FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=1.0)  # children of a killed run may take a moment to end
    except filelock.Timeout:
        raise ValueError(
            f"Another run is writing to the folder. Received: {argument}={folder}"
        ) from None
    return lock
