"""Value losses, per sample and unreduced: the learner takes the mean.

A value loss takes values, old_values (before the update) and targets, all float [n], by keyword and
returns float [n]. Errors are in units of return.
"""

from __future__ import annotations

from dataclasses import dataclass

import tensorflow as tf

from ppo_tf.learning.schedules import Schedule, check_positive, now
from ppo_tf.types import Tensor


@dataclass(frozen=True)
class SquaredError:
    """L = (V - target)^2 (Schulman et al. 2017, L^VF)."""

    def __call__(self, *, values: Tensor, old_values: Tensor, targets: Tensor) -> Tensor:
        """All arguments float [n]; returns float [n]."""
        del old_values
        return (values - targets) ** 2


@dataclass(frozen=True)
class ClippedError:
    """L = max((V - target)^2, (V_old + clip(V - V_old, +-epsilon) - target)^2).

    The value clipping of OpenAI Baselines. Of doubtful use: Andrychowicz et al. 2021
    (arXiv 2006.05990) found that it hurts.

    Args:
        epsilon: how far a value may move per update before its gradient vanishes, in units of
            return; a number, or a Keras schedule over gradient steps.
    """

    epsilon: float | Schedule = 0.2

    def __post_init__(self) -> None:
        check_positive("epsilon", self.epsilon)

    def __call__(
        self,
        *,
        values: Tensor,
        old_values: Tensor,
        targets: Tensor,
        gradient_steps: Tensor | None = None,
    ) -> Tensor:
        """All arguments float [n], but gradient_steps; returns float [n]."""
        epsilon = now(self.epsilon, gradient_steps)
        moved = tf.clip_by_value(values - old_values, -epsilon, epsilon)
        return tf.maximum((values - targets) ** 2, (old_values + moved - targets) ** 2)


@dataclass(frozen=True)
class Huber:
    """L = e^2 where |e| <= delta, else 2 delta |e| - delta^2, with e = V - target (Huber 1964).

    Args:
        delta: error beyond which the loss grows linearly, in units of return.
    """

    delta: float = 1.0

    def __post_init__(self) -> None:
        check_positive("delta", self.delta)

    def __call__(self, *, values: Tensor, old_values: Tensor, targets: Tensor) -> Tensor:
        """All arguments float [n]; returns float [n]."""
        del old_values
        error = tf.abs(values - targets)
        return tf.where(error <= self.delta, error**2, 2.0 * self.delta * error - self.delta**2)
