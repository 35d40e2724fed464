"""A simulator that sleeps 5 ms a step, as one does that waits for others."""

import time

import gymnasium
import numpy as np


class Sleeping(gymnasium.Env):
    """Episodes of 200 steps of noise."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (8,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        """Starts an episode."""
        super().reset(seed=seed)
        self.steps = 0
        return self.np_random.normal(size=8).astype(np.float32), {}

    def step(self, action):
        """Sleeps."""
        time.sleep(0.005)
        self.steps += 1
        observation = self.np_random.normal(size=8).astype(np.float32)
        return observation, float(np.sum(action)), False, self.steps == 200, {}


gymnasium.register("Sleeping-v0", Sleeping, disable_env_checker=True)
