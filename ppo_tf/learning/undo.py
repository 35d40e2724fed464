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


def finite_each(
    variables: Sequence[tf.Variable | keras.Variable], before: Sequence[Tensor]
) -> Tensor:
    """Returns whether each variable is free of numbers that were finite `before` and are no more.

    Returns:
        bool [number of variables].
    """

    def stayed(variable: tf.Variable | keras.Variable, value: Tensor) -> Tensor:
        if not value.dtype.is_floating:
            return tf.constant(True)
        now = tf.math.is_finite(tf.convert_to_tensor(variable))
        return tf.reduce_all(now | ~tf.math.is_finite(value))

    return tf.stack([stayed(*pair) for pair in zip(variables, before, strict=True)])


def keep_if(
    good: Tensor, variables: Sequence[tf.Variable | keras.Variable], before: Sequence[Tensor]
) -> None:
    """Restores the snapshot `before` of all variables, unless `good`, a bool scalar, is true."""
    for variable, value in zip(variables, before, strict=True):
        variable.assign(tf.where(good, tf.convert_to_tensor(variable), value))
