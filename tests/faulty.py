"""An environment that fails in a way of choice, registered for commands run in other processes.

`PYTHONPATH=tests ppo-tf train --env=faulty:Faulty-raise-20-v0`; there is an id per fault and place.
"""

from __future__ import annotations

import contextlib
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


class Stopped(KeyboardInterrupt):
    """What some libraries make of Ctrl-C."""


class Faulty(gymnasium.Env):
    """Episodes of 8 steps; an environment reset with an odd seed commits its fault.

    Args:
        fault: what it does.
        place: when: "make" (every environment), "make3" (the third in a process), "reset" (the
            first), "again" (the first reset from step AT on), "close", or a number of steps.
    """

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (3,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    made = 0  # in this process

    def __init__(self, fault: str, place: str | int = AT):
        self.fault, self.place, self.steps, self.bad = fault, place, 0, False
        Faulty.made += 1
        if place == "make" or (place == "make3" and Faulty.made == 3):
            self.commit()

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        if seed is not None:
            self.bad = seed % 2 == 1
        if self.bad and (self.place == "reset" or (self.place == "again" and self.steps >= AT)):
            observation, _, info = self.commit()
            return observation, info
        return np.zeros(3, np.float32), {}

    def step(self, action):
        observation, reward, info = np.zeros(3, np.float32), 1.0, {}
        if self.steps == self.place and self.bad:
            observation, reward, info = self.commit()
        self.steps += 1
        if os.environ.get("FAULT", self.fault) == "three" and self.steps > AT and self.bad:
            return observation, reward, info
        return observation, reward, self.steps % 8 == 0, False, info

    def close(self):
        if self.fault == "stuck" and self.bad:
            time.sleep(1000)
        if self.place == "close" and self.steps and self.bad:
            self.commit()

    def commit(self):
        """Commits the fault; returns the observation, reward and info."""
        observation, reward, info = np.zeros(3, np.float32), 1.0, {}
        match os.environ.get("FAULT", self.fault):  # FAULT=no: the cause was removed
            case "raise" | "stuck":
                raise RuntimeError("the motor\nis broken")
            case "value":
                raise ValueError("no such motor")
            case "exit":
                sys.exit(0)
            case "base":
                raise BaseException("none of yours")
            case "interrupt":
                raise Stopped("stop")
            case "generator":
                raise GeneratorExit
            case "iteration":
                raise StopIteration
            case "memory":
                np.empty(2**60)
            case "recursion":
                self.commit()
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
            case "nothing":
                observation = None
            case "shape":
                observation = np.zeros(1, np.float32)
            case "words":
                observation = "left"
            case "complex":
                observation = np.zeros(3, np.complex64)
            case "nan":
                observation = np.full(3, np.nan, np.float32)
            case "array":
                reward = np.ones(1)
            case "text":
                reward = "1.5"
            case "unpaid":
                reward = None
            case "infinite":
                reward = float("inf")
            case "crash":
                os._exit(3)
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "hang":
                time.sleep(1000)
            case "spin":
                while True:
                    with contextlib.suppress(Exception):
                        time.sleep(0.01)
        return observation, reward, info


RAISED = (
    "raise stuck value exit base interrupt generator iteration memory recursion unpicklable thread"
)
SEEN = "none list lock nothing shape words complex nan"
PAID = "array text unpaid infinite three"
DEAD = "crash kill stop hang spin"
PLACES = ["make", "make3", "reset", "again", "close", 0, AT]

for name in f"{RAISED} {SEEN} {PAID} {DEAD}".split():
    for place in PLACES:
        gymnasium.register(
            f"Faulty-{name}-{place}-v0",
            Faulty,
            disable_env_checker=True,
            kwargs={"fault": name, "place": place},
        )
