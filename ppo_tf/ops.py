"""Pure maths on tensors, shared by the components."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from ppo_tf.types import Nest, Tensor


def discounted_sum(x: Tensor, decay: Tensor) -> Tensor:
    """y_t = x_t + decay_t y_{t+1}, with y_T = 0: the reverse recurrence of returns and GAE.

    Args:
        x: float [T, B].
        decay: float [T, B], what is left of the future at step t, in [0, 1].

    Returns:
        y: float [T, B].
    """
    x.shape.assert_is_compatible_with(decay.shape)
    return tf.scan(
        lambda y, now: now[0] + now[1] * y,
        (x, decay),
        initializer=tf.zeros_like(x[0]),
        reverse=True,
    )


def merge_time(nest: Nest) -> Nest:
    """Reshapes every tensor of `nest` from [T, B, ...] to [T * B, ...]."""
    return tf.nest.map_structure(lambda x: tf.reshape(x, [-1, *x.shape[2:]]), nest)


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of x over the entries where mask is true; 0 where there is none.

    Args:
        x: float [...].
        mask: bool [...], same shape. What x holds where mask is false does not matter, NaN
            included.
    """
    x.shape.assert_is_compatible_with(mask.shape)
    count = tf.reduce_sum(tf.cast(mask, x.dtype))
    total = tf.reduce_sum(tf.where(mask, x, tf.zeros_like(x)))
    return tf.math.divide_no_nan(total, count)


def standardize(x: Tensor, mask: Tensor, epsilon: float = 1e-8) -> Tensor:
    """(x - mean) / (std + epsilon), moments over the entries where mask is true; 0 elsewhere.

    A batch whose entries are all equal, one of a single entry included, becomes zeros, not NaN.

    Args:
        x: float [...].
        mask: bool [...], same shape.
        epsilon: added to the standard deviation. 1e-8 as in Baselines' PPO2.
    """
    mean = masked_mean(x, mask)
    centered = tf.where(mask, x - mean, tf.zeros_like(x))
    return centered / (tf.sqrt(masked_mean(centered**2, mask)) + epsilon)


def explained_variance(predictions: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """1 - Var[targets - predictions] / Var[targets]: 1 is perfect, 0 no better than a constant.

    Args:
        predictions, targets: float [...].
        mask: bool [...], entries that count.

    Returns:
        float scalar; NaN where the targets do not vary and the question has no answer.
    """
    predictions.shape.assert_is_compatible_with(targets.shape)

    def variance(x):
        return masked_mean((x - masked_mean(x, mask)) ** 2, mask)

    return 1.0 - variance(targets - predictions) / variance(targets)


def merge_moments(count, mean, variance, batch, weights):
    """Moments of all samples so far from those before and a new batch (Chan et al. 1979).

    Args:
        count: float scalar, samples so far.
        mean, variance: float [...], their moments (variance with divisor n).
        batch: float [n, ...], new samples.
        weights: float [n], 1 for samples that count, 0 for those that do not.

    Returns:
        (count, mean, variance) with the new samples included.
    """
    weights = tf.reshape(weights, [-1] + [1] * (batch.shape.rank - 1))
    batch_count = tf.reduce_sum(weights)
    total = tf.maximum(count + batch_count, 1.0)
    # Samples of weight 0 may hold anything: replace, do not multiply (0 x NaN is NaN).
    batch = tf.where(weights > 0, batch, mean)
    batch_mean = tf.math.divide_no_nan(tf.reduce_sum(weights * batch, axis=0), batch_count)
    batch_variance = tf.math.divide_no_nan(
        tf.reduce_sum(weights * (batch - batch_mean) ** 2, axis=0), batch_count
    )
    shift = batch_mean - mean
    share = batch_count / total
    new_mean = mean + share * shift
    new_variance = (
        (1.0 - share) * variance + share * batch_variance + share * (1.0 - share) * shift**2
    )
    return count + batch_count, new_mean, new_variance


def shuffled(count: int, seed: Tensor) -> Tensor:
    """The indices 0..count-1 in random order, int32 [count], from a stateless seed int32 [2].

    Sorting random keys, because XLA has no kernel for `stateless_shuffle`.
    """
    keys = tf.random.stateless_uniform([count], seed, minval=None, maxval=None, dtype=tf.int32)
    return tf.argsort(keys)


def derive_words(count: int, seed: int, *path: int | str) -> np.ndarray:
    """Random words for one purpose, independent of those for all others.

    Args:
        count: how many.
        seed: the run's seed.
        path: what they are for, for instance `("acting", iteration)`.

    Returns:
        int32 [count], none of them negative: from a seed with a negative word, TensorFlow's
        stateless random functions draw other numbers under XLA than without.
    """
    words = [seed]
    for part in path:
        words += list(part.encode()) if isinstance(part, str) else [part]
    return (np.random.SeedSequence(words).generate_state(count) >> 1).astype(np.int32)


def derive_seed(seed: int, *path: int | str) -> np.ndarray:
    """`derive_words` for TensorFlow's and TFP's stateless random functions, int32 [2]."""
    return derive_words(2, seed, *path)
