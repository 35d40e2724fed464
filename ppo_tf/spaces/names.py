"""The names that the leaves of composite spaces have outside Python, for every key a space allows.

A key may be anything: "c d", "x:0", "class". Keras and TensorFlow take identifiers, so a path
becomes one here, the same for the layers of a model and the signatures of an artefact.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable, Iterable

# Arguments that the signatures have anyway, and one that no function takes by keyword.
_RESERVED = re.compile(r"self|seed|state_\d+")


def layer_names(paths: Iterable[str]) -> dict[str, str]:
    """Returns a name for each path, to be used behind a prefix: "arm/0" is "arm_0".

    Args:
        paths: all paths of a space.
    """
    return _distinct(paths, _plain)


def argument_names(paths: Iterable[str]) -> dict[str, str]:
    """Returns the signatures' argument for each leaf of an observation.

    "arm/0" is arm_0. What is no identifier then, or means something else, gets a prefix: "0" is
    observation_0. Of two paths that become one name, the second gets an underscore at its end.

    Args:
        paths: all paths that the policy or its critic takes; [""] for a plain observation, which is
            observation.
    """

    def name_of(path: str) -> str:
        name = _plain(path)
        if not path:
            return "observation"
        usable = re.match("[A-Za-z]", name) and not keyword.iskeyword(name)
        return name if usable and not _RESERVED.fullmatch(name) else f"observation_{name}"

    return _distinct(paths, name_of)


def result_names(paths: Iterable[str]) -> dict[str, str]:
    """Returns the signatures' result for each leaf of an action: "arm/0" is action_arm_0.

    Args:
        paths: all paths of the action; [""] for a plain action, which is action.
    """
    return _distinct(paths, lambda path: f"action_{_plain(path)}" if path else "action")


def argument_name(path: str) -> str:
    """Returns the argument of one leaf; see `argument_names` for paths that become one name."""
    return argument_names([path])[path]


def result_name(path: str) -> str:
    """Returns the result of one leaf; see `result_names` for paths that become one name."""
    return result_names([path])[path]


def _plain(path: str) -> str:
    """The path in ASCII letters, digits and underscores."""
    return re.sub(r"[^A-Za-z0-9_]", "_", path)


def _distinct(paths: Iterable[str], name_of: Callable[[str], str]) -> dict[str, str]:
    names: dict[str, str] = {}
    taken: set[str] = set()  # in lower case: TensorFlow does not tell "A" from "a" everywhere
    for path in paths:
        name = name_of(path)
        while name.lower() in taken:
            name += "_"
        taken.add(name.lower())
        names[path] = name
    return names
