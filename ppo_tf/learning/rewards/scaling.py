"""`RewardScaling`: rewards in units of the standard deviation of returns."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from ppo_tf import ops
from ppo_tf.types import Tensor


@keras.saving.register_keras_serializable("ppo_tf")
class RewardScaling(keras.layers.Layer):
    """r / std(R), clipped, where R_t = gamma R_{t-1} + r_t runs along the episode.

    Keeps returns near unit size whatever the environment's units ("The 37 implementation details of
    PPO", ICLR blog 2022). Rewards are scaled, never shifted, so their signs do not change. Outliers
    are bounded before the statistics learn from them, see `ops.without_outliers`.

    Args:
        gamma: discount per step, the same as the estimator's.
        clip: bound on the scaled rewards. 10, as in Baselines' VecNormalize.
        epsilon: added to the variance. 1e-8, as in Baselines.
    """

    def __init__(
        self, gamma: float = 0.99, clip: float = 10.0, epsilon: float = 1e-8, **kwargs: Any
    ):
        super().__init__(**kwargs)
        self.autocast = False  # bfloat16 would lose digits of rewards and returns
        self.gamma = gamma
        self.clip = clip
        self.epsilon = epsilon

    def build(self, input_shape: tuple[int | None, int]) -> None:
        """Creates the statistics and a running return per environment, for rewards [T, B]."""
        options = {"trainable": False, "initializer": "zeros", "autocast": False}
        self.running = self.add_weight(name="running", shape=(input_shape[1],), **options)
        self.count = self.add_weight(name="count", shape=(), **options)
        self.mean = self.add_weight(name="mean", shape=(), **options)
        self.variance = self.add_weight(name="variance", shape=(), **options)

    def begin_episodes(self) -> None:
        """Resets the running returns, as new episodes start in all environments."""
        self.running.assign(tf.zeros_like(self.running))

    def call(self, rewards: Tensor, terminated: Tensor, truncated: Tensor, valid: Tensor) -> Tensor:
        """Updates the statistics with these rewards, then scales them.

        Args:
            rewards: float [T, B].
            terminated, truncated: bool [T, B], whether and how the episode ended.
            valid: bool [T, B], the rows that count.

        Returns:
            float [T, B].
        """
        rewards = tf.where(valid, rewards, tf.zeros_like(rewards))
        done = terminated | truncated

        def step(carry: tuple[Tensor, Tensor], now: Any) -> tuple[Tensor, Tensor]:
            _, alive = carry
            reward, is_done, is_valid = now
            running = tf.where(is_valid, self.gamma * alive + reward, alive)
            return running, tf.where(is_done, tf.zeros_like(running), running)

        start = self.running.value
        known = (self.count.value, self.mean.value, self.variance.value)
        weights = ops.merge_time(tf.cast(valid, tf.float32))
        # Around 0 like the rewards, whatever the mean of the returns.
        around = (known[0], tf.zeros_like(known[1]), known[2])
        bounded = ops.without_outliers(*around, ops.merge_time(rewards), weights)
        bounded = tf.reshape(bounded, tf.shape(rewards))
        returns, left = tf.scan(step, (bounded, done, valid), initializer=(start, start))
        self.running.assign(left[-1])
        returns = ops.without_outliers(*known, ops.merge_time(returns), weights)
        count, mean, variance = ops.merge_moments(*known, returns, weights)
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
