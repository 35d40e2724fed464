"""An environment that fails when a test wants it to; needs no TensorFlow, as workers import it."""

from typing import ClassVar

import gymnasium
import numpy as np


class Shaky(gymnasium.Env):
    """Random walks; `Shaky.faults` says at which total step of a process which environment fails.

    Args:
        honest: whether a seed decides what happens.
    """

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    faults: ClassVar = []  # functions of an environment, each called at every step
    made = 0

    def __init__(self, honest=True):
        self.honest, self.steps = honest, 0
        Shaky.made += 1
        self.number = Shaky.made

    def _observe(self):
        noise = 0.0 if self.honest else self.number
        return self.np_random.normal(size=2).astype(np.float32) + np.float32(noise)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seed = seed if seed is not None else self.__dict__.get("seed")
        self.steps = 0
        return self._observe(), {}

    def step(self, action):
        self.steps += 1
        for fault in Shaky.faults:
            fault(self)
        done = bool(self.np_random.random() < 0.2)
        return self._observe(), float(self.np_random.normal() + action), done, False, {}


gymnasium.register("Shaky-v0", Shaky, disable_env_checker=True)
