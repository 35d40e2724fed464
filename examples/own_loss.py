"""A policy loss of your own: the surrogate with a KL penalty that is estimated from the samples.

python examples/own_loss.py
"""

from dataclasses import dataclass

import ppo_tf  # first, so that TensorFlow loads without its start-up messages
import tensorflow as tf


@dataclass(frozen=True)
class SampledKLPenalty:
    """L = beta k3 - r A with r = pi_new / pi_old and k3 = (r - 1) - log r   (Schulman 2020).

    The mean of k3 over the samples estimates KL(old || new), and k3 is never negative.
    """

    beta: float = 1.0

    def __call__(self, new_dist, old_dist, actions, advantages):
        """Returns (loss, metrics by name), per sample."""
        log_ratio = new_dist.log_prob(actions) - old_dist.log_prob(actions)
        k3 = tf.math.expm1(log_ratio) - log_ratio
        return self.beta * k3 - tf.exp(log_ratio) * advantages, {"k3": k3}


def main(total_steps=60_000):
    """Trains on CartPole-v1, whose best return is 500."""
    envs = ppo_tf.make_envs("CartPole-v1", num_envs=8, seed=0)
    learner = ppo_tf.Learner(
        ppo_tf.mlp_policy(envs, seed=1),
        ppo_tf.mlp_critic(envs, seed=2),
        ppo_tf.default_optimizer(1e-3),
        ppo_tf.GAE(gamma=0.98),
        SampledKLPenalty(),
        reward_transformation=ppo_tf.RewardScaling(gamma=0.98),
    )
    before = ppo_tf.evaluate(learner.policy, "CartPole-v1", episodes=20)
    logs = ppo_tf.fit(learner, envs, total_steps=total_steps)
    after = ppo_tf.evaluate(learner.policy, "CartPole-v1", episodes=20)
    envs.close()
    print(f"return {before.mean:.1f} before training, {after.mean:.1f} after")
    print(f"k3 of the last update: {logs['train/k3'][-1]:.4f} nats")


if __name__ == "__main__":
    main()
