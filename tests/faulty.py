"""An environment that fails in a way of choice, registered for commands run in other processes.

`PYTHONPATH=tests ppo-tf train --env=faulty:Faulty-raise-v0`; there is an id per fault.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import Any

import gymnasium
import numpy as np

AT = 20  # the step of the fault, after at least one reset


class Unpicklable(Exception):
    """An exception that can't be sent to another process, whose message is lost, too."""

    def __init__(self, lock: Any):
        super().__init__(lock)

    def __str__(self) -> str:
        raise TypeError("no message")


class Faulty(gymnasium.Env):
    """Episodes of 8 steps; an environment reset with an odd seed commits its fault in step AT.

    Args:
        fault: what it does.
    """

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (3,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, fault: str):
        self.fault, self.steps, self.bad = fault, 0, False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        if seed is not None:
            self.bad = seed % 2 == 1
        if self.fault == "reset" and self.bad and self.steps >= AT:
            raise RuntimeError("no reset")
        return np.zeros(3, np.float32), {}

    def step(self, action):
        observation, reward, info = np.zeros(3, np.float32), 1.0, {}
        if self.steps == AT and self.bad:
            observation, reward, info = self.commit(observation)
        self.steps += 1
        return observation, reward, self.steps % 8 == 0, False, info

    def close(self):
        if self.fault == "close" and self.steps >= AT and self.bad:
            time.sleep(1000)

    def commit(self, observation):
        """Commits the fault; returns the observation, reward and info."""
        reward, info = 1.0, {}
        match self.fault:
            case "raise" | "close":
                raise RuntimeError("the motor\nis broken")
            case "exit":
                sys.exit(0)
            case "base":
                raise BaseException("none of yours")
            case "unpicklable":
                raise Unpicklable(threading.Lock())
            case "thread":
                threading.Thread(target=time.sleep, args=(1000,)).start()
                raise RuntimeError("a thread is left")
            case "none":
                info = None
            case "list":
                info = [1, 2]
            case "lock":
                info = {"lock": threading.Lock()}
            case "shape":
                observation = np.zeros(1, np.float32)
            case "words":
                observation = "left"
            case "array":
                reward = np.ones(1)
            case "text":
                reward = "1.5"
            case "crash":
                os._exit(3)
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "hang":
                time.sleep(1000)
        return observation, reward, info


FAULTS = "raise exit base unpicklable thread reset none list lock shape words array text crash kill"

for name in [*FAULTS.split(), "stop", "hang", "close"]:
    gymnasium.register(
        f"Faulty-{name}-v0", Faulty, disable_env_checker=True, kwargs={"fault": name}
    )
