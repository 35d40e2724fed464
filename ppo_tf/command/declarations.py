"""What is known of one setting: its type, default, choices, bounds and help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
_LISTS = {int: "whole numbers, such as 64,64", str: "names, comma-separated"}
_BOOLEANS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}


def as_text(value: Any) -> str:
    """A value as flags take it and documents show it: "none" for None and what is empty."""
    if isinstance(value, list | tuple):
        value = ",".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    return "none" if value in (None, "") else str(value)


class Choice(NamedTuple):
    """One of the values of a setting that is chosen by name.

    Attributes:
        name: the value.
        text: what it is, one line.
        component: public name in Python of what it stands for; "" where there is none.
    """

    name: str
    text: str
    component: str = ""


@dataclass(frozen=True)
class Declaration:
    """One setting: everything that flags, presets, files and documents need to know of it.

    Attributes:
        name: the setting's name, that of its flag without the dashes.
        type: type of the value, or of its elements where it is a tuple.
        default: value where neither the user nor a preset says otherwise.
        help: what it is, one line, with its unit.
        choices: values that it may have; empty: any of the type.
        least, above: lower bound; a value may equal `least`, not `above`.
        most: upper bound, beside `least`.
        optional: whether it may be None.
        may_change: whether it may be another when a run goes on.
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
    may_change: bool = False

    @property
    def is_tuple(self) -> bool:
        """Whether the value is a tuple, a list in JSON and comma-separated in a flag."""
        return isinstance(self.default, tuple)

    @property
    def rule(self) -> str:
        """What a value must be, in words: "a number from 0 to 1"."""
        words = (_LISTS if self.is_tuple else _WORDS)[self.type]
        if self.choices:
            words = f"one of {', '.join(choice.name for choice in self.choices)}"
        if self.is_tuple and self.least is not None:
            words += ", each"
        if self.most is not None:
            words += f" from {self.least} to {self.most}"
        elif self.least is not None:
            words += f" of at least {self.least}"
        elif self.above is not None:
            words += f" above {self.above}"
        return f"{words}, or none" if self.optional else words

    def check(self, value: Any) -> Any:
        """Returns the value as the setting has it: a list as a tuple, 1 as 1.0 where floats go.

        Raises:
            ValueError: a value of another type, not among the choices, or out of bounds.
        """
        if value is None and self.optional:
            return None
        if not self.is_tuple:
            return self._check_element(value, value)
        if not isinstance(value, list | tuple):
            raise self._error(value)
        return tuple(self._check_element(element, value) for element in value)

    def parse(self, text: str) -> Any:
        """The value of a text, as `as_text` makes it: "none" is None, or an empty tuple.

        Raises:
            ValueError: as `check`.
        """
        text = text.strip()
        if self.is_tuple:
            words = [] if text in ("", "none") else text.split(",")
            return self.check(tuple(self._parse_element(word.strip(), text) for word in words))
        if text == "none" and self.optional:
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
        if self.type is float and type(element) is int:
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
        return (
            (self.least is None or element >= self.least)
            and (self.above is None or element > self.above)
            and (self.most is None or element <= self.most)
        )

    def _error(self, received: Any) -> ValueError:
        return ValueError(f"{self.name} must be {self.rule}. Received: {self.name}={received!r}")
