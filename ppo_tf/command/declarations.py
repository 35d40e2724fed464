"""The declaration of a setting: its type, default, choices, bounds and help."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

_WORDS = {bool: "true or false", int: "an integer", float: "a number", str: "a name"}
_LISTS = {int: "integers, such as 64,64", str: "comma-separated names"}
# Beyond these, integers are not exact in float64, and squares not finite in float32.
_LARGEST = {int: 2**53, float: 1e9}
# Below it, a positive number is 0 in float32, or its reciprocal is infinite.
_SMALLEST = 1e-37
_MOST_ELEMENTS = 100
_BOOLEANS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}


def as_text(value: Any) -> str:
    """Formats a value as flags accept and documents show it; None and empty values are "none"."""
    if isinstance(value, list | tuple):
        value = ",".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value in (None, "") else str(value)


class Choice(NamedTuple):
    """A value of a setting that selects something by name.

    Attributes:
        name: the value.
        text: one-line description.
        component: public Python name of the component it selects; "" if there is none.
    """

    name: str
    text: str
    component: str = ""


@dataclass(frozen=True)
class Declaration:
    """One setting: everything that flags, presets, files and documents need to know about it.

    Attributes:
        name: name of the setting; its flag has the same name with dashes in front.
        type: type of the value, or of its elements if it is a tuple.
        default: value if neither the user nor a preset sets one.
        help: one-line description, with the unit.
        choices: allowed values; if empty, any value of the type.
        least, above: lower bound; a value may equal `least`, but not `above`.
        most: upper bound; a value may equal it. None: that of the type, 2^53 or 1e9.
        optional: whether None is allowed.
        automatic: whether None means that ppo_tf chooses; flags may say "auto" for it.
        may_change: whether the value may change when a run is resumed.
        only_with: values of other settings, one of which it needs to have an effect.
        unless: values of other settings with which it has no effect.
        only_for: what the environment needs for it to have an effect, one of `effects.TRAITS`.
    """

    name: str
    type: type
    default: Any
    help: str
    choices: tuple[Choice, ...] = ()
    least: float | None = None
    above: float | None = None
    most: float | None = None
    optional: bool = False
    automatic: bool = False
    may_change: bool = False
    only_with: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unless: Mapping[str, Any] = field(default_factory=dict)
    only_for: str = ""

    @property
    def is_tuple(self) -> bool:
        """Whether the value is a tuple: a list in JSON, comma-separated in a flag."""
        return isinstance(self.default, tuple)

    @property
    def full_help(self) -> str:
        """The help, and when the setting has an effect, such as "Only with cell=lstm or gru."."""
        needs = [self.needed] if self.only_with else []
        needs += [self.only_for] if self.only_for else []
        parts = [f"Only with {', and '.join(needs)}."] if needs else []
        parts += [f"Not with {name}={as_text(value)}." for name, value in self.unless.items()]
        return " ".join([self.help, *parts])

    @property
    def needed(self) -> str:
        """What `only_with` asks for, such as "loss=clip or value_loss=clipped"."""
        return " or ".join(f"{n}={_listed(values)}" for n, values in self.only_with.items())

    @property
    def rule(self) -> str:
        """Describes the valid values, such as "a number from 0 to 1"."""
        words = (_LISTS if self.is_tuple else _WORDS)[self.type]
        if self.choices:
            words = f"one of {', '.join(choice.name for choice in self.choices)}"
        if self.is_tuple and self.least is not None:
            words += ", each"
        if self.most is not None and self.above is not None:
            words += f" above {self.above}, at most {self.most}"
        elif self.most is not None:
            words += f" from {self.least} to {self.most}"
        elif self.least is not None:
            words += f" of at least {self.least}"
        elif self.above is not None:
            words += f" above {self.above}"
        return f"{words}, or {'auto' if self.automatic else 'none'}" if self.optional else words

    def check(self, value: Any) -> Any:
        """Returns the value in the setting's type: a list as a tuple, an int as a float if needed.

        Raises:
            ValueError: the value has another type, is not among the choices, or is out of bounds.
        """
        if value is None and self.optional:
            return None
        if not self.is_tuple:
            return self._check_element(value, value)
        if not isinstance(value, list | tuple) or len(value) > _MOST_ELEMENTS:
            raise self._error(value)
        return tuple(self._check_element(element, value) for element in value)

    def parse(self, text: str) -> Any:
        """Parses a value in the format of `as_text`: "none" is None, or an empty tuple.

        Raises:
            ValueError: see `check`.
        """
        text = text.strip()
        if self.is_tuple:
            words = [] if text in ("", "none") else text.split(",")
            return self.check(tuple(self._parse_element(word.strip(), text) for word in words))
        if (text == "none" and self.optional) or (text == "auto" and self.automatic):
            return None
        return self.check(self._parse_element(text, text))

    def _parse_element(self, word: str, received: str) -> Any:
        if self.type is bool:
            if word.lower() not in _BOOLEANS:
                raise self._error(received)
            return _BOOLEANS[word.lower()]
        try:
            return self.type(word)
        except ValueError:
            raise self._error(received) from None

    def _check_element(self, element: Any, received: Any) -> Any:
        if self.type is float and type(element) is int and abs(element) < _LARGEST[int]:
            element = float(element)
        if not self._allows(element):
            raise self._error(received)
        return element

    def _allows(self, element: Any) -> bool:
        fits = isinstance(element, self.type)
        if not fits or isinstance(element, bool) != (self.type is bool):  # True is an int
            return False
        if self.choices and element not in [choice.name for choice in self.choices]:
            return False
        if self.type is str:
            return bool(element) and _is_unicode(element)
        if self.type is float and 0 < abs(element) < _SMALLEST:
            return False
        return (
            (self.least is None or element >= self.least)
            and (self.above is None or element > self.above)
            and (self._most is None or element <= self._most)
        )

    @property
    def _most(self) -> float | None:
        return _LARGEST.get(self.type) if self.most is None else self.most

    def _error(self, received: Any) -> ValueError:
        limit = ""
        too_large = isinstance(received, int | float) and received > (self._most or math.inf)
        if too_large and self.most is None:
            limit = f", at most {self._most:g}"
        text = f"{self.name}={received!r}"
        text = text if len(text) <= 200 else f"{text[:197]}..."
        return ValueError(f"{self.name} must be {self.rule}{limit}. Received: {text}")


def _listed(names: tuple[str, ...]) -> str:
    """Names as in a sentence: "a", "a or b", "a, b or c"."""
    return " or ".join([", ".join(names[:-1]), names[-1]] if names[1:] else names)


def _is_unicode(text: str) -> bool:
    """Whether text can be written to a file: bytes of an argument that are no text can't."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
