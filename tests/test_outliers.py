"""Finite numbers beyond reason: what learns from them recovers, or says so and is undone."""

import gymnasium
import helpers
import numpy as np
import pytest
import tensorflow as tf

import ppo_tf
from ppo_tf import ops
from ppo_tf.networks.layers import RunningNormalization, learn_statistics

pytestmark = pytest.mark.usefixtures("eager")

OUTLIERS = [2e19, -2e19, 1e20, 3e38]


def batches(count, rows=256, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(5.0, 2.0, (rows, 2)).astype(np.float32) for _ in range(count)]


@pytest.mark.parametrize("at", [0, 1])
@pytest.mark.parametrize("outlier", OUTLIERS)
def test_a_component_outlives_one_outlier(outlier, at):
    layer = RunningNormalization()
    data = batches(40)
    data[at][17, 0] = outlier
    for batch in data:
        with learn_statistics(tf.ones([len(batch)])):
            layer(batch)
    assert np.isfinite(layer.mean).all() and np.isfinite(layer.variance).all()
    spread = layer(batches(1, seed=1)[0]).numpy().std(axis=0)
    assert spread[0] > 0.01 and spread[1] == pytest.approx(1.0, abs=0.1)
    assert abs(layer(np.float32([[outlier, 5.0]])).numpy()[0, 0]) == 10.0


def test_observations_that_are_all_huge_stay_finite():
    layer = RunningNormalization()
    for scale in (1.0, 1e20, -3e38):
        with learn_statistics(tf.ones([256])):
            layer(batches(1)[0] * np.float32(scale) if scale > 0 else np.full((256, 2), scale))
        assert np.isfinite(layer.variance).all() and np.isfinite(layer(batches(1)[0])).all()


def rewards(seed, steps=64, envs=4):
    return np.random.default_rng(seed).normal(size=(steps, envs)).astype(np.float32)


@pytest.mark.parametrize("at", [0, 1])
@pytest.mark.parametrize("outlier", OUTLIERS)
def test_rewards_outlive_one_outlier(outlier, at):
    scaling = ppo_tf.RewardScaling()
    no = np.zeros((64, 4), bool)
    ends = no.copy()
    ends[31::32] = True
    for index in range(40):
        given = rewards(index)
        if index == at:
            given[10, 1] = outlier
        scaled = scaling(given, terminated=ends, truncated=no, valid=~no).numpy()
        assert np.isfinite(scaled).all()
        if index == at:
            assert scaled[10, 1] == pytest.approx(np.copysign(10.0, outlier))
    assert np.abs(scaled).mean() > 1e-3
    assert all(np.isfinite(v).all() for v in scaling.variables)


def test_ordinary_samples_are_not_bounded():
    known = (tf.constant(100.0), tf.constant([5.0, 0.0]), tf.constant([4.0, 0.0]))
    batch = tf.constant([[5.0 + 2999.0, 999.0], [5.0 - 2999.0, -999.0], [5.0 + 3001.0, 1001.0]])
    bounded = ops.without_outliers(*known, batch, tf.ones([3]))
    np.testing.assert_array_equal(bounded[:2], batch[:2])
    np.testing.assert_allclose(bounded[2], [5.0 + 3000.0, 1000.0])
    # Before there are moments: 1000 (1 + exp(mean(log(1 + |x|)))) = 1000 (1 + sqrt(9 * 1)).
    nothing = (tf.constant(0.0), tf.zeros([1]), tf.ones([1]))
    batch = tf.constant([[8.0], [0.0], [np.nan]])
    weights = tf.constant([1.0, 1.0, 0.0])
    np.testing.assert_array_equal(ops.without_outliers(*nothing, batch, weights)[:2], batch[:2])
    batch = tf.constant([[1e9], [0.0], [0.0], [0.0]])
    bounded = ops.without_outliers(*nothing, batch, tf.ones([4]))
    np.testing.assert_allclose(bounded[0], 1e3 * (1.0 + (1.0 + 1e9) ** 0.25), rtol=1e-4)


class Broken(tf.Module):
    """Rewards as they are, beside a variable that ends up infinite."""

    def __init__(self):
        super().__init__()
        self.total = tf.Variable(1.0, trainable=False, name="total")

    def __call__(self, rewards, valid):
        self.total.assign(self.total * 3e38)
        return rewards


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.usefixtures("graphs")
def test_a_variable_that_becomes_infinite_undoes_the_update(jit_compile):
    envs = helpers.spaces(helpers.box(3), gymnasium.spaces.Discrete(2))
    learner = ppo_tf.Learner(
        helpers.make_policy(envs),
        helpers.make_critic(envs),
        reward_transformation=Broken(),
        epochs=1,
        minibatch_size=8,
        jit_compile=jit_compile,
    )
    data = helpers.trajectory(envs, learner.policy)
    learner.update(data)
    before = helpers.numbers(learner)
    words = "iteration 1: the variable reward_transformation/total became NaN or infinite"
    with pytest.raises(ppo_tf.NonFiniteError, match=words):
        learner.update(data)
    helpers.assert_close(helpers.numbers(learner), before, rtol=0, atol=0)
    assert learner.iterations == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_policy_that_is_not_finite_is_never_exported(bad, tmp_path):
    envs = helpers.spaces(helpers.box(3), gymnasium.spaces.Discrete(2))
    policy, critic = helpers.make_policy(envs), helpers.make_critic(envs)
    for model in (policy.actor, critic):
        weight = model.trainable_variables[0]
        weight.assign(weight + bad)
        with pytest.raises(ppo_tf.NonFiniteError, match=r"never exported.*variable=.*kernel"):
            ppo_tf.export_policy(policy, tmp_path / "policy", critic=critic)
        weight.assign(np.zeros(weight.shape))
    assert list(tmp_path.iterdir()) == []
