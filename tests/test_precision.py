"""Keras' dtype policies: mixed_bfloat16 works from acting to export, others are refused by name."""

import contextlib

import helpers
import keras
import numpy as np
import pytest
import tensorflow as tf
from gymnasium.spaces import Discrete

import ppo_tf
from ppo_tf.networks import precision

ENVS = helpers.spaces(helpers.box(3), Discrete(2))


@contextlib.contextmanager
def dtype_policy(name):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def learner_in_bfloat16(envs, rate, **options):
    with dtype_policy("mixed_bfloat16"):
        policy = helpers.make_policy(envs, **options)
        critic = helpers.make_critic(envs, **options)
        scaling = ppo_tf.RewardScaling()
    return ppo_tf.Learner(
        *(policy, critic, keras.optimizers.SGD(rate)),
        reward_transformation=scaling,
        **{"minibatch_size": 16, "epochs": 1, "sequence_length": 8, "jit_compile": False},
    )


@pytest.mark.parametrize("cell", [None, "gru"])
def test_mixed_bfloat16_acts_and_learns(cell):
    envs = ppo_tf.make_envs("CartPole-v1", 2, backend="sync")
    learner = learner_in_bfloat16(envs, rate=0.0, cell=cell, normalize=False)
    part = learner.policy.actor.encoder if cell else learner.policy.actor
    hidden = next(x for x in part._flatten_layers() if isinstance(x, keras.layers.Dense))
    assert (hidden.compute_dtype, hidden.variable_dtype) == ("bfloat16", "float32")
    trajectory, _ = ppo_tf.VectorCollector(envs, learner.policy, 16, acting="tensorflow").collect()
    metrics = learner.update(trajectory)
    assert metrics["kl_k2"] < 1e-10 and metrics["clip_fraction"] == 0  # ratios of 1
    learner.optimizer.learning_rate = 0.1
    kernel = hidden.kernel.numpy()
    assert learner.update(trajectory)["kl"] > 1e-6
    assert (hidden.kernel.numpy() != kernel).any()
    envs.close()


def test_mixed_bfloat16_observes_in_float32_and_is_exported(tmp_path):
    learner = learner_in_bfloat16(ENVS, rate=0.0)
    policy, critic = learner.policy, learner.critic
    normalization = policy.actor.get_layer("normalization")
    normalization.variance.assign(np.full(3, 1e-6))
    normalization.mean.assign([1.0, 0, 0])
    near = tf.constant([[1.0, 0, 0], [1.001, 0, 0]])  # the same in bfloat16, which has eight bits
    logits = policy.parameters(near)["logits"]
    assert logits.dtype == tf.float32
    assert np.abs(logits[0] - logits[1]).max() > 1e-4

    policy.save(tmp_path / "policy.keras")
    again = keras.saving.load_model(tmp_path / "policy.keras")
    np.testing.assert_allclose(again.parameters(near)["logits"], logits, atol=1e-6)
    folder = ppo_tf.export_policy(policy, tmp_path / "policy", critic=critic)
    exported = tf.saved_model.load(folder).signatures["value"](observation=near)["value"]
    assert exported.dtype == tf.float32
    np.testing.assert_allclose(exported, critic(near), atol=0.01)


@pytest.mark.parametrize("name", ["mixed_float16", "float64"])
@pytest.mark.parametrize("argument", ["actor", "critic"])
def test_other_precisions_are_refused_by_name(name, argument):
    policy = helpers.make_policy(ENVS)
    with dtype_policy(name):
        make = helpers.make_critic if argument == "critic" else helpers.make_policy
        with pytest.raises(ValueError) as caught:
            ppo_tf.Learner(policy, make(ENVS))
    message = str(caught.value)
    assert message.startswith("Layers must compute in float32")
    assert f"Received: {argument} with the layer" in message and message.endswith(name)


def test_a_memory_computes_in_float32():
    cell = keras.layers.GRUCell(4, dtype="mixed_bfloat16")
    with pytest.raises(ValueError, match=r"outside of a memory.*'gru_cell.*of mixed_bfloat16"):
        helpers.make_policy(ENVS, cell=cell)


def test_another_default_float_is_refused():
    policy = helpers.make_policy(ENVS)
    keras.config.set_floatx("float64")
    try:
        with pytest.raises(ValueError, match=r"default float must be float32.*floatx\(\)='float64"):
            ppo_tf.Policy(policy.actor, policy.family, policy.action_map)
    finally:
        keras.config.set_floatx("float32")


def test_only_bfloat16_is_cast():
    given = {"a": tf.ones(2, tf.bfloat16), "b": [tf.ones(2, tf.int32), tf.ones(2)]}
    cast = precision.as_float32(given)
    assert [x.dtype for x in tf.nest.flatten(cast)] == [tf.float32, tf.int32, tf.float32]
    assert cast["b"][0] is given["b"][0]
