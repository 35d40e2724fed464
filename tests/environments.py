"""Tiny Gymnasium environments with known answers. Call `register()` before creating one by id."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import gymnasium
import numpy as np
import probe_environments

COUNTING = "ppo_tf_tests/Counting-v0"
NAN_REWARD = "ppo_tf_tests/NaNReward-v0"
NAN_OBSERVATION = "ppo_tf_tests/NaNObservation-v0"
TEXT_OBSERVATION = "ppo_tf_tests/TextObservation-v0"
DICT_ACTION = "ppo_tf_tests/DictAction-v0"
NESTED_COUNTING = "ppo_tf_tests/NestedCounting-v0"
DRAWING = "ppo_tf_tests/Drawing-v0"
UNINSTALLED = "ppo_tf_tests/Uninstalled-v0"
UNINSTALLED_BOX2D = "ppo_tf_tests/UninstalledBox2D-v0"


def register() -> None:
    """Registers the environments; a second call does nothing."""
    for name, entry_point in {
        COUNTING: Counting,
        NAN_REWARD: NaNReward,
        NAN_OBSERVATION: NaNObservation,
        TEXT_OBSERVATION: TextObservation,
        DICT_ACTION: DictAction,
        NESTED_COUNTING: NestedCounting,
        DRAWING: Drawing,
        UNINSTALLED: "ppo_tf_tests_not_installed:Environment",
        UNINSTALLED_BOX2D: "ppo_tf_tests_not_installed.box2d:Environment",
    }.items():
        if name not in gymnasium.registry:
            gymnasium.register(name, entry_point, disable_env_checker=True)
    probe_environments.register()


class Counting(gymnasium.Env):
    """Observes (step within the episode, number of the episode); has two actions.

    Episode k of a seed lasts `length(k)` steps. It terminates if (first + k) is even and is
    truncated if it is odd, where `first` is drawn from the seed. Episodes are numbered from
    first * 100, so that seeds with different `first` share no observation.

    Args:
        longest: steps of the longest episode.
    """

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, longest: int = 7):
        self.longest = longest
        self.first = 0
        self.episode = -1
        self.step_index = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        if seed is not None:
            self.first, self.episode = int(self.np_random.integers(1000)), -1
        self.episode += 1
        self.step_index = 0
        return self._observation(), {}

    def step(self, action):
        reward = self.step_index + 0.25 * self.episode + 10.0 * int(action)
        self.step_index += 1
        done = self.step_index >= self.length(self.episode)
        terminates = (self.first + self.episode) % 2 == 0
        return self._observation(), reward, done and terminates, done and not terminates, {}

    def length(self, episode: int) -> int:
        """Returns the number of steps of an episode: 1 to `longest`."""
        return 1 + (self.first + 3 * episode) % self.longest

    def _observation(self):
        return np.array([self.step_index, 100.0 * self.first + self.episode], np.float32)


class Drawing(Counting):
    """Counting with an image: the step on the left, the last action on the right.

    Both are shown as a brightness of red, 25 per step modulo 10 and 200 for the action 1. Drawing
    fails if TensorFlow is loaded.

    Args:
        longest: see Counting.
        fault: what drawing does instead: "raise", "exit" the process, "hang" with its pipes closed,
            like a process that crashes slowly, or return "none".
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 (Gymnasium's way)

    def __init__(self, longest: int = 7, fault: str = "", render_mode: str | None = None):
        super().__init__(longest)
        self.fault, self.render_mode = fault, render_mode
        self.action = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        self.action = 0
        return super().reset(seed=seed, options=options)

    def step(self, action):
        self.action = int(action)
        return super().step(action)

    def render(self):
        print("drawing", file=sys.stderr)  # as drivers do
        if self.fault == "exit":
            os._exit(1)
        if self.fault == "hang":
            os.closerange(3, 1000)
            time.sleep(60)
        if self.fault == "raise" or "tensorflow" in sys.modules:
            raise OSError("no screen")
        if self.fault == "none":
            return None
        image = np.zeros((32, 64, 3), np.uint8)
        image[:, :32, 0], image[:, 32:, 0] = 25 * (self.step_index % 10), 200 * self.action
        return image


class _Bad(gymnasium.Env):
    """Returns `value` once, in its `at`-th step overall (from 0); episodes last `length` steps.

    With at=None it never returns it. It rejects actions that are not finite, as simulators do.
    """

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, at: int | None = 0, value: float = float("nan"), length: int = 4):
        self.at, self.value, self.length = at, value, length
        self.steps = 0
        self.step_index = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.step_index = 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        if not np.all(np.isfinite(action)):
            raise ValueError(f"the simulation is unstable with action {action}")
        bad = self.steps == self.at
        self.steps += 1
        self.step_index += 1
        observation = np.array([self.step_index, 0.0], np.float32)
        reward = 1.0
        if bad:
            observation, reward = self._spoil(observation, reward)
        return observation, reward, self.step_index >= self.length, False, {}


class NaNReward(_Bad):
    """The reward is bad."""

    def _spoil(self, observation, reward):
        return observation, self.value


class NaNObservation(_Bad):
    """The second component of the observation is bad."""

    def _spoil(self, observation, reward):
        return np.array([observation[0], self.value], np.float32), reward


class TextObservation(Counting):
    """Observations are text."""

    observation_space = gymnasium.spaces.Text(4)

    def _observation(self):
        return "text"


class DictAction(Counting):
    """Actions are dicts that contain text."""

    action_space = gymnasium.spaces.Dict({"gas": gymnasium.spaces.Text(2)})

    def step(self, action):
        return super().step(action["gas"])


class NestedCounting(Counting):
    """Counting with leaves of every kind, each of which shows the step within the episode."""

    observation_space = gymnasium.spaces.Dict(
        {
            "count": Counting.observation_space,
            "camera": gymnasium.spaces.Box(0, 255, (8, 8, 1), np.uint8),
            "pair": gymnasium.spaces.Tuple(
                (gymnasium.spaces.Discrete(100), gymnasium.spaces.MultiBinary(2))
            ),
        }
    )
    action_space = gymnasium.spaces.Dict(
        {"press": gymnasium.spaces.Discrete(2), "dials": gymnasium.spaces.MultiDiscrete([2, 3])}
    )

    def step(self, action):
        assert self.action_space.contains(action), action
        return super().step(action["press"])

    def _observation(self):
        step = self.step_index
        return {
            "count": super()._observation(),
            "camera": np.full((8, 8, 1), step, np.uint8),
            "pair": (np.int64(step), np.array([step % 2, 1], np.int8)),
        }


class EmptyMask(gymnasium.Env):
    """Masks all actions in its `at`-th step overall (from 0), and at the end of every episode.

    Episodes last `length` steps. With at=None there is always a valid action to take.
    """

    observation_space = gymnasium.spaces.Dict(
        {
            "observation": gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32),
            "action_mask": gymnasium.spaces.MultiBinary(3),
        }
    )
    action_space = gymnasium.spaces.Discrete(3)

    def __init__(self, at: int | None = None, length: int = 3):
        self.at, self.length = at, length
        self.steps = self.left = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.left = self.length
        return self._observe(), {}

    def step(self, action):
        self.steps += 1
        self.left -= 1
        return self._observe(), 1.0, self.left == 0, False, {}

    def _observe(self):
        valid = self.left > 0 and self.steps != self.at
        mask = np.array([0, valid, 0], np.int8)
        return {"observation": np.zeros(1, np.float32), "action_mask": mask}
