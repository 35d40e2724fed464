"""Running statistics, scales of exploration, masked logits and reward scaling."""

import keras
import numpy as np
import pytest
import reference
import tensorflow as tf
import tensorflow_probability as tfp

from ppo_tf import ops
from ppo_tf.learning.rewards.scaling import RewardScaling
from ppo_tf.networks.layers import (
    ExplorationDirections,
    MaskLogits,
    RunningNormalization,
    StateIndependentScale,
    learn_statistics,
)

tfd = tfp.distributions

NAN = float("nan")
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


def statistics(layer):
    """(count, mean, variance) of now, not of later: copies."""
    return [weight.numpy() for weight in (layer.count, layer.mean, layer.variance)]


def batch(seed, rows=20, columns=3):
    return np.random.default_rng(seed).normal(5.0, 3.0, (rows, columns)).astype(np.float32)


def built(shape=(None, 3), **options):
    layer = RunningNormalization(**options)
    layer.build(shape)
    return layer


def assert_same(left, right):
    for one, other in zip(left, right, strict=True):
        np.testing.assert_array_equal(one, other)


def assert_differ(left, right):
    assert any(not np.array_equal(one, other) for one, other in zip(left, right, strict=True))


def test_before_the_first_move_normalization_only_clips():
    layer = RunningNormalization(clip=2.0)
    result = layer(tf.constant([[0.5, -1.5, 7.0, -9.0]]))
    np.testing.assert_allclose(result, [[0.5, -1.5, 2, -2]], **TOLERANCE)


def test_statistics_are_frozen_outside_learn_statistics():
    layer = built()
    with learn_statistics(tf.ones([20])):
        layer(batch(0))
    before = statistics(layer)
    layer(batch(1))
    layer(batch(1), training=True)
    keras.Sequential([layer]).predict(batch(2), verbose=0)
    assert_same(before, statistics(layer))


def test_normalization_equals_numpy_moments_after_three_batches():
    layer = built()
    batches = [batch(0, rows=20), batch(1, rows=1), batch(2, rows=57)]
    for each in batches:
        with learn_statistics(tf.ones([len(each)])):
            layer(each)
    seen = np.concatenate(batches).astype(np.float64)
    count, mean, variance = statistics(layer)
    assert count == 78
    np.testing.assert_allclose(mean, seen.mean(axis=0), **TOLERANCE)
    np.testing.assert_allclose(variance, seen.var(axis=0), **TOLERANCE)
    expected = (batches[2] - seen.mean(axis=0)) / seen.std(axis=0)
    np.testing.assert_allclose(layer(batches[2]), expected, **TOLERANCE)


def test_the_pass_that_learns_already_uses_the_new_statistics():
    layer, x = built(), batch(0)
    with learn_statistics(tf.ones([20])):
        result = layer(x)
    np.testing.assert_array_equal(result, layer(x))


def test_statistics_have_the_shape_of_one_input():
    layer = built((None, 4, 2))
    x = np.random.default_rng(0).normal(size=(9, 4, 2)).astype(np.float32)
    with learn_statistics(tf.ones([9])):
        layer(x)
    _, mean, variance = statistics(layer)
    np.testing.assert_allclose(mean, x.mean(axis=0), **TOLERANCE)
    np.testing.assert_allclose(variance, x.var(axis=0), **TOLERANCE)


def test_rows_of_weight_zero_count_for_nothing():
    x, kept = batch(0), np.arange(20) % 3 > 0
    masked, alone = built(), built()
    with learn_statistics(tf.constant(kept, tf.float32)):
        masked(np.where(kept[:, None], x, np.float32(NAN)))
    with learn_statistics(tf.ones([kept.sum()])):
        alone(x[kept])
    assert float(masked.count) == kept.sum()
    for one, other in zip(statistics(masked), statistics(alone), strict=True):
        np.testing.assert_allclose(one, other, **TOLERANCE)


def test_a_layer_in_two_models_learns_once_per_scope():
    shared = RunningNormalization()
    inputs = keras.Input((3,))
    actor = keras.Model(inputs, keras.layers.Dense(2)(shared(inputs)))
    critic = keras.Model(inputs, keras.layers.Dense(1)(shared(inputs)))
    x = batch(0)
    with learn_statistics(tf.ones([20])):
        actor(x)
        once = statistics(shared)
        critic(x)
        actor(x)
    assert once[0] == 20
    assert_same(once, statistics(shared))
    with learn_statistics(tf.ones([20])):
        critic(batch(1))
    assert float(shared.count) == 40


def test_two_layers_learn_each_in_one_scope():
    first, second = RunningNormalization(), RunningNormalization()
    model = keras.Sequential([keras.Input((3,)), first, keras.layers.Dense(2), second])
    with learn_statistics(tf.ones([20])):
        model(batch(0))
    assert [float(first.count), float(second.count)] == [20, 20]


def test_a_compiled_function_learns_at_every_call():
    layer = built()

    @tf.function(jit_compile=True)
    def learn(x):
        with learn_statistics(tf.ones([20])):
            layer(x)
            layer(x)

    for seed in range(3):
        learn(tf.constant(batch(seed)))
    seen = np.concatenate([batch(seed) for seed in range(3)])
    assert float(layer.count) == 60
    np.testing.assert_allclose(layer.mean, seen.mean(axis=0), **TOLERANCE)
    np.testing.assert_allclose(layer.variance, seen.var(axis=0), **TOLERANCE)


def test_an_error_inside_learn_statistics_closes_the_scope():
    layer = built()
    with pytest.raises(RuntimeError, match="boom"), learn_statistics(tf.ones([20])):
        raise RuntimeError("boom")
    before = statistics(layer)
    layer(batch(0))
    assert_same(before, statistics(layer))


def test_normalized_values_are_clipped_on_both_sides():
    layer = built((None, 1), clip=1.5)
    x = np.float32([[-10], [0], [0], [0], [10]])  # standard deviation sqrt(40) = 6.325
    with learn_statistics(tf.ones([5])):
        layer(x)
    np.testing.assert_allclose(layer(x)[:, 0], [-1.5, 0, 0, 0, 1.5], **TOLERANCE)


def test_a_column_that_never_varies_normalizes_to_zero():
    layer = built((None, 1))
    with learn_statistics(tf.ones([4])):
        layer(np.full((4, 1), 7.0, np.float32))
    np.testing.assert_allclose(layer(np.full((2, 1), 7.0, np.float32)), [[0], [0]], atol=1e-3)


def test_statistics_are_not_trained():
    layer = built()
    assert layer.trainable_weights == []
    assert len(layer.non_trainable_weights) == 3


def test_a_saved_model_keeps_its_statistics(tmp_path):
    model = keras.Sequential([keras.Input((3,)), RunningNormalization(clip=1.25, epsilon=1e-3)])
    with learn_statistics(tf.ones([20])):
        model(batch(0))
    model.save(tmp_path / "model.keras")
    restored = keras.models.load_model(tmp_path / "model.keras")
    (layer,) = restored.layers
    assert (layer.clip, layer.epsilon) == (1.25, 1e-3)
    assert float(layer.count) == 20
    assert_same(statistics(model.layers[0]), statistics(layer))
    np.testing.assert_array_equal(restored(batch(1)), model(batch(1)))


def test_the_scale_is_the_same_in_every_state():
    layer = StateIndependentScale(0.5)
    scales = layer(batch(0))
    assert scales.shape == (20, 3)
    np.testing.assert_allclose(scales, np.full((20, 3), 0.5), **TOLERANCE)
    layer.log_scale.assign(np.log([1.0, 2.0, 3.0]))
    np.testing.assert_allclose(layer(batch(1)), np.tile([1.0, 2.0, 3.0], (20, 1)), **TOLERANCE)


def test_the_scale_learns_and_the_location_does_not_feel_it():
    layer, loc = StateIndependentScale(2.0), tf.Variable(batch(0))
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(layer(loc))
    (log_scale,) = layer.trainable_weights
    to_scale, to_loc = tape.gradient(total, [log_scale.value, loc])
    np.testing.assert_allclose(to_scale, [40, 40, 40], **TOLERANCE)  # 20 rows, d exp(x) = 2
    assert to_loc is None or not np.any(to_loc)


def test_a_saved_model_keeps_its_scale(tmp_path):
    model = keras.Sequential([keras.Input((3,)), StateIndependentScale(0.5)])
    model.layers[0].log_scale.assign([0.1, 0.2, 0.3])
    model.save(tmp_path / "model.keras")
    restored = keras.models.load_model(tmp_path / "model.keras")
    assert restored.layers[0].initial == 0.5
    np.testing.assert_array_equal(restored(batch(0)), model(batch(0)))


@pytest.mark.parametrize("initial", [0.0, -1.0, NAN])
def test_a_scale_that_is_not_positive_raises(initial):
    with pytest.raises(ValueError, match=f"initial must be positive.*initial={initial}"):
        StateIndependentScale(initial)


def reward_segments(seed=0, horizon=40, num_envs=3):
    rng = np.random.default_rng(seed)
    rewards = rng.normal(1.0, 3.0, (horizon, num_envs)).astype(np.float32)
    done = rng.random((horizon, num_envs)) < 0.1
    valid = ~np.roll(done, 1, axis=0)  # as in NEXT_STEP environments: no transition after an end
    valid &= rng.random((horizon, num_envs)) > 0.05  # nor here and there within an episode
    valid[0] = True
    return rewards, done & valid, valid


def scale(layer, rewards, done, valid):
    """Scaled rewards; episodes end either way, by turns."""
    terminated = done & (np.arange(len(done)) % 2 == 0)[:, None]
    arrays = (rewards, terminated, done & ~terminated, valid)
    return layer(*map(tf.constant, arrays)).numpy()


@pytest.mark.parametrize("gamma", [0.0, 0.9, 1.0])
def test_scaled_rewards_equal_a_loop_over_time(gamma):
    rewards, done, valid = reward_segments()
    assert done.any()
    assert (~valid).any()
    options = {"gamma": gamma, "clip": 1.0, "epsilon": 1e-4}
    expected = reference.scaled_rewards(rewards, done, valid, **options)
    assert (np.abs(expected) == 1.0).any() or gamma == 1.0  # the clip is exercised
    rewards[~valid] = NAN  # must not matter
    result = scale(RewardScaling(**options), rewards, done, valid)
    np.testing.assert_allclose(result, expected, **TOLERANCE)


def test_scaling_carries_running_returns_and_statistics_to_the_next_call():
    rewards, done, valid = reward_segments()
    done[16:20] = False  # at the border of the calls every episode is running
    valid[16:20] = True
    layer = RewardScaling(gamma=0.9)
    first = scale(layer, rewards[:18], done[:18], valid[:18])
    second = scale(layer, rewards[18:], done[18:], valid[18:])
    options = {"gamma": 0.9, "clip": 10.0, "epsilon": 1e-8}
    np.testing.assert_allclose(
        first,
        reference.scaled_rewards(rewards[:18], done[:18], valid[:18], **options),
        **TOLERANCE,
    )
    everything = reference.scaled_rewards(rewards, done, valid, **options)
    np.testing.assert_allclose(second, everything[18:], **TOLERANCE)
    assert float(layer.count) == valid.sum()


def test_an_episode_that_ends_on_the_last_row_is_not_carried_over():
    layer = RewardScaling(gamma=1.0)
    running = np.float32([[1.0, 1.0], [2.0, 2.0]])
    scale(layer, running, np.array([[False, False], [True, False]]), np.ones((2, 2), bool))
    np.testing.assert_allclose(layer.running, [0, 3])  # 1 + 2 goes on in the second environment


def test_an_invalid_row_neither_discounts_nor_adds():
    layer = RewardScaling(gamma=0.5)
    rewards = np.float32([[2.0], [NAN], [4.0]])
    valid = np.array([[True], [False], [True]])
    scale(layer, rewards, np.zeros((3, 1), bool), valid)
    # R = 2, then 4 + .5 * 2 = 5: mean 3.5, variance 1.5^2
    np.testing.assert_allclose(layer.running, [5])
    np.testing.assert_allclose(layer.mean, 3.5)
    np.testing.assert_allclose(layer.variance, 2.25)
    assert float(layer.count) == 2


def test_scaling_never_changes_a_sign():
    rewards, done, valid = reward_segments(1)
    result = scale(RewardScaling(), rewards, done, valid)
    np.testing.assert_array_equal(np.sign(result), np.where(valid, np.sign(rewards), 0))


def test_scaling_makes_the_unit_of_reward_irrelevant():
    rewards, done, valid = reward_segments(2)
    small = scale(RewardScaling(epsilon=1e-30), rewards, done, valid)
    large = scale(RewardScaling(epsilon=1e-30), rewards * 1000, done, valid)
    np.testing.assert_allclose(small, large, **TOLERANCE)


def test_reward_scaling_survives_its_config():
    config = RewardScaling(gamma=0.5, clip=3.0, epsilon=1e-2, name="scaling").get_config()
    assert RewardScaling.from_config(config).get_config() == config
    assert (config["gamma"], config["clip"], config["epsilon"]) == (0.5, 3.0, 1e-2)


def test_reward_scaling_statistics_are_not_trained():
    layer = RewardScaling()
    layer.build((5, 2))
    assert layer.trainable_weights == []
    assert len(layer.non_trainable_weights) == 4


def test_directions_are_the_features_times_the_scales():
    layer, x = ExplorationDirections(2), tf.Variable([[1.0, -2.0, 0.0]])
    layer.build((None, 3))
    layer.log_scale.assign(np.log([[1, 2], [3, 4], [5, 6]]))
    np.testing.assert_allclose(layer(x), [[[1, 2], [-6, -8], [0, 0]]], **TOLERANCE)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(layer(x))
    to_scale, to_x = tape.gradient(total, [layer.log_scale.value, x])
    np.testing.assert_allclose(to_scale, [[1, 2], [-6, -8], [0, 0]], **TOLERANCE)
    assert to_x is None or not np.any(to_x)


@pytest.mark.parametrize("width", [4, 64])
def test_exploration_starts_at_its_scale_for_typical_features(width):
    directions = ExplorationDirections(3, 0.3)(np.full((2, width), -0.5, np.float32))
    deviation = np.sqrt(np.sum(np.square(directions), axis=1))
    np.testing.assert_allclose(deviation, np.full((2, 3), 0.3), **TOLERANCE)


def test_a_saved_model_keeps_its_directions(tmp_path):
    model = keras.Sequential([keras.Input((3,)), ExplorationDirections(2, 0.5)])
    model.layers[0].log_scale.assign(np.arange(6.0).reshape(3, 2))
    model.save(tmp_path / "model.keras")
    restored = keras.models.load_model(tmp_path / "model.keras")
    assert (restored.layers[0].size, restored.layers[0].initial) == (2, 0.5)
    np.testing.assert_array_equal(restored(batch(0)), model(batch(0)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0,), "size must be positive.*size=0"), ((2, -1.0), "initial must be.*initial=-1.0")],
)
def test_directions_that_can_not_be_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ExplorationDirections(*arguments)


LOGITS = np.float32([[0.3, -1.2, 2.0, 0.7], [5.0, 1.0, -3.0, 0.0]])
OTHERS = np.float32([[1.0, 0.0, -0.5, 2.0], [0.1, 0.2, 0.3, 0.4]])
VALID = np.array([[1, 0, 1, 1], [0, 1, 0, 1]])


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, bool])
def test_masked_logits_are_a_categorical_over_the_valid(dtype):
    layer, mask = MaskLogits(), VALID.astype(dtype)
    masked, others = (tfd.Categorical(logits=layer(x, mask)) for x in (LOGITS, OTHERS))
    for row, valid in enumerate(VALID.astype(bool)):
        subset, other = (tfd.Categorical(logits=x[row][valid]) for x in (LOGITS, OTHERS))
        probabilities = masked.probs_parameter()[row].numpy()
        assert not probabilities[~valid].any()  # exactly 0
        np.testing.assert_allclose(probabilities[valid], subset.probs_parameter(), **TOLERANCE)
        np.testing.assert_allclose(masked.entropy()[row], subset.entropy(), **TOLERANCE)
        divergence = masked.kl_divergence(others)[row]
        np.testing.assert_allclose(divergence, subset.kl_divergence(other), **TOLERANCE)
        np.testing.assert_allclose(
            [masked.log_prob(a)[row] for a in np.flatnonzero(valid)],
            subset.log_prob(np.arange(valid.sum())),
            **TOLERANCE,
        )


def test_gradients_through_masked_logits_are_finite_and_zero_where_invalid():
    layer, logits = MaskLogits(), tf.Variable(LOGITS)
    with tf.GradientTape() as tape:
        new = tfd.Categorical(logits=layer(logits, VALID))
        old = tfd.Categorical(logits=layer(OTHERS, VALID))
        loss = new.log_prob([2, 3]) + new.entropy() + old.kl_divergence(new)
    gradient = tape.gradient(loss, logits).numpy()
    assert np.isfinite(gradient).all()
    assert not gradient[VALID == 0].any()
    assert (np.abs(gradient[VALID == 1]) > 1e-3).all()


def test_a_row_without_a_valid_category_is_uniform():
    logits = MaskLogits()(LOGITS, np.zeros((2, 4), np.int8))
    np.testing.assert_allclose(tf.nn.softmax(logits), np.full((2, 4), 0.25), **TOLERANCE)
    assert float(logits[0, 0]) == ops.MASKED_LOGIT


def test_a_mask_of_another_size_is_not_broadcast():
    with pytest.raises(ValueError, match=r"same last axis.*\(2, 4\).*\(2, 1\)"):
        MaskLogits()(tf.constant(LOGITS), tf.ones((2, 1), tf.int8))
