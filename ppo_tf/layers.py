"""Keras layers of reinforcement learning: running statistics and the state-independent scale."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from ppo_tf import ops
from ppo_tf.types import Tensor

_learning: list[tuple[Tensor, set[int]]] = []  # innermost scope of `learn_statistics` last


@contextlib.contextmanager
def learn_statistics(weights: Tensor) -> Iterator[None]:
    """Inside, a forward pass of any model moves the statistics of its `RunningNormalization`
    layers.

    A layer learns at most once per scope, however many models share it. Outside, statistics are
    frozen:
    this is what keeps them the same from acting to the end of an update.

    Args:
        weights: float [n], 1 for the rows of the batch that count, 0 for those that do not.
    """
    _learning.append((weights, set()))
    try:
        yield
    finally:
        _learning.pop()


@keras.saving.register_keras_serializable("ppo_tf")
class RunningNormalization(keras.layers.Layer):
    """(x - mean) / std with the moments of everything seen so far, clipped to +-clip.

    The statistics are weights: they are saved, exported and checkpointed with the model. They move
    in a forward pass inside `learn_statistics`, which the learner makes once per update, and are
    otherwise frozen. Before the first move the layer only clips.

    Args:
        clip: bound of the normalised values. 10 as in Baselines' VecNormalize.
        epsilon: added to the variance. 1e-8, likewise.
    """

    def __init__(self, clip: float = 10.0, epsilon: float = 1e-8, **kwargs: Any):
        super().__init__(**kwargs)
        self.clip = clip
        self.epsilon = epsilon

    def build(self, input_shape):
        """Creates the statistics, one mean and variance per element of an input."""
        options = {"trainable": False, "autocast": False, "dtype": "float32"}
        shape = input_shape[1:]
        self.mean = self.add_weight(name="mean", shape=shape, initializer="zeros", **options)
        self.variance = self.add_weight(name="variance", shape=shape, initializer="ones", **options)
        self.count = self.add_weight(name="count", shape=(), initializer="zeros", **options)

    def call(self, inputs):
        """Normalises inputs float [B, ...]; returns the same shape."""
        if _learning and id(self) not in _learning[-1][1]:
            weights, seen = _learning[-1]
            seen.add(id(self))
            moments = ops.merge_moments(
                self.count.value,
                self.mean.value,
                self.variance.value,
                tf.cast(inputs, tf.float32),
                tf.cast(weights, tf.float32),
            )
            for weight, value in zip((self.count, self.mean, self.variance), moments, strict=True):
                weight.assign(value)
        normalized = (inputs - self.mean) * keras.ops.rsqrt(self.variance + self.epsilon)
        return keras.ops.clip(normalized, -self.clip, self.clip)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "clip": self.clip, "epsilon": self.epsilon}


@keras.saving.register_keras_serializable("ppo_tf")
class StateIndependentScale(keras.layers.Layer):
    """exp(log_scale), one learned number per action element, the same in every state.

    Args:
        initial: first value of every scale, positive, in raw action units.
    """

    def __init__(self, initial: float = 1.0, **kwargs: Any):
        super().__init__(**kwargs)
        if not initial > 0:
            raise ValueError(f"initial must be positive. Received: initial={initial}")
        self.initial = initial

    def build(self, input_shape):
        """Creates the log-scales."""
        initializer = keras.initializers.Constant(math.log(self.initial))
        self.log_scale = self.add_weight(
            name="log_scale", shape=(input_shape[-1],), initializer=initializer
        )

    def call(self, loc):
        """Returns the scales, float [B, n], for the locations loc [B, n]."""
        return keras.ops.broadcast_to(keras.ops.exp(self.log_scale), keras.ops.shape(loc))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "initial": self.initial}


@keras.saving.register_keras_serializable("ppo_tf")
class RewardScaling(keras.layers.Layer):
    """r / std(R), clipped, where R_t = gamma R_{t-1} + r_t runs along each environment's episode.

    Keeps returns near unit size whatever the environment's units ("The 37 implementation details of
    PPO", ICLR blog 2022). Only the scale moves: the sign of a reward never changes.

    Args:
        gamma: discount per step; the estimator's.
        clip: bound of the scaled rewards. 10 as in Baselines' VecNormalize.
        epsilon: added to the variance. 1e-8, likewise.
    """

    def __init__(
        self, gamma: float = 0.99, clip: float = 10.0, epsilon: float = 1e-8, **kwargs: Any
    ):
        super().__init__(**kwargs)
        self.gamma = gamma
        self.clip = clip
        self.epsilon = epsilon

    def build(self, input_shape):
        """Creates the statistics and one running return per environment, for rewards [T, B]."""
        options = {"trainable": False, "initializer": "zeros", "autocast": False}
        self.running = self.add_weight(name="running", shape=(input_shape[1],), **options)
        self.count = self.add_weight(name="count", shape=(), **options)
        self.mean = self.add_weight(name="mean", shape=(), **options)
        self.variance = self.add_weight(name="variance", shape=(), **options)

    def call(self, rewards, done, valid):
        """Moves the statistics by these rewards, then scales them.

        Args:
            rewards: float [T, B].
            done: bool [T, B], the episode ended here, either way.
            valid: bool [T, B], rows that count.

        Returns:
            float [T, B].
        """
        rewards = tf.where(valid, rewards, tf.zeros_like(rewards))

        def step(carry, now):
            _, alive = carry
            reward, is_done, is_valid = now
            running = tf.where(is_valid, self.gamma * alive + reward, alive)
            return running, tf.where(is_done, tf.zeros_like(running), running)

        start = self.running.value
        returns, left = tf.scan(step, (rewards, done, valid), initializer=(start, start))
        self.running.assign(left[-1])
        count, mean, variance = ops.merge_moments(
            self.count.value,
            self.mean.value,
            self.variance.value,
            ops.merge_time(returns),
            ops.merge_time(tf.cast(valid, tf.float32)),
        )
        self.count.assign(count)
        self.mean.assign(mean)
        self.variance.assign(variance)
        return tf.clip_by_value(
            rewards * tf.math.rsqrt(variance + self.epsilon), -self.clip, self.clip
        )

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        config = {"gamma": self.gamma, "clip": self.clip, "epsilon": self.epsilon}
        return {**super().get_config(), **config}
