"""What --grid and --search of examples/sweep.py mean: values to try by setting, or a range.

In a grid a setting has a list of values; in a search a list or {"low", "high", "log"}, both ends
included. The plain types go into sweep.json as they are.
"""

import difflib
import math
import re

from ppo_tf.command.settings import CHOICES, DEFAULTS

RANGE = re.compile(r"(\S+?)\.\.(\S+?)(\s+log)?")


def parse(flag, texts):
    """From the flag's texts, such as "estimator=gae,n_step", to values or ranges by setting.

    Args:
        flag: "grid" or "search"; only a search has ranges.
        texts: one per setting.

    Raises:
        ValueError: a name that is no setting or comes twice, no values, no such value or range.
    """
    space = {}
    for text in texts:
        name, _, words = (part.strip() for part in text.partition("="))
        received = f"Received: --{flag}={text!r}"
        if name == "seed":
            raise ValueError(f"seed is no setting to try: --seeds=N runs 0 to N - 1. {received}")
        if name not in DEFAULTS:
            near = difflib.get_close_matches(name, DEFAULTS)
            hint = f"; did you mean {' or '.join(near)}?" if near else "."
            raise ValueError(f"{name!r} is no setting of the training command{hint} {received}")
        if name in space:
            raise ValueError(f"{name} is given twice. {received}")
        try:
            match = RANGE.fullmatch(words)
            if match and flag == "search":
                space[name] = _range(name, match)
            else:
                space[name] = _values(name, words)
        except ValueError as error:
            raise ValueError(f"{name} {error}. {received}") from None
    return space


def _values(name, words):
    """Split at commas, or at semicolons where a value has commas of its own: 32,32;64,64."""
    separator = ";" if ";" in words else ","
    values = [_value(name, word.strip()) for word in words.split(separator)]
    if len(set(values)) < len(values):
        hint = "; lists are separated by semicolons" if isinstance(DEFAULTS[name], tuple) else ""
        raise ValueError("has a value twice" + hint)
    return values


def _value(name, word):
    """One value, of the type of the setting's default. Lists stay text, as the flag takes them."""
    default, lower = DEFAULTS[name], word.lower()
    if not word:
        raise ValueError("needs values")
    if isinstance(default, bool) or (default is None and lower in ("true", "false")):
        if lower not in ("true", "false"):
            raise ValueError(f"must be true or false, not {word!r}")
        return lower == "true"
    if default is None and lower == "none":
        return None
    if isinstance(default, int | float | None):
        return _number(int if isinstance(default, int) else float, word)
    if word not in CHOICES.get(name, [word]):
        raise ValueError(f"must be one of {', '.join(CHOICES[name])}, not {word!r}")
    return word


def _number(kind, word):
    try:
        return kind(word)
    except ValueError:
        whole = "a whole number" if kind is int else "a number"
        raise ValueError(f"must be {whole}, not {word!r}") from None


def _range(name, match):
    default = DEFAULTS[name]
    if isinstance(default, bool | str | tuple):
        raise ValueError("has no range; list its values, separated by commas")
    low, high = (_number(int if isinstance(default, int) else float, match[i]) for i in (1, 2))
    log = match[3] is not None
    if not 0 < high - low < math.inf:
        raise ValueError("needs a finite range whose low end is below its high end")
    if log and low <= 0:
        raise ValueError("needs a range above 0 for its logarithm")
    return {"low": low, "high": high, "log": log}


def text(value):
    """A value as flags take it: true and false in lower case."""
    return str(value).lower() if isinstance(value, bool | None) else str(value)


def describe(settings):
    """Settings on one line, as they would be typed."""
    return " ".join(f"{name}={text(value)}" for name, value in settings.items())
