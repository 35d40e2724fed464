"""Numbers that change over a run, as Keras schedules over gradient steps."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import keras

from ppo_tf.types import Tensor

Schedule: TypeAlias = keras.optimizers.schedules.LearningRateSchedule


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
