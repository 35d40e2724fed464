"""The usual optimizer for PPO."""

from __future__ import annotations

import keras

from ppo_tf.learning.schedules import Schedule, check_positive


def default_optimizer(
    learning_rate: float | Schedule = 3e-4,
    max_gradient_norm: float = 0.5,
) -> keras.optimizers.Optimizer:
    """Adam with the settings of Baselines' PPO2: epsilon 1e-5 and a clipped global norm.

    Args:
        learning_rate: step size, or a schedule over gradient steps.
        max_gradient_norm: bound on the joint norm of all gradients.

    Raises:
        ValueError: if an argument is not positive.
    """
    check_positive("learning_rate", learning_rate)
    if not max_gradient_norm > 0:
        raise ValueError(
            f"max_gradient_norm must be positive. Received: max_gradient_norm={max_gradient_norm}"
        )
    return keras.optimizers.Adam(learning_rate, epsilon=1e-5, global_clipnorm=max_gradient_norm)
