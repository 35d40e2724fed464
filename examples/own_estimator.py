"""An advantage estimator of your own: the one-step temporal difference.

python examples/own_estimator.py
"""

from dataclasses import dataclass

import ppo_tf  # first, so that TensorFlow loads without its start-up messages
import tensorflow as tf


@dataclass(frozen=True)
class TemporalDifference:
    """A_t = r_t + gamma (1 - terminated_t) V(s_{t+1}) - V(s_t)   (Sutton 1988)."""

    gamma: float = 0.98

    def __call__(self, rewards, values, next_values, terminated):
        """All [T, B]; returns (advantages, targets)."""
        alive = 1.0 - tf.cast(terminated, rewards.dtype)
        targets = rewards + self.gamma * alive * next_values
        return targets - values, targets


def main(total_steps=60_000):
    """Trains on CartPole-v1, whose best return is 500."""
    envs = ppo_tf.make_envs("CartPole-v1", num_envs=8, seed=0)
    learner = ppo_tf.Learner(
        ppo_tf.mlp_policy(envs, seed=1),
        ppo_tf.mlp_critic(envs, seed=2),
        ppo_tf.default_optimizer(1e-3),
        estimator=TemporalDifference(),
        reward_transformation=ppo_tf.RewardScaling(gamma=0.98),
        recompute_advantages=True,  # every epoch, as values travel one step at a time
    )
    before = ppo_tf.evaluate(learner.policy, "CartPole-v1", episodes=20)
    ppo_tf.fit(learner, envs, total_steps=total_steps)
    after = ppo_tf.evaluate(learner.policy, "CartPole-v1", episodes=20)
    envs.close()
    print(f"return {before.mean:.1f} before training, {after.mean:.1f} after")


if __name__ == "__main__":
    main()
