"""The deterministic action of a policy."""

import gymnasium
import helpers
import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import ppo_tf

tfd = tfp.distributions


def constant_policy(family, **parameters):
    """A policy whose actor returns the same parameters in every state."""
    inputs = keras.Input((3,))
    outputs = {}
    for name, value in parameters.items():
        layer = keras.layers.Dense(len(value), kernel_initializer="zeros", name=name)
        outputs[name] = layer(inputs)
        layer.bias.assign(value)
    return ppo_tf.Policy(keras.Model(inputs, outputs), family, lambda raw: raw)


def test_the_mode_falls_back_to_the_mean_where_there_is_none():
    def beta(concentration1, concentration0):
        return tfd.Independent(tfd.Beta(concentration1, concentration0), 1)

    policy = constant_policy(beta, concentration1=[3.0, 1.0, 1.0], concentration0=[2.0, 1.0, 4.0])
    # Mode (3 - 1) / (3 + 2 - 2); no mode within (0, 1), so means 1 / 2 and 1 / 5.
    np.testing.assert_allclose(
        policy(np.zeros((2, 3), np.float32)), [[2 / 3, 0.5, 0.2]] * 2, rtol=1e-6
    )


def test_the_mean_replaces_a_mode_that_tfp_does_not_implement():
    def mixture(loc):
        components = tfd.Normal(tf.stack([loc[:, 0], loc[:, 1]], axis=-1), 1.0)
        return tfd.MixtureSameFamily(tfd.Categorical(probs=[0.25, 0.75]), components)

    policy = constant_policy(mixture, loc=[0.0, 4.0])
    np.testing.assert_allclose(policy(np.zeros((2, 3), np.float32)), [3.0, 3.0], rtol=1e-6)


def test_the_mode_of_a_categorical_is_the_likeliest_category():
    spec = ppo_tf.action_spec(gymnasium.spaces.Discrete(3, start=5))
    policy = constant_policy(spec.family, logits=[0.0, 2.0, 1.0])
    action = spec.action_map(policy.mode(np.zeros((2, 3), np.float32)))
    assert action.numpy().tolist() == [6, 6]


def test_missing_parts_of_a_joint_are_named():
    spec = ppo_tf.action_spec(helpers.HYBRID)
    inputs = keras.Input((3,))
    features = keras.layers.Dense(4)(inputs)
    outputs = {path: {"logits": keras.layers.Dense(3)(features)} for path in ("move", "lamps")}
    with pytest.raises(ValueError, match=r"parts.*Received: outputs=\['lamps', 'move'\].*'arm/0'"):
        ppo_tf.Policy(keras.Model(inputs, outputs), spec.family, spec.action_map)
    outputs = {path: {"logits": keras.layers.Dense(3)(features)} for path in spec.parameters}
    with pytest.raises(
        ValueError, match=r"output names must be .*'logits'.*MultivariateNormalDiag"
    ):
        ppo_tf.Policy(keras.Model(inputs, outputs), spec.family, spec.action_map)


def squashed(loc, scale_diag):
    """A Gaussian through tanh, which has neither mode nor mean in TFP."""
    normal = tfd.MultivariateNormalDiag(loc, scale_diag)
    return tfd.TransformedDistribution(normal, tfp.bijectors.Tanh())


WITHOUT_MODE = r"must have a mode or a mean.*Received: tfp.distributions.Transformed"


def test_a_distribution_without_mode_and_mean_is_refused_with_the_policy():
    with pytest.raises(ValueError, match=WITHOUT_MODE):
        constant_policy(squashed, loc=[0.0], scale_diag=[1.0])
    envs = helpers.spaces(helpers.masked(gymnasium.spaces.Discrete(2)), helpers.box(1))
    spec = ppo_tf.action_spec(envs.single_action_space)
    actor = ppo_tf.recurrent_actor(envs, spec, units=4, mask_key=None)
    with pytest.raises(ValueError, match=WITHOUT_MODE):
        ppo_tf.Policy(actor, squashed, spec.action_map)


def test_a_subclassed_actor_is_checked_before_training():
    class Actor(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(1)

        def call(self, observations):
            loc = self.dense(observations)
            return {"loc": loc, "scale_diag": tf.ones_like(loc)}

    actor = Actor()
    actor(np.zeros((1, 3), np.float32))
    policy = ppo_tf.Policy(actor, squashed, lambda raw: raw)
    envs = gymnasium.make_vec("Pendulum-v1", num_envs=2)
    with pytest.raises(ValueError, match=WITHOUT_MODE):
        ppo_tf.VectorCollector(envs, policy, horizon=4)
    envs.close()
