"""Calling components by keyword: each gets those that its signature names, so protocols can grow.

A component written when a protocol had five keywords still works when it has seven.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

Result = TypeVar("Result")


class Keywords(NamedTuple):
    """The keywords with which a protocol calls its components.

    Attributes:
        always: offered to every component, including those that take `**keywords`.
        on_request: passed only to components whose signature names them. New keywords go here, so
            that they do not break a wrapper that forwards `**keywords`.
    """

    always: tuple[str, ...]
    on_request: tuple[str, ...] = ()


def accepted(component: Callable[..., Any], offered: Keywords, role: str) -> tuple[str, ...]:
    """Returns the keywords to call a component with.

    Args:
        component: the callable; for a Keras layer, the signature of its method `call` counts.
        offered: the keywords of its protocol.
        role: name of the component in errors.

    Raises:
        ValueError: the component needs an argument that is not offered, or is positional-only.
    """
    signature = inspect.signature(getattr(component, "call", component))
    parameters = signature.parameters.values()
    by_keyword = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    known = {*offered.always, *offered.on_request}
    named = {p.name for p in parameters if p.kind in by_keyword} & known
    required = [p.name for p in parameters if p.default is p.empty and p.kind not in variadic]
    if unknown := [name for name in required if name not in named]:
        raise ValueError(
            f"The {role} needs {', '.join(unknown)}, but is called with the keywords "
            f"{', '.join([*offered.always, *offered.on_request])}. Received: {role}={component!r}"
        )
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        named |= set(offered.always)
    return tuple(name for name in (*offered.always, *offered.on_request) if name in named)


def taking(component: Callable[..., Result], offered: Keywords, role: str) -> Callable[..., Result]:
    """Wraps a component to be called with all keywords of its protocol; it gets those it takes.

    Its signature is inspected only once, here. See `accepted` for arguments and errors.
    """
    names = accepted(component, offered, role)

    def call(**values: Any) -> Result:
        return component(**{name: values[name] for name in names})

    return call
