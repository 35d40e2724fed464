"""An environment of your own, registered with Gymnasium: a cart is to stop at the origin.

python examples/own_environment.py
"""

import ppo_tf
import gymnasium
import numpy as np


class Docking(gymnasium.Env):
    """Observes position and velocity, in metres and metres per second; the action accelerates."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
    seconds = 0.1  # per step

    def reset(self, *, seed=None, options=None):
        """Starts at rest, up to 2 m from the origin."""
        super().reset(seed=seed)
        self.state = np.array([self.np_random.uniform(-2.0, 2.0), 0.0], np.float32)
        return self.state.copy(), {}

    def step(self, action):
        """The reward is minus the distance; whoever leaves the track has crashed."""
        self.state[1] += self.seconds * action[0]
        self.state[0] += self.seconds * self.state[1]
        distance = float(abs(self.state[0]))
        crashed = distance > 4.0
        return self.state.copy(), -100.0 if crashed else -distance, crashed, False, {}


gymnasium.register("Docking-v0", Docking, max_episode_steps=100)


def main(total_steps=60_000):
    """Trains on it."""
    envs = ppo_tf.make_envs("Docking-v0", num_envs=8, seed=0)
    learner = ppo_tf.Learner(ppo_tf.mlp_policy(envs, seed=1), ppo_tf.mlp_critic(envs, seed=2))
    before = ppo_tf.evaluate(learner.policy, "Docking-v0", episodes=20)
    ppo_tf.fit(learner, envs, total_steps=total_steps)
    after = ppo_tf.evaluate(learner.policy, "Docking-v0", episodes=20)
    envs.close()
    print(f"return {before.mean:.1f} before training, {after.mean:.1f} after")


if __name__ == "__main__":
    main()
