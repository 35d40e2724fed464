"""The search space: the values, or the range, that --grid and --search give a setting.

In a grid, a setting has a list of values; in a search, a list or {"low", "high", "log"}, both ends
included. Values are of JSON types, for sweep.json; a tuple stays in the text form of its flag.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ppo_tf.command.declarations import Declaration, as_text
from ppo_tf.command.settings import SETTINGS

Space = dict[str, list[Any] | dict[str, Any]]  # values or a range, by setting

RANGE = re.compile(r"(\S+?)\.\.(\S+?)(\s+log)?")


def parse(flag: str, texts: Iterable[str]) -> Space:
    """Parses a flag's texts, such as "estimator=gae,n_step", to values or ranges by setting.

    Args:
        flag: "grid" or "search"; only a search accepts ranges.
        texts: one per setting.

    Raises:
        ValueError: a name is not a setting or appears twice, there are no values, or a value or
            range is invalid for the setting.
    """
    space: Space = {}
    for text in texts:
        name, _, words = (part.strip() for part in text.partition("="))
        received = f"Received: --{flag}={text!r}"
        if name == "seed":
            raise ValueError(f"seed cannot be varied here: --seeds=N runs 0 to N - 1. {received}")
        if name not in SETTINGS:
            near = difflib.get_close_matches(name, SETTINGS)
            hint = f"; did you mean {' or '.join(near)}?" if near else "."
            raise ValueError(f"{name!r} is not a setting of the training command{hint} {received}")
        if name in space:
            raise ValueError(f"{name} is given twice. {received}")
        match = RANGE.fullmatch(words) if flag == "search" else None
        setting = SETTINGS[name]
        try:
            space[name] = _range(setting, match) if match else _values(setting, words)
        except ValueError as error:
            raise ValueError(f"{error} in --{flag}={text!r}") from None
    return space


def _values(setting: Declaration, words: str) -> list[Any]:
    """Splits at commas, or at semicolons if the values contain commas: 32,32;64,64."""
    values = []
    for word in words.split(";" if ";" in words else ","):
        if not word.strip():
            raise _error(setting, "needs values", words)
        value = setting.parse(word)
        values.append(as_text(value) if setting.is_tuple else value)
    if len(set(values)) < len(values):
        hint = "; lists are separated by semicolons" if setting.is_tuple else ""
        raise _error(setting, f"has a value twice{hint}", words)
    return values


def _range(setting: Declaration, match: re.Match[str]) -> dict[str, Any]:
    if setting.type not in (int, float) or setting.is_tuple:
        raise _error(setting, "has no range; list its values, separated by commas", match[0])
    try:
        low, high = setting.type(match[1]), setting.type(match[2])
    except ValueError:
        raise _error(setting, f"must be {setting.rule}", match[0]) from None
    log = match[3] is not None
    if not 0 < high - low < math.inf:
        raise _error(setting, "needs a finite range whose low end is below its high end", match[0])
    if log and low <= 0:
        raise _error(setting, "needs a range above 0 for its logarithm", match[0])
    return {"low": setting.check(low), "high": setting.check(high), "log": log}


def _error(setting: Declaration, problem: str, words: str) -> ValueError:
    return ValueError(f"{setting.name} {problem}. Received: {setting.name}={words!r}")


def as_flags(settings: Mapping[str, Any]) -> list[str]:
    """Formats settings as flags of the training command."""
    return [f"--{name}={as_text(value)}" for name, value in settings.items()]


def describe(settings: Mapping[str, Any]) -> str:
    """Formats settings on one line, like flags without dashes."""
    return " ".join(flag.removeprefix("--") for flag in as_flags(settings))
