"""Probe environments with known answers, which training must find."""

import gymnasium
import keras
import numpy as np
import pytest

import ppo_tf

GAMMA = 0.5


class Probe(gymnasium.Env):
    """Episodes of fixed length, in which the observation is one number.

    Args:
        length: steps per episode.
        reward: function of (observation, step, action).
        truncate: whether the episode ends by truncation instead of termination.
        observe: function of (random generator, step) to the observation.
    """

    observation_space = gymnasium.spaces.Box(-2.0, 2.0, (1,))
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, length, reward, truncate=False, observe=lambda rng, step: step):
        self.length, self.reward, self.truncate, self.observe = length, reward, truncate, observe

    def _observe(self):
        self.observation = np.array([self.observe(self.np_random, self.step_count)], np.float32)
        return self.observation

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.step_count = 0
        return self._observe(), {}

    def step(self, action):
        reward = self.reward(float(self.observation[0]), self.step_count, action)
        self.step_count += 1
        done = self.step_count == self.length
        return self._observe(), reward, done and not self.truncate, done and self.truncate, {}


def train(estimator=None, loss=None, mode="SameStep", iterations=40, **options):
    envs = gymnasium.vector.SyncVectorEnv([lambda: Probe(**options)] * 4, autoreset_mode=mode)
    envs.reset(seed=0)
    network = {"hidden_sizes": (16,), "normalize": False, "seed": 0}
    learner = ppo_tf.Learner(
        ppo_tf.mlp_policy(envs, **network),
        ppo_tf.mlp_critic(envs, **network),
        keras.optimizers.Adam(0.02),
        estimator or ppo_tf.GAE(GAMMA, 0.95),
        loss,
        epochs=4,
        minibatch_size=16,
        jit_compile=False,
    )
    ppo_tf.fit(learner, envs, total_steps=iterations * 64, horizon=16)
    return learner


def coin(rng, step):
    return rng.choice([-1.0, 1.0])


def values(learner, *observations):
    return learner.critic(np.array(observations, np.float32)[:, None]).numpy()


def test_a_constant_reward_has_value_one():
    learner = train(length=1, reward=lambda o, t, a: 1.0)
    np.testing.assert_allclose(values(learner, 0.0), 1.0, atol=0.05)


def test_the_value_follows_the_observation():
    learner = train(length=1, reward=lambda o, t, a: o, observe=coin)
    np.testing.assert_allclose(values(learner, -1.0, 1.0), [-1.0, 1.0], atol=0.1)


@pytest.mark.parametrize(
    "estimator", [ppo_tf.GAE(GAMMA, 0.95), ppo_tf.NStep(1, GAMMA), ppo_tf.RewardToGo(GAMMA)]
)
@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_a_delayed_reward_is_discounted(estimator, mode):
    learner = train(estimator, mode=mode, length=2, reward=lambda o, t, a: float(t == 1))
    np.testing.assert_allclose(values(learner, 0.0, 1.0), [GAMMA, 1.0], atol=0.05)


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
@pytest.mark.parametrize(
    ("truncate", "value"),
    [
        # To the value, reward 1 for ever: 1 + gamma + gamma^2 + ...
        (True, 1.0 / (1.0 - GAMMA)),
        # Three rewards in states that look the same: the mean of 1.75, 1.5 and 1.
        (False, (1.75 + 1.5 + 1.0) / 3.0),
    ],
)
def test_a_truncation_is_bootstrapped_and_a_termination_is_not(mode, truncate, value):
    learner = train(
        ppo_tf.RewardToGo(GAMMA),
        mode=mode,
        length=3,
        reward=lambda o, t, a: 1.0,
        truncate=truncate,
        observe=lambda rng, step: 0.0,
    )
    np.testing.assert_allclose(values(learner, 0.0), value, atol=0.1)


@pytest.mark.parametrize("loss", [ppo_tf.Clip(), ppo_tf.KLPenalty(0.1), ppo_tf.PolicyGradient()])
def test_the_rewarded_action_is_found(loss):
    learner = train(loss=loss, length=1, observe=coin, reward=lambda o, t, a: float(a == (o > 0)))
    logits = learner.policy.actor(np.array([[-1.0], [1.0]], np.float32))["logits"]
    probabilities = keras.ops.softmax(logits).numpy()
    assert probabilities[0, 0] > 0.95 and probabilities[1, 1] > 0.95
