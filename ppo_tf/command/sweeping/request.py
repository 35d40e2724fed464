"""The request of a sweep: a dict, checked, made from the flags and sweep.json.

It has "env", "seeds" and, if given, "grid", "search", "trials", "prune", "script" and
"train_flags".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ppo_tf.command.runs import is_new
from ppo_tf.command.settings import SETTINGS
from ppo_tf.command.sweeping.space import as_flags
from ppo_tf.support.json_files import read_json
from ppo_tf.support.schema import COUNT, NUMBER, TEXT, Named, Rule, check, matching

Request = dict[str, Any]

_VALUE = Rule("a value of a setting", lambda v: v is None or type(v) in (bool, int, float, str))
_SETTING = Rule("a setting", lambda v: v in SETTINGS and v != "seed")
_FLAG = Rule("a flag", lambda v: TEXT.allows(v) and not v.lstrip("-").startswith("flagfile"))
_SCHEMAS: dict[str, Any] = {
    "env": matching("an environment's id", r"[^\s\0]{1,200}"),
    "seeds": COUNT,
    "grid": Named(_SETTING, [_VALUE]),
    "search": Named(_SETTING, Rule("values or a range", lambda v: _is_searchable(v))),
    "trials": COUNT,
    "prune": Rule("true or false", lambda v: isinstance(v, bool)),
    "script": TEXT,
    "train_flags": [_FLAG],
}
_UNKNOWN = Rule("left out", lambda v: False)


def read(folder: Path) -> Request:
    """Returns the contents of a folder's sweep.json; empty if there is none.

    Raises:
        ValueError: it can't be read, or is not a sweep's; the message is one line.
    """
    file, received = folder / "sweep.json", f"Received: sweepdir={folder}"
    if not file.exists() and not file.is_symlink():
        return {}
    try:
        request = read_json(file, {"env": _SCHEMAS["env"], "seeds": COUNT})
        check(request, {n: _SCHEMAS.get(n, _UNKNOWN) for n in request}, file.name)
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror}. {received}") from error
    except ValueError as error:
        raise ValueError(f"{file} is not a sweep's: {error}. {received}") from error
    return dict(request)


def _is_searchable(value: Any) -> bool:
    """Whether a value is a list of values, or a range."""
    if isinstance(value, list):
        return all(_VALUE.allows(element) for element in value)
    ends = ("low", "high")
    return (
        isinstance(value, dict)
        and value.keys() == {*ends, "log"}
        and all(NUMBER.allows(value[end]) for end in ends)
        and isinstance(value["log"], bool)
    )


def complete(given: Mapping[str, Any], before: Request) -> Request:
    """Returns the request, in the order of `given`.

    Args:
        given: every entry by name, from the flags; None or empty if not given.
        before: contents of the folder's sweep.json, which fill the gaps unless "env" is given;
            empty for a new sweep.

    Raises:
        ValueError: bad input; or the folder's sweep ran a script, which is never run unless it is
            given again: the folder may be somebody else's.
    """
    if "script" in before and given.get("script") is None:
        raise ValueError(
            f"The sweep ran a script of its own; to run it, give --script={before['script']} "
            "again. Received: no --script"
        )
    asked = {name: value for name, value in given.items() if value not in (None, {}, [])}
    if "env" not in asked:
        asked = before | asked
    if "env" not in asked:
        raise ValueError("--env is required, for instance --env=Pendulum-v1.")
    if "grid" in asked and "search" in asked:
        raise ValueError("--grid and --search cannot be combined. Received: both")
    if "search" in asked:
        asked = {"trials": 20, "prune": True} | asked
    elif "trials" in asked or "prune" in asked:
        raise ValueError("--trials and --prune need a search. Received: no --search")
    asked = {"seeds": 1} | asked
    for name in ("seeds", "trials"):
        if asked.get(name, 1) < 1:
            raise ValueError(f"{name} must be at least 1. Received: {name}={asked[name]}")
    _check_train_flags(asked)
    return {name: asked[name] for name in given if name in asked}


def _check_train_flags(asked: Request) -> None:
    """Raises ValueError if the flags after -- include one that the sweep itself sets."""
    ours = {"env", "seed", "logdir", "export_dir", "resume"}
    ours |= asked.get("grid", {}).keys() | asked.get("search", {}).keys()
    for word in asked.get("train_flags", []):
        name = word.lstrip("-").partition("=")[0]
        if name in ours or name.removeprefix("no") in ours:
            raise ValueError(f"The sweep itself sets {name}. Received: {word} after --")


def check_folder(folder: Path, before: Request, asked: Request) -> None:
    """Checks that a folder is free or holds the same sweep; seeds or trials may increase.

    Args:
        folder: folder of the sweep.
        before: contents of the folder's sweep.json; empty if there is none.
        asked: the request.

    Raises:
        ValueError: the folder is neither new nor empty nor that of this sweep.
    """
    if not before:
        if not is_new(folder):
            raise ValueError(f"sweepdir must be new, empty or hold a sweep. Received: {folder}")
        return
    more = "trials" if "search" in asked else "seeds"
    for name in dict.fromkeys([*asked, *before]):
        there, here = before.get(name), asked.get(name)
        if there != here and not (name == more and there and here > there):
            raise ValueError(
                f"sweepdir holds another sweep, with {name}={there}. Received: {name}={here}"
            )


def training_flags(settings: Mapping[str, Any], asked: Request) -> list[str]:
    """Returns the training command's flags for settings, including those given after --."""
    train_flags: Sequence[str] = asked.get("train_flags", [])
    return [f"--env={asked['env']}", *as_flags(settings), *train_flags]
