"""Pure maths on tensors, shared by the components."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from ppo_tf.types import Structure, Tensor

# e^20 = 5e8 is far outside any trust region and still has finite squares: a ratio of probabilities
# that overflows would turn the gradient of a whole minibatch into NaN (0 x infinity).
MAX_LOG_RATIO = 20.0

# The logit of a category that must not be chosen: e^-1e9 is exactly 0, yet entropy, KL and
# gradients stay finite, which they would not with an infinity.
MASKED_LOGIT = -1e9

# Beyond a thousand standard deviations, and beyond 1e15, a sample is bounded before running moments
# learn from it. Ordinary data never get there; 2e19 alone would make a variance infinite for good.
MAX_DEVIATION = 1e3
MAX_SAMPLE = 1e15


def discounted_sum(x: Tensor, decay: Tensor) -> Tensor:
    """y_t = x_t + decay_t y_{t+1}, with y_T = 0: the reverse recurrence of returns and GAE.

    Args:
        x: float [T, B].
        decay: float [T, B], the factor on the future at step t, in [0, 1].

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


def merge_time(nest: Structure) -> Structure:
    """Reshapes every tensor of `nest` from [T, B, ...] to [T * B, ...]."""
    return tf.nest.map_structure(lambda x: tf.reshape(x, [-1, *x.shape[2:]]), nest)


def split_time(nest: Structure, steps: int) -> Structure:
    """Undoes `merge_time`: reshapes every tensor from [steps * B, ...] to [steps, B, ...]."""
    return tf.nest.map_structure(lambda x: tf.reshape(x, [steps, -1, *x.shape[1:]]), nest)


def to_sequences(nest: Structure, length: int) -> Structure:
    """Cuts [T, B, ...] into sequences of `length` steps, time-major: [length, T / length * B, ...].

    Sequence k * B + b holds the steps k * length to (k + 1) * length - 1 of environment b.
    """

    def cut(x: Tensor) -> Tensor:
        parts = tf.reshape(x, [x.shape[0] // length, length, *x.shape[1:]])
        parts = tf.transpose(parts, [1, 0, *range(2, len(parts.shape))])
        return tf.reshape(parts, [length, -1, *x.shape[2:]])

    return tf.nest.map_structure(cut, nest)


def emptied(starts: Tensor, state: Sequence[Tensor]) -> list[Tensor]:
    """Returns a memory's state, set to zero where an episode starts.

    Args:
        starts: bool [B].
        state: float [B, units] each.
    """
    return [tf.where(starts[:, None], tf.zeros_like(s), s) for s in state]


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of x over the entries where mask is true; 0 if there are none.

    Args:
        x: float [...].
        mask: bool [...], same shape. Entries of x where mask is false are ignored, even NaN.
    """
    x.shape.assert_is_compatible_with(mask.shape)
    count = tf.reduce_sum(tf.cast(mask, x.dtype))
    total = tf.reduce_sum(tf.where(mask, x, tf.zeros_like(x)))
    return tf.math.divide_no_nan(total, count)


def masked_moments(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (divisor n) of x over the entries where mask is true; 0 if there are none.

    If all entries are equal, the variance is exactly 0: the sums are over differences from one of
    them, because their mean is rounded and may differ from all of them.

    Args:
        x: float [...].
        mask: bool [...], same shape.
    """
    reference = tf.reduce_max(tf.where(mask, x, tf.fill(tf.shape(x), x.dtype.min)))
    difference = tf.where(mask, x - reference, tf.zeros_like(x))
    shift = masked_mean(difference, mask)
    variance = masked_mean((difference - shift) ** 2, mask)
    return tf.where(tf.reduce_any(mask), reference + shift, tf.zeros_like(shift)), variance


def standardize(x: Tensor, mask: Tensor, epsilon: float = 1e-8) -> Tensor:
    """(x - mean) / (std + epsilon), moments over the entries where mask is true; 0 elsewhere.

    If all entries are equal, or there is only one, the result is zeros, not NaN.

    Args:
        x: float [...].
        mask: bool [...], same shape.
        epsilon: added to the standard deviation; 1e-8 as in Baselines' PPO2.
    """
    mean, variance = masked_moments(x, mask)
    vary = mask & (variance > 0)
    return tf.where(vary, x - mean, tf.zeros_like(x)) / (tf.sqrt(variance) + epsilon)


def explained_variance(predictions: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """1 - Var[targets - predictions] / Var[targets]: 1 is perfect, 0 no better than a constant.

    Args:
        predictions, targets: float [...].
        mask: bool [...], the entries to include.

    Returns:
        float scalar; NaN if the targets do not vary, where it is undefined.
    """
    predictions.shape.assert_is_compatible_with(targets.shape)
    _, left = masked_moments(targets - predictions, mask)
    _, whole = masked_moments(targets, mask)
    return tf.where(whole > 0, 1.0 - tf.math.divide_no_nan(left, whole), np.nan)


def without_outliers(
    count: Tensor, mean: Tensor, variance: Tensor, batch: Tensor, weights: Tensor
) -> Tensor:
    """Bounds the samples that `merge_moments` is to learn from, so that none decides alone.

    A sample may be 1 + std from the mean, a thousand times. Before there are moments, typical
    magnitude takes their place, exp(mean(log(1 + |x|))), which one sample hardly moves. Whatever
    the moments, no sample exceeds 1e15: its square still has room in float32 for a sum.

    Args:
        count, mean, variance, batch, weights: as in `merge_moments`.

    Returns:
        float [n, ...], the batch, changed only beyond the bounds.
    """
    rows = tf.reshape(weights, [-1] + [1] * (batch.shape.rank - 1))
    logs = tf.where(rows > 0, tf.math.log1p(tf.abs(batch)), tf.zeros_like(batch))
    logs = tf.math.divide_no_nan(tf.reduce_sum(logs, axis=0), tf.reduce_sum(rows))
    known = count > 0
    limit = MAX_DEVIATION * (1.0 + tf.where(known, tf.sqrt(variance), tf.exp(logs)))
    center = tf.where(known, mean, tf.zeros_like(mean))
    low = tf.maximum(center - limit, -MAX_SAMPLE)
    return tf.clip_by_value(batch, low, tf.minimum(center + limit, MAX_SAMPLE))


def merge_moments(
    count: Tensor, mean: Tensor, variance: Tensor, batch: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Updates running moments with a new batch of samples (Chan et al. 1979).

    Args:
        count: float scalar, number of samples so far.
        mean, variance: float [...], their moments (variance with divisor n).
        batch: float [n, ...], the new samples.
        weights: float [n], 1 for samples that count, 0 for those that do not.

    Returns:
        (count, mean, variance) with the new samples included.
    """
    weights = tf.reshape(weights, [-1] + [1] * (batch.shape.rank - 1))
    batch_count = tf.reduce_sum(weights)
    total = tf.maximum(count + batch_count, 1.0)
    # As in `masked_moments`: a constant has a variance of exactly 0.
    largest = tf.reduce_max(tf.where(weights > 0, batch, batch.dtype.min), axis=0)
    reference = tf.where((count > 0) | (batch_count == 0), mean, largest)
    # Samples of weight 0 may hold anything: replace, do not multiply (0 x NaN is NaN).
    difference = tf.where(weights > 0, batch - reference, tf.zeros_like(batch))
    batch_shift = tf.math.divide_no_nan(tf.reduce_sum(difference, axis=0), batch_count)
    batch_variance = tf.math.divide_no_nan(
        tf.reduce_sum(weights * (difference - batch_shift) ** 2, axis=0), batch_count
    )
    shift = reference - mean + batch_shift  # from the mean so far to the batch's
    share = batch_count / total
    new_mean = tf.where(count > 0, mean + share * shift, reference + batch_shift)
    new_variance = (
        (1.0 - share) * variance + share * batch_variance + share * (1.0 - share) * shift**2
    )
    return count + batch_count, new_mean, new_variance
