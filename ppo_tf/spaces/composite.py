"""Composite Gymnasium spaces as one-level dicts: the form in which nests flow through ppo_tf.

A `Dict` or `Tuple`, nested to any depth, becomes {path: leaf}, its keys joined by "/":
Dict(camera=Box, arm=Tuple(Box, Discrete)) has the paths "arm/0", "arm/1" and "camera". Any other
space is its own single leaf and stays unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np

from ppo_tf.types import Nest

Leaves = gymnasium.Space[Any] | dict[str, gymnasium.Space[Any]]


def is_composite(space: gymnasium.Space[Any]) -> bool:
    """Whether a space is a Dict or Tuple; any other space is plain, its own single leaf."""
    return isinstance(space, gymnasium.spaces.Dict | gymnasium.spaces.Tuple)


def children(space: gymnasium.Space[Any]) -> list[tuple[Any, gymnasium.Space[Any]]]:
    """Returns (key or index, part) for each part of a Dict or Tuple; none for a plain space."""
    if isinstance(space, gymnasium.spaces.Dict):
        return list(space.spaces.items())
    return list(enumerate(space.spaces)) if isinstance(space, gymnasium.spaces.Tuple) else []


def leaves(space: gymnasium.Space[Any]) -> Leaves:
    """Returns the leaf spaces of a Dict or Tuple by path, and any other space itself.

    Raises:
        ValueError: two leaves share a path, as the key "a/b" does with "b" under "a", or a leaf has
            none, because its key is empty.
    """
    if not is_composite(space):
        return space
    found: dict[str, gymnasium.Space[Any]] = {}
    for path, _, leaf in _walk(space):
        if path in found:
            raise ValueError(f"Two leaves of the space have the path {path!r}. Received: {space}")
        if not path:
            raise ValueError(f"The keys of a Dict must not be empty. Received: {space}")
        found[path] = leaf
    return found


def observed_dtype(dtype: Any) -> np.dtype[Any]:
    """Returns the dtype in which observations of a space's dtype reach the policy, acting and
    learning: float32, in which models compute, for all floats; others stay as they are."""
    return np.dtype(np.float32 if np.issubdtype(dtype, np.floating) else dtype)


def paths(space: gymnasium.Space[Any]) -> list[str]:
    """Returns the paths of the leaves of a Dict or Tuple; none for a plain space."""
    found = leaves(space)
    return list(found) if isinstance(found, dict) else []


def flatten(space: gymnasium.Space[Any], value: Any) -> Any | dict[str, Any]:
    """Flattens a value, or a batch of values, to {path: leaf value}; a plain one is unchanged.

    Args:
        space: space of a single value.
        value: nested like the space.
    """
    if not is_composite(space):
        return value
    return {path: _get(value, keys) for path, keys, _ in _walk(space)}


def unflatten(space: gymnasium.Space[Any], flat: Nest) -> Any:
    """Undoes `flatten`: nests the leaf values as the environment expects them."""
    if not is_composite(space):
        return flat

    def build(space: gymnasium.Space[Any], prefix: str) -> Any:
        if not is_composite(space):
            return flat[prefix]
        parts = {key: build(part, _join(prefix, key)) for key, part in children(space)}
        return parts if isinstance(space, gymnasium.spaces.Dict) else tuple(parts.values())

    return build(space, "")


def map_leaves(function: Callable[..., Any], *nests: Any) -> Any | dict[str, Any]:
    """Calls a function with the leaves of each path, or with the plain values as they are.

    Args:
        function: of as many arguments as there are nests.
        nests: all plain, or all {path: leaf} with the same paths.

    Returns:
        What the function returns, nested likewise.
    """
    first = nests[0]
    if not isinstance(first, dict):
        return function(*nests)
    return {path: function(*(nest[path] for nest in nests)) for path in first}


def _join(prefix: str, key: Any) -> str:
    return f"{prefix}/{key}" if prefix else str(key)


def _walk(
    space: gymnasium.Space[Any], prefix: str = "", keys: tuple[Any, ...] = ()
) -> Iterator[tuple[str, tuple[Any, ...], gymnasium.Space[Any]]]:
    """Yields (path, keys, leaf) for every leaf."""
    for key, part in children(space):
        path, inner = _join(prefix, key), (*keys, key)
        if is_composite(part):
            yield from _walk(part, path, inner)
        else:
            yield path, inner, part


def _get(value: Any, keys: tuple[Any, ...]) -> Any:
    for key in keys:
        value = value[key]
    return value
