"""The shared maths against NumPy and plain loops."""

import numpy as np
import pytest
import reference
import tensorflow as tf

from ppo_tf import ops

NAN = float("nan")
ALL = [True, True, True, True]


def mask(*entries):
    return tf.constant(entries, tf.bool)


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (7, 1), (17, 3)])
def test_discounted_sum_equals_the_forward_sum(shape):
    rng = np.random.default_rng(0)
    x = rng.normal(size=shape).astype(np.float32)
    decay = (rng.random(shape) * (rng.random(shape) > 0.2)).astype(np.float32)
    result = ops.discounted_sum(tf.constant(x), tf.constant(decay))
    np.testing.assert_allclose(result, reference.discounted_sum(x, decay), rtol=1e-5, atol=1e-5)


def test_discounted_sum_ignores_the_last_decay():
    x = tf.constant([[1.0], [2.0], [4.0]])
    decay = tf.constant([[0.5], [0.5], [0.9]])
    # 4; 2 + .5 * 4 = 4; 1 + .5 * 4 = 3
    assert ops.discounted_sum(x, decay).numpy()[:, 0].tolist() == [3, 4, 4]


def test_discounted_sum_of_different_shapes_raises():
    with pytest.raises(ValueError, match="incompatible"):
        ops.discounted_sum(tf.zeros([3, 2]), tf.zeros([3, 1]))


def test_merge_time_flattens_time_and_batch_in_row_order():
    nest = {"image": tf.reshape(tf.range(24), [3, 2, 4]), "reward": tf.range(6.0)[None]}
    merged = ops.merge_time(nest)
    assert merged["image"].numpy().tolist() == np.arange(24).reshape(6, 4).tolist()
    assert merged["reward"].numpy().tolist() == [0, 1, 2, 3, 4, 5]


def test_masked_mean_ignores_masked_entries_even_nan():
    x = tf.constant([1.0, NAN, 4.0, float("inf")])
    assert float(ops.masked_mean(x, mask(True, False, True, False))) == 2.5


def test_masked_mean_of_nothing_is_zero():
    assert float(ops.masked_mean(tf.constant([1.0, NAN]), mask(False, False))) == 0.0


def test_masked_mean_keeps_nan_that_is_not_masked():
    assert np.isnan(ops.masked_mean(tf.constant([1.0, NAN]), mask(True, True)))


def test_masked_mean_has_finite_gradients_despite_masked_nan():
    x = tf.Variable([2.0, NAN])
    with tf.GradientTape() as tape:
        mean = ops.masked_mean(x, mask(True, False))
    assert tape.gradient(mean, x).numpy().tolist() == [1, 0]


def test_masked_mean_of_different_shapes_raises():
    with pytest.raises(ValueError, match="incompatible"):
        ops.masked_mean(tf.zeros([2, 3]), tf.ones([3], tf.bool))


def test_standardize_equals_numpy_on_unmasked_entries():
    rng = np.random.default_rng(1)
    x = rng.normal(3.0, 5.0, size=200).astype(np.float32)
    kept = rng.random(200) > 0.3
    x[~kept] = NAN
    result = ops.standardize(tf.constant(x), tf.constant(kept)).numpy()
    wanted = x[kept].astype(np.float64)
    np.testing.assert_allclose(
        result[kept], (wanted - wanted.mean()) / wanted.std(), rtol=1e-5, atol=1e-5
    )
    assert (result[~kept] == 0).all()


# 0.1 and its multiples are not exact floats, so the mean of equal entries is rounded.
@pytest.mark.parametrize("value", [0.0, 2.0, 0.1, -3.3, 1000.1])
@pytest.mark.parametrize("count", [2, 7, 1000])
def test_standardize_of_equal_entries_is_zeros(value, count):
    result = ops.standardize(tf.fill([count], value), tf.ones([count], tf.bool))
    np.testing.assert_allclose(result, np.zeros(count), atol=1e-3)


def test_standardize_of_a_single_entry_is_zero():
    assert ops.standardize(tf.constant([7.7]), mask(True)).numpy().tolist() == [0]
    lone = ops.standardize(tf.constant([NAN, 7.7, 3.0]), mask(False, True, False))
    assert lone.numpy().tolist() == [0, 0, 0]


def test_standardize_of_nothing_is_zeros():
    result = ops.standardize(tf.constant([1.0, NAN, 3.0]), mask(False, False, False))
    assert result.numpy().tolist() == [0, 0, 0]


def explained_variance(predictions, targets, kept=ALL):
    return float(
        ops.explained_variance(tf.constant(predictions), tf.constant(targets), mask(*kept))
    )


def test_explained_variance_of_perfect_predictions_is_one():
    assert explained_variance([1.0, 2.0, 3.0, 5.0], [1.0, 2.0, 3.0, 5.0]) == 1.0


def test_explained_variance_ignores_a_constant_offset():
    assert explained_variance([2.0, 3.0, 4.0, 6.0], [1.0, 2.0, 3.0, 5.0]) == 1.0


def test_explained_variance_of_a_constant_is_zero():
    assert explained_variance([9.0] * 4, [1.0, 2.0, 3.0, 5.0]) == 0.0


def test_explained_variance_of_predictions_worse_than_a_constant_is_negative():
    # errors t - (-t) = 2t have four times the variance of t: 1 - 4
    assert explained_variance([-1.0, -2.0, 1.0, 2.0], [1.0, 2.0, -1.0, -2.0]) == -3.0


def test_explained_variance_ignores_masked_entries():
    kept = [True, False, True, True]
    full = explained_variance([1.0, NAN, 2.5, 5.0], [1.0, NAN, 3.0, 5.0], kept)
    predictions, targets = np.array([1.0, 2.5, 5.0]), np.array([1.0, 3.0, 5.0])
    np.testing.assert_allclose(full, 1 - np.var(targets - predictions) / np.var(targets), 1e-5)


@pytest.mark.parametrize("predictions", [[3.0] * 4, [1.0, 2.0, 3.0, 5.0]])
@pytest.mark.parametrize("target", [3.0, 0.1])
def test_explained_variance_of_constant_targets_is_nan(predictions, target):
    assert np.isnan(explained_variance(predictions, [target] * 4))


def test_explained_variance_of_many_equal_targets_is_nan_despite_rounding():
    # The float32 mean of 1000 times 0.1 is not 0.1.
    assert np.isnan(explained_variance(np.arange(1000.0, dtype="f"), [0.1] * 1000, [True] * 1000))


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_merge_moments_over_batches_equals_numpy_over_all(shape):
    rng = np.random.default_rng(2)
    moments = tf.constant(0.0), tf.zeros(shape), tf.ones(shape)
    seen = []
    for size in (1, 4, 30, 8, 5):
        batch = rng.normal(4.0, 3.0, size=(size, *shape)).astype(np.float32)
        kept = rng.random(size) > 0.3
        if size == 8:
            kept[:] = False  # a batch without any kept sample changes nothing
        seen.append(batch[kept])
        batch[~kept] = NAN
        moments = ops.merge_moments(*moments, tf.constant(batch), tf.cast(kept, tf.float32))
        count, mean, variance = moments
        if everything := sum(len(part) for part in seen):
            together = np.concatenate(seen).astype(np.float64)
            assert float(count) == everything
            np.testing.assert_allclose(mean, together.mean(axis=0), rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(variance, together.var(axis=0), rtol=1e-5, atol=1e-5)


def test_merge_moments_of_nothing_keeps_the_initial_moments():
    count, mean, variance = ops.merge_moments(
        tf.constant(0.0), tf.zeros([2]), tf.ones([2]), tf.fill([3, 2], NAN), tf.zeros([3])
    )
    assert float(count) == 0
    assert mean.numpy().tolist() == [0, 0]
    assert variance.numpy().tolist() == [1, 1]
