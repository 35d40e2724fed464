"""Calling components by keyword: each gets what its signature names, so that protocols can grow.

A component written when a protocol had five keywords goes on working when it has seven.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

Result = TypeVar("Result")


class Keywords(NamedTuple):
    """What a protocol calls its components with.

    Attributes:
        always: what every component is offered, also one with `**keywords`.
        on_request: what only a component gets whose signature names it. New keywords come here:
            a wrapper that passes on `**keywords` does not break by them.
    """

    always: tuple[str, ...]
    on_request: tuple[str, ...] = ()


def accepted(component: Callable[..., Any], offered: Keywords, role: str) -> tuple[str, ...]:
    """The keywords that a component is to be called with.

    Args:
        component: what will be called. A Keras layer says what it takes in its method `call`.
        offered: what its protocol has.
        role: what errors call the component.

    Raises:
        ValueError: it needs an argument that is not offered, or one by position only.
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
            f"The {role} needs {', '.join(unknown)}, but is called with keywords among "
            f"{', '.join([*offered.always, *offered.on_request])}. Received: {role}={component!r}"
        )
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        named |= set(offered.always)
    return tuple(name for name in (*offered.always, *offered.on_request) if name in named)


def taking(component: Callable[..., Result], offered: Keywords, role: str) -> Callable[..., Result]:
    """A component as a function of all keywords of its protocol, of which it gets those it takes.

    The signature is looked at now, once. See `accepted` for arguments and errors.
    """
    names = accepted(component, offered, role)

    def call(**values: Any) -> Result:
        return component(**{name: values[name] for name in names})

    return call
