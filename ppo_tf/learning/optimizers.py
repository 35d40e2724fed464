"""The optimiser and schedule that PPO is usually run with."""

from __future__ import annotations

import math

import keras


def default_optimizer(
    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 3e-4,
    max_gradient_norm: float = 0.5,
) -> keras.optimizers.Optimizer:
    """Adam as Baselines' PPO2 sets it: epsilon 1e-5 (Keras' default is 1e-7), global norm clipped.

    Args:
        learning_rate: or a schedule, which counts gradient steps.
        max_gradient_norm: bound of the joint norm of all gradients.

    Raises:
        ValueError: an argument that is not positive.
    """
    if isinstance(learning_rate, int | float) and not 0 < learning_rate < math.inf:
        raise ValueError(
            f"learning_rate must be positive and finite. Received: learning_rate={learning_rate}"
        )
    if not max_gradient_norm > 0:
        raise ValueError(
            f"max_gradient_norm must be positive. Received: max_gradient_norm={max_gradient_norm}"
        )
    return keras.optimizers.Adam(learning_rate, epsilon=1e-5, global_clipnorm=max_gradient_norm)


def count_iterations(total_steps: int, horizon: int, num_envs: int) -> int:
    """Iterations of horizon * num_envs environment steps that fit into total_steps.

    Raises:
        ValueError: an argument out of range; not even one fits.
    """
    for name, value in (("horizon", horizon), ("num_envs", num_envs)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1. Received: {name}={value}")
    if total_steps < horizon * num_envs:
        raise ValueError(
            "total_steps must be at least horizon * num_envs. Received: "
            f"total_steps={total_steps}, horizon * num_envs={horizon * num_envs}"
        )
    return total_steps // (horizon * num_envs)


def linear_schedule(
    learning_rate: float,
    *,
    total_steps: int,
    horizon: int,
    num_envs: int,
    epochs: int,
    minibatch_size: int,
) -> keras.optimizers.schedules.LearningRateSchedule:
    """A learning rate that falls in a straight line to 0 at the last gradient step of `fit`.

    Args:
        learning_rate: at the start.
        total_steps, horizon, num_envs: as `fit` gets them, in environment steps.
        epochs, minibatch_size: as the learner has them.

    Returns:
        A Keras schedule, which counts gradient steps.

    Raises:
        ValueError: an argument out of range.
    """
    for name, value in (("epochs", epochs), ("minibatch_size", minibatch_size)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1. Received: {name}={value}")
    if not learning_rate > 0:
        raise ValueError(f"learning_rate must be positive. Received: learning_rate={learning_rate}")
    iterations = count_iterations(total_steps, horizon, num_envs)
    gradient_steps = iterations * epochs * max(horizon * num_envs // minibatch_size, 1)
    return keras.optimizers.schedules.PolynomialDecay(learning_rate, gradient_steps, 0.0)
