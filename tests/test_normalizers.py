"""Which normalisers of a learner's models learn from an update, and how often."""

import helpers
import keras
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete

import ppo_tf
from ppo_tf.networks.layers import normalizations

pytestmark = pytest.mark.usefixtures("eager")

ENVS = helpers.spaces(Box(-3.0, 3.0, (3,)), Discrete(2))
PAIR = helpers.spaces(Dict(a=helpers.box(2), b=helpers.box(2)), Discrete(2))
OPTIONS = {"epochs": 1, "minibatch_size": 8, "sequence_length": 4, "jit_compile": False}


def policy_of(envs, actor):
    spec = ppo_tf.action_spec(envs.single_action_space)
    return ppo_tf.Policy(actor, spec.family, spec.action_map)


def count(data):
    return float(data.valid.sum())


@pytest.mark.usefixtures("graphs")
def test_a_frozen_normaliser_does_not_learn():
    learner = ppo_tf.Learner(helpers.make_policy(ENVS), helpers.make_critic(ENVS), **OPTIONS)
    (actors,), (critics,) = normalizations(learner.policy), normalizations(learner.critic)
    actors.trainable = False
    first, second = (helpers.trajectory(ENVS, learner.policy, seed=s) for s in range(2))
    learner.update(first)
    assert [float(actors.count), float(critics.count)] == [0.0, count(first)]
    actors.trainable, learner.critic.trainable = True, False  # after the update was compiled
    learner.update(second)
    assert [float(actors.count), float(critics.count)] == [count(second), count(first)]


@pytest.mark.parametrize("shared_with_critic", [False, True])
def test_one_normaliser_on_two_leaves_learns_from_both(shared_with_critic):
    normalizer = ppo_tf.RunningNormalization()
    inputs = {path: keras.Input((2,), name=path) for path in "ab"}
    parts = [normalizer(inputs[path]) for path in "ab"]
    outputs = {"logits": keras.layers.Dense(2)(keras.layers.Concatenate()(parts))}
    actor, critic = keras.Model(inputs, outputs), helpers.make_critic(PAIR)
    if shared_with_critic:
        value = keras.layers.Dense(1)(keras.layers.Concatenate()(parts))
        critic = keras.Model(inputs, keras.ops.squeeze(value, -1))
    learner = ppo_tf.Learner(policy_of(PAIR, actor), critic, **OPTIONS)
    data = helpers.trajectory(PAIR, learner.policy)
    learner.update(data)
    seen = np.concatenate([data.observations[path][data.valid] for path in "ab"])
    assert float(normalizer.count) == len(seen)
    np.testing.assert_allclose(normalizer.mean, seen.mean(axis=0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(normalizer.variance, seen.var(axis=0), rtol=1e-4)


def test_a_normaliser_in_a_recurrent_head_learns():
    features = keras.Input((4,), name="features")
    normalizer = ppo_tf.RunningNormalization()
    head = keras.Model(features, {"logits": keras.layers.Dense(2)(normalizer(features))})
    encoder = ppo_tf.encoder(ENVS, hidden_sizes=(4,), seed=1)
    actor = ppo_tf.Recurrent(encoder, keras.layers.GRUCell(4, seed=3), head)
    learner = ppo_tf.Learner(policy_of(ENVS, actor), helpers.make_critic(ENVS), **OPTIONS)
    data = helpers.trajectory(ENVS, learner.policy)
    learner.update(data)
    (below,) = normalizations(encoder)
    assert [float(normalizer.count), float(below.count)] == [count(data)] * 2
    assert (normalizer.variance.numpy() != 1.0).all()
