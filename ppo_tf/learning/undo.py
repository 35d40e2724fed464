"""Undoes an update as a whole, inside the compiled function that performs it.

So the weights in memory are never bad, whenever the process is stopped.
"""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from ppo_tf.types import Tensor


def snapshot(variables: Sequence[tf.Variable | keras.Variable]) -> list[Tensor]:
    """Returns copies of the variables' values."""
    return [tf.identity(variable) for variable in variables]


def all_finite(scalars: Sequence[Tensor]) -> Tensor:
    """Returns whether all scalars are finite, as a bool scalar."""
    return tf.reduce_all(tf.math.is_finite(tf.stack([tf.cast(x, tf.float32) for x in scalars])))


def finite_each(values: Sequence[Tensor], before: Sequence[Tensor]) -> Tensor:
    """Returns whether each value is free of numbers that were finite `before` and are no more.

    Returns:
        bool [number of values].
    """

    def stayed(now: Tensor, value: Tensor) -> Tensor:
        if not value.dtype.is_floating:
            return tf.constant(True)
        return tf.reduce_all(tf.math.is_finite(now) | ~tf.math.is_finite(value))

    return tf.stack([stayed(*pair) for pair in zip(values, before, strict=True)])


def keep_if(
    good: Tensor,
    variables: Sequence[tf.Variable | keras.Variable],
    values: Sequence[Tensor],
    before: Sequence[Tensor],
) -> None:
    """Gives all variables their `values` if `good`, a bool scalar, is true; otherwise `before`."""
    for variable, value, old in zip(variables, values, before, strict=True):
        variable.assign(tf.where(good, value, old))
