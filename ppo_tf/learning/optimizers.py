"""The usual optimizer and learning-rate schedule for PPO."""

from __future__ import annotations

import math

import keras


def default_optimizer(
    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 3e-4,
    max_gradient_norm: float = 0.5,
) -> keras.optimizers.Optimizer:
    """Adam with the settings of Baselines' PPO2: epsilon 1e-5 and a clipped global norm.

    Args:
        learning_rate: step size, or a schedule over gradient steps.
        max_gradient_norm: bound on the joint norm of all gradients.

    Raises:
        ValueError: if an argument is not positive.
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
    """The number of iterations of horizon * num_envs environment steps within total_steps.

    Raises:
        ValueError: if an argument is out of range, or total_steps is too small for one iteration.
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


SCHEDULES = ("constant", "linear", "cosine")


def schedule(
    name: str, value: float, **sizes: int
) -> float | keras.optimizers.schedules.LearningRateSchedule:
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


def linear_schedule(
    learning_rate: float, **sizes: int
) -> keras.optimizers.schedules.LearningRateSchedule:
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
    for name, value in (("epochs", epochs), ("minibatch_size", minibatch_size)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1. Received: {name}={value}")
    iterations = count_iterations(total_steps, horizon, num_envs)
    samples = horizon * num_envs * reuse
    gradient_steps = iterations * epochs * max(samples // minibatch_size, 1)
    return min(gradient_steps, 2**62)  # Keras converts it to an int64
