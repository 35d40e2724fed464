"""Names of variables by owner and path, the same in every process.

Keras numbers layers in order of creation (`dense_4` here may be `dense_7` in another process), so
the path of a variable does not identify it. Here layers that Keras named are numbered within their
owner, layers with a name given by the user keep it, and a variable of an optimizer is named after
the weight that it belongs to: `policy/dense_1/kernel`,
`optimizer/policy/dense_1/kernel/momentum`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import keras
import tensorflow as tf

Variable: TypeAlias = tf.Variable | keras.Variable


def named_variables(owners: Mapping[str, Any]) -> dict[str, Variable]:
    """Names all variables of some objects, each once: under its first owner.

    Args:
        owners: Keras models, layers and optimizers, tf.Modules and lists of variables, by name. An
            optimizer must come after the models whose weights it trains. Anything else, such as
            None or a plain function, has no variables.

    Returns:
        {name: keras.Variable or tf.Variable}.
    """
    found: dict[str, Variable] = {}
    seen: set[int] = set()
    for owner, value in owners.items():
        for name, variable in list(_names_of(value, found)):
            if id(variable) not in seen:
                seen.add(id(variable))
                found[_free(f"{owner}/{name}", found)] = variable
    return found


def _names_of(owner: Any, found: Mapping[str, Variable]) -> Iterator[tuple[str, Variable]]:
    """Yields (name within the owner, variable) for each variable."""
    if isinstance(owner, keras.optimizers.Optimizer):
        yield from _of_optimizer(owner, found)
    elif isinstance(owner, keras.Layer):  # models are layers
        yield from _of_layer(owner)
    elif isinstance(owner, tf.Module):
        yield from _of_attributes(owner, set())
    elif isinstance(owner, list | tuple):
        yield from ((str(index), variable) for index, variable in enumerate(owner))


def _of_layer(layer: keras.Layer) -> Iterator[tuple[str, Variable]]:
    """Names by path; layers that Keras named are numbered in the order of their appearance."""
    own_names = {part.name for part in layer._flatten_layers() if not _is_automatic(part)}
    renamed: dict[str, str] = {name: name for name in own_names}
    for variable in layer.variables:
        *parts, last = variable.path.split("/")
        for part in parts:
            if part not in renamed:
                renamed[part] = _free(re.sub(r"_\d+$", "", part), renamed.values())
        yield "/".join([*(renamed[part] for part in parts), last]), variable


def _is_automatic(layer: keras.Layer) -> bool:
    """Whether Keras named a layer: after its class, with a number."""
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", type(layer).__name__)
    name = re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
    return re.fullmatch(rf"{re.escape(name)}(_\d+)?", layer.name) is not None


def _of_optimizer(
    optimizer: keras.optimizers.Optimizer, found: Mapping[str, Variable]
) -> Iterator[tuple[str, Variable]]:
    """Names by weight and quantity.

    Keras names these variables `PATH_OF_WEIGHT_quantity`, with underscores for slashes in the path;
    the longest path that matches is that of the weight.
    """
    weights = {
        variable.path.replace("/", "_"): name
        for name, variable in found.items()
        if isinstance(variable, keras.Variable)
    }
    for variable in optimizer.variables:
        name = variable.path.rpartition("/")[2]
        fits = [path for path in weights if name.startswith(f"{path}_")]
        if fits:
            weight = max(fits, key=len)
            name = f"{weights[weight]}/{name.removeprefix(f'{weight}_')}"
        yield name, variable


def _of_attributes(value: Any, seen: set[int]) -> Iterator[tuple[str, Variable]]:
    """Names by the attributes that lead to a variable, through modules, layers, lists and dicts."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, keras.Layer):
        yield from _of_layer(value)
        return
    parts: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, tf.Module):
        # Attributes with this prefix are TensorFlow's own records of what a module holds.
        parts = [item for item in sorted(vars(value).items()) if not item[0].startswith("_self_")]
    elif isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, list | tuple):
        parts = enumerate(value)
    for key, part in parts:
        if isinstance(part, tf.Variable | keras.Variable):
            yield str(key), part
        else:
            yield from ((f"{key}/{name}", v) for name, v in _of_attributes(part, seen))


def _free(name: str, taken: Iterable[str]) -> str:
    """Returns the name, with the first number that makes it unique if it is taken."""
    if name not in taken:
        return name
    number = 1
    while f"{name}_{number}" in taken:
        number += 1
    return f"{name}_{number}"
