"""An estimator, a loss, a distribution and a model of one's own, each trained for real.

python examples/custom_components.py
"""

import functools
import sys
from dataclasses import dataclass

import ppo_tf

pendulum, cartpole = "Pendulum-v1", "CartPole-v1"
policy_of = functools.partial(ppo_tf.mlp_policy, seed=1)  # TensorFlow loads here, quietly
critic_of = functools.partial(ppo_tf.mlp_critic, seed=2)

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402
import tensorflow_probability as tfp  # noqa: E402

tfd = tfp.distributions


# 1. An estimator is any callable with these arguments: the one-step advantage.
@dataclass(frozen=True)
class TD0:
    """A_t = r_t + gamma (1 - terminated_t) V(s_{t+1}) - V(s_t)."""

    gamma: float = 0.98

    def __call__(self, *, rewards, values, next_values, terminated, truncated):
        """Returns (advantages, targets)."""
        alive = 1.0 - tf.cast(terminated, rewards.dtype)
        targets = rewards + self.gamma * alive * next_values
        return targets - values, targets


# 2. A loss is any callable with these: truly proximal PPO's penalty on k3, no clipping at all.
@dataclass(frozen=True)
class SampledKLPenalty:
    """L = -(r A - beta ((r - 1) - log r)), a KL penalty estimated from the samples."""

    beta: float = 1.0

    def __call__(self, *, new_dist, old_dist, actions, advantages):
        """Returns (loss, metrics), per sample."""
        log_ratio = new_dist.log_prob(actions) - old_dist.log_prob(actions)
        k3 = tf.math.expm1(log_ratio) - log_ratio
        return self.beta * k3 - tf.exp(log_ratio) * advantages, {"k3": k3}


# 3. A distribution is any callable from the actor's outputs, by name, to a TFP distribution.
@keras.saving.register_keras_serializable("examples")
def beta_distribution(alpha, beta):
    """A Beta per action element, on [0, 1]; both parameters above 1, so that it has one mode."""
    # Not 1.0: softplus underflows to 0, and a Beta with a concentration of 1 has no mode in TFP.
    above_one = [1.01 + tf.nn.softplus(x) for x in (alpha, beta)]
    return tfd.Independent(tfd.Beta(*above_one), reinterpreted_batch_ndims=1)


@keras.saving.register_keras_serializable("examples")
def torque(raw):
    """From [0, 1] to Pendulum's torque in [-2, 2] N m."""
    return 4.0 * raw - 2.0


def beta_policy(envs):
    """A policy of one's own distribution: an actor with its parameters' names, and a map."""
    actor = ppo_tf.mlp(envs, {"alpha": 1, "beta": 1}, seed=1)
    return ppo_tf.Policy(actor, beta_distribution, torque)


# 4. A model is any Keras model with the right output names: here with residual blocks.
def residual_policy(envs):
    """A policy with an actor built by hand."""
    inputs, x = ppo_tf.models.observation_features(envs.single_observation_space)
    x = keras.layers.Dense(64)(x)
    for _ in range(2):
        x = x + keras.layers.Dense(64, activation="tanh")(keras.layers.LayerNormalization()(x))
    logits = keras.layers.Dense(2, name="logits")(x)
    spec = ppo_tf.action_spec(envs.single_action_space)
    return ppo_tf.Policy(keras.Model(inputs, {"logits": logits}), spec.family, spec.action_map)


def train(name, env_id, make_policy, *, gamma, estimator=None, loss=None):
    """Trains for 60,000 steps and prints the evaluation; returns its mean return."""
    envs = ppo_tf.make_envs(env_id, num_envs=8, seed=0)
    learner = ppo_tf.Learner(
        make_policy(envs),
        critic_of(envs),
        ppo_tf.default_optimizer(1e-3),
        estimator or ppo_tf.GAE(gamma),
        loss,
        reward_transformation=ppo_tf.RewardScaling(gamma),
    )
    before = ppo_tf.evaluate(learner.policy, env_id, episodes=20)
    ppo_tf.fit(learner, envs, total_steps=60_000, horizon=256)
    after = ppo_tf.evaluate(learner.policy, env_id, episodes=20)
    envs.close()
    print(f"{name:34} {env_id}: return {before.mean:8.1f} -> {after.mean:8.1f}", flush=True)
    return after.mean


def main():
    """Trains all four."""
    train("estimator: TD0", cartpole, policy_of, gamma=0.98, estimator=TD0())
    train("loss: sampled KL penalty", cartpole, policy_of, gamma=0.98, loss=SampledKLPenalty())
    train("distribution: Beta", pendulum, beta_policy, gamma=0.9)
    train("model: residual blocks", cartpole, residual_policy, gamma=0.98)


if __name__ == "__main__":
    sys.exit(main())
