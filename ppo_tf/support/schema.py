"""One check for what is read from JSON: types, ranges, and names that are not paths.

A schema is a `Rule`; a list with one schema, for a list of any length; a dict of schemas, for an
object with at least these keys; or a `Named` schema, for an object with any keys.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple


class Rule(NamedTuple):
    """A rule for one value.

    Attributes:
        words: which values are valid, such as "an integer of at least 0".
        allows: whether a value is.
    """

    words: str
    allows: Callable[[Any], bool]


class Named(NamedTuple):
    """Values by name.

    Attributes:
        name: rule of the names.
        value: schema of the values.
    """

    name: Rule
    value: Any


def matching(words: str, pattern: str) -> Rule:
    """Returns a rule for text that matches a regular expression as a whole."""
    fits = re.compile(pattern)
    return Rule(words, lambda v: isinstance(v, str) and fits.fullmatch(v) is not None)


def optional(rule: Rule) -> Rule:
    """Returns a rule that also allows null."""
    return Rule(f"{rule.words}, or null", lambda v: v is None or rule.allows(v))


COUNT = Rule("an integer from 0 to 2^63 - 1", lambda v: type(v) is int and 0 <= v < 2**63)
NUMBER = Rule("a finite number", lambda v: type(v) in (int, float) and math.isfinite(v))
TEXT = Rule("text", lambda v: isinstance(v, str) and "\0" not in v)
ANY = Rule("a value", lambda v: True)
OBJECT = Named(TEXT, ANY)


def check(value: Any, schema: Any, where: str) -> None:
    """Checks a value.

    Args:
        value: value as `json.loads` returns it.
        schema: see the module.
        where: name of the value in errors.

    Raises:
        ValueError: the value does not fit; the message names the first place where.
    """
    if isinstance(schema, Rule):
        if not schema.allows(value):
            raise ValueError(f"{where} must be {schema.words}. Received: {_short(value)}")
    elif isinstance(schema, list):
        if not isinstance(value, list):
            raise ValueError(f"{where} must be a list. Received: {_short(value)}")
        for index, element in enumerate(value):
            check(element, schema[0], f"{where}[{index}]")
    elif not isinstance(value, dict):
        raise ValueError(f"{where} must be an object. Received: {_short(value)}")
    elif isinstance(schema, Named):
        for name, element in value.items():
            check(name, schema.name, f"a name in {where}")
            shown = name if name.isprintable() and len(name) <= 100 else _short(name)
            check(element, schema.value, f"{where}.{shown}")
    else:
        for name, element in schema.items():
            if name not in value:
                raise ValueError(f"{where} must have {name}. Received: {_short(value)}")
            check(value[name], element, f"{where}.{name}")


def _short(value: Any) -> str:
    text = ascii(value)  # never control characters of a terminal
    return text if len(text) <= 100 else f"{text[:97]}..."
