"""Reuse of old rollouts: their importance weights, and what is kept of them."""

import helpers
import keras
import numpy as np
import pytest
import tensorflow as tf
from gymnasium.spaces import Discrete

import ppo_tf
from ppo_tf.learning import reuse

pytestmark = pytest.mark.usefixtures("eager")

ENVS = helpers.spaces(helpers.box(3), Discrete(3))


def make_learner(count, **options):
    options = {"epochs": 1, "minibatch_size": 16, "optimizer": keras.optimizers.SGD(0.5), **options}
    policy, critic = helpers.make_policy(ENVS), helpers.make_critic(ENVS)
    return ppo_tf.Learner(policy, critic, reuse=count, **options)


def log_probs(policy, data):
    """log pi(a|s) by the policy's own distribution, [T, B]."""
    flat = data.observations.reshape(-1, 3)
    result = policy.distribution(tf.constant(flat)).log_prob(data.actions.reshape(-1))
    return result.numpy().reshape(data.rewards.shape)


def recorded(learner, monkeypatch):
    """The batches that the update rule gets from now on."""
    batches, rule = [], learner._improve
    monkeypatch.setattr(learner, "_improve", lambda **k: (batches.append(k["batch"]), rule(**k))[1])
    return batches


def test_old_steps_have_the_weights_of_the_policies_that_took_them(monkeypatch):
    learner = make_learner(3)
    batches = recorded(learner, monkeypatch)
    rollouts, acted = [], []
    for seed in range(4):
        data = helpers.trajectory(ENVS, learner.policy, seed=seed)
        rollouts.append(data)
        acted.append(log_probs(learner.policy, data))
        expected = []  # before the update, newest first
        for age in range(min(seed + 1, 3)):
            old, mu = rollouts[-1 - age], acted[-1 - age]
            ratio = np.exp(log_probs(learner.policy, old) - mu)
            expected.append(np.where(old.valid, ratio, 1.0))
        metrics = learner.update(data)
        batch = batches[-1]
        weights = np.reshape(batch.importance_weights, (8, 3, 2))  # rows, rollouts, environments
        valid = np.reshape(batch.valid, (8, 3, 2))
        assert not valid[:, seed + 1 :].any()  # there are no such rollouts yet
        for age, wanted in enumerate(expected):
            np.testing.assert_allclose(weights[:, age], wanted, rtol=1e-4)
            np.testing.assert_array_equal(valid[:, age], rollouts[-1 - age].valid)
        used = weights[valid]
        size = used.sum() ** 2 / (len(used) * (used**2).sum())
        np.testing.assert_allclose(metrics["effective_sample_size"], size, rtol=1e-4)
    assert metrics["effective_sample_size"] < 0.9999  # the policy has moved


def test_a_reward_is_transformed_once_and_a_normaliser_sees_a_row_once():
    learner = make_learner(2, reward_transformation=ppo_tf.RewardScaling())
    single = make_learner(1, reward_transformation=ppo_tf.RewardScaling(), minibatch_size=8)
    for seed in range(3):
        data = helpers.trajectory(ENVS, single.policy, seed=seed)
        learner.update(data._replace(log_probs=log_probs(single.policy, data)))
        single.update(data)
    one, other = (m.policy.actor.get_layer("normalization") for m in (learner, single))
    assert float(one.count) == float(other.count)
    np.testing.assert_allclose(one.mean, other.mean, rtol=1e-5)
    scaling = (m.reward_transformation.variables for m in (learner, single))
    for a, b in zip(*scaling, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_new_episodes_forget_what_was_kept(monkeypatch):
    learner = make_learner(2)
    batches = recorded(learner, monkeypatch)
    for seed in range(2):
        learner.update(helpers.trajectory(ENVS, learner.policy, seed=seed))
        learner.begin_episodes(2)
    assert not np.reshape(batches[-1].valid, (8, 2, 2))[:, 1].any()


def test_a_failed_update_keeps_nothing():
    learner = make_learner(2)
    data = helpers.trajectory(ENVS, learner.policy)
    rewards = np.where(data.valid, np.nan, data.rewards)
    with pytest.raises(ppo_tf.NonFiniteError):
        learner.update(data._replace(rewards=rewards))
    assert not learner.rollouts.joined(data).valid[:, 2:].any()


def test_vtrace_learns_from_old_rollouts():
    learner = make_learner(2, estimator=ppo_tf.VTrace())
    for seed in range(2):
        metrics = learner.update(helpers.trajectory(ENVS, learner.policy, seed=seed))
    assert all(np.isfinite(x) for x in metrics.values() if x is not None)


def test_vtrace_needs_to_know_who_acted():
    learner = make_learner(1, estimator=ppo_tf.VTrace())
    with pytest.raises(ValueError, match="the trajectory needs log_probs"):
        learner.update(helpers.trajectory(ENVS, learner.policy))


def test_a_collector_says_how_probable_its_actions_were():
    envs = ppo_tf.make_envs("CartPole-v1", 2, backend="vector", seed=0)
    policy = ppo_tf.mlp_policy(envs, hidden_sizes=(4,), seed=0)
    collector = ppo_tf.VectorCollector(envs, policy, 8, log_probs=True)
    data, _ = collector.collect()
    dist = policy.distribution(tf.constant(data.observations.reshape(-1, 4)))
    expected = dist.log_prob(data.actions.reshape(-1)).numpy().reshape(8, 2)
    np.testing.assert_allclose(data.log_probs, expected, rtol=1e-5)
    memory = ppo_tf.recurrent_policy(envs, cell="gru", units=4)
    with pytest.raises(ValueError, match="log_probs cannot be combined with a memory"):
        ppo_tf.VectorCollector(envs, memory, 8, log_probs=True)


@pytest.mark.parametrize(
    ("weights", "share"),
    [([1.0, 1.0, 1.0, 1.0], 1.0), ([1.0, 0.0, 0.0, 0.0], 0.25), ([3.0, 1.0], 0.8)],
)
def test_the_effective_sample_size_of_known_weights(weights, share):
    valid = tf.constant([True] * len(weights) + [False])
    size = reuse.effective_sample_size(tf.constant([*weights, 9.0]), valid)
    np.testing.assert_allclose(size, share, rtol=1e-6)


def own_loss(new_dist, old_dist, actions, advantages):
    return -new_dist.log_prob(actions) * advantages, {}


@pytest.mark.parametrize(
    "loss", [own_loss, ppo_tf.Sum([own_loss]), ppo_tf.KLPenalty(surrogate=own_loss)]
)
def test_a_loss_that_cannot_weigh_is_refused(loss):
    with pytest.raises(ValueError, match="reuse needs a loss that takes importance_weights"):
        make_learner(2, loss=loss)


def test_bad_counts_and_memories_are_refused():
    with pytest.raises(ValueError, match=r"reuse must be at least 1\. Received: reuse=0"):
        make_learner(0)
    actor, critic = helpers.make_policy(ENVS, cell="gru"), helpers.make_critic(ENVS, cell="gru")
    with pytest.raises(ValueError, match="reuse cannot be combined with a memory"):
        ppo_tf.Learner(actor, critic, reuse=2)
