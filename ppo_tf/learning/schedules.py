"""Numbers that change over a run, as Keras schedules over gradient steps."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import keras

from ppo_tf.support.checks import check_at_least_one
from ppo_tf.types import Tensor

Schedule: TypeAlias = keras.optimizers.schedules.LearningRateSchedule

SCHEDULES = ("constant", "linear", "cosine")


def is_schedule(value: Any) -> bool:
    """Whether a number changes over the run."""
    return isinstance(value, keras.optimizers.schedules.LearningRateSchedule)


def now(value: float | Schedule, gradient_steps: Tensor | None) -> Any:
    """Returns a value after a number of gradient steps, an integer scalar.

    Raises:
        ValueError: it is a schedule, but nobody counts.
    """
    if not is_schedule(value):
        return value
    if gradient_steps is None:
        raise ValueError(f"A schedule needs gradient_steps. Received: {value}, gradient_steps=None")
    return value(gradient_steps)  # type: ignore[operator]


def check_positive(
    name: str, value: float | Schedule | None, *, zero_allowed: bool = False
) -> None:
    """Raises ValueError if a number is not positive and finite; of a schedule nothing is known."""
    if value is None or is_schedule(value):
        return
    good = value >= 0 if zero_allowed else value > 0
    if not (good and math.isfinite(value)):
        bound = "at least 0" if zero_allowed else "positive"
        raise ValueError(f"{name} must be {bound} and finite. Received: {name}={value}")


def schedule(name: str, value: float, **sizes: int) -> float | Schedule:
    """A number that stays constant, or falls to 0 at the last gradient step of `fit`.

    Args:
        name: "constant", "linear" or "cosine" (Loshchilov and Hutter 2017, without restarts).
        value: initial value.
        sizes: arguments of `count_gradient_steps`.

    Returns:
        The value itself, or a Keras schedule over gradient steps.

    Raises:
        ValueError: if an argument is out of range.
    """
    if name not in SCHEDULES:
        raise ValueError(f"name must be one of {', '.join(SCHEDULES)}. Received: name={name!r}")
    if name == "constant" or value == 0:
        return value
    steps = count_gradient_steps(**sizes)
    if name == "cosine":
        return keras.optimizers.schedules.CosineDecay(value, steps)
    return keras.optimizers.schedules.PolynomialDecay(value, steps, 0.0)


def linear_schedule(learning_rate: float, **sizes: int) -> Schedule:
    """A learning rate that falls linearly to 0 at the last gradient step of `fit`.

    Args:
        learning_rate: initial step size.
        sizes: arguments of `count_gradient_steps`.

    Returns:
        A Keras schedule over gradient steps.

    Raises:
        ValueError: if an argument is out of range.
    """
    if not learning_rate > 0:
        raise ValueError(f"learning_rate must be positive. Received: learning_rate={learning_rate}")
    return schedule("linear", learning_rate, **sizes)


def count_gradient_steps(
    *,
    total_steps: int,
    horizon: int,
    num_envs: int,
    epochs: int,
    minibatch_size: int,
    reuse: int = 1,
) -> int:
    """The number of gradient steps that `fit` takes.

    Args:
        total_steps, horizon: as passed to `fit`, in environment steps.
        num_envs: number of environments.
        epochs, minibatch_size, reuse: as passed to the learner.

    Raises:
        ValueError: if an argument is out of range.
    """
    check_at_least_one(epochs=epochs, minibatch_size=minibatch_size)
    iterations = count_iterations(total_steps, horizon, num_envs)
    samples = horizon * num_envs * reuse
    gradient_steps = iterations * epochs * max(samples // minibatch_size, 1)
    return min(gradient_steps, 2**62)  # Keras converts it to an int64


def count_iterations(total_steps: int, horizon: int, num_envs: int) -> int:
    """The number of iterations of horizon * num_envs environment steps within total_steps.

    Raises:
        ValueError: if an argument is out of range, or total_steps is too small for one iteration.
    """
    check_at_least_one(horizon=horizon, num_envs=num_envs)
    if total_steps < horizon * num_envs:
        raise ValueError(
            "total_steps must be at least horizon * num_envs. Received: "
            f"total_steps={total_steps}, horizon * num_envs={horizon * num_envs}"
        )
    return total_steps // (horizon * num_envs)
