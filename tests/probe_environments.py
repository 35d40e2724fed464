"""Environments with a known best mean return, each of which needs one ability.

Every docstring gives the mean return of the best policy and of a random one.
`environments.register()` registers them.
"""

from __future__ import annotations

import copy
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

IDENTITY_DISCRETE = "ppo_tf_tests/IdentityDiscrete-v0"
IDENTITY_MULTI_DISCRETE = "ppo_tf_tests/IdentityMultiDiscrete-v0"
IDENTITY_MULTI_BINARY = "ppo_tf_tests/IdentityMultiBinary-v0"
IDENTITY_BOX = "ppo_tf_tests/IdentityBox-v0"
IDENTITY_TUPLE = "ppo_tf_tests/IdentityTuple-v0"
IDENTITY_DICT = "ppo_tf_tests/IdentityDict-v0"
MASKED = "ppo_tf_tests/Masked-v0"
MASKED_BY_INFO = "ppo_tf_tests/MaskedByInfo-v0"
MEMORY = "ppo_tf_tests/Memory-v0"
IMAGE_AND_VECTOR = "ppo_tf_tests/ImageAndVector-v0"
SECRET = "ppo_tf_tests/Secret-v0"
CARTPOLE_HIDDEN_VELOCITY = "ppo_tf_tests/CartPoleHiddenVelocity-v0"

_VALUE = spaces.Box(-1.0, 1.0, (1,), np.float32)


class Identity(gymnasium.Env):
    """Shows a random element of the action space, to be repeated. One step.

    The observation holds one-hot categories, bits and numbers in one vector. Reward: the fraction
    of categories or bits that are right, and minus the mean distance in a Box; summed over the
    parts of a Tuple or Dict. Best: 1 per part, 0 for a Box. Random: 1/n per category of n, 1/2 per
    bit, -2/3 for the Box [-1, 1].

    Args:
        action_space: Discrete, MultiDiscrete, MultiBinary or Box in [-1, 1], or composite of these.
    """

    def __init__(self, action_space: spaces.Space):
        self.action_space = action_space
        shown = _encode(action_space, _draw(action_space, np.random.default_rng(0)))
        self.observation_space = spaces.Box(-1.0, 1.0, shown.shape, np.float32)
        self.target: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.target = _draw(self.action_space, self.np_random)
        return _encode(self.action_space, self.target), {}

    def step(self, action):
        reward = _score(self.action_space, action, self.target)
        return _encode(self.action_space, self.target), reward, True, False, {}


class Masked(gymnasium.Env):
    """Four actions pay 0, 1/3, 2/3 and 1; the last is never valid, the third half of the time.

    Masks are drawn at random in every step; in the final observation no action is valid. Best: 1/2,
    from 2/3 if the third action is valid and 1/3 otherwise. Random among valid actions: 1/4. A
    policy that ignores the mask prefers an invalid action, which pays 1 or raises.

    Args:
        by_info: whether the mask is in the info instead of the observation, under "action_mask".
        strict: whether an invalid action raises a ValueError.
        length: steps of an episode.
    """

    action_space = spaces.Discrete(4)

    def __init__(self, by_info: bool = False, strict: bool = True, length: int = 1):
        self.by_info, self.strict, self.length = by_info, strict, length
        inner = spaces.Box(0.0, 1.0, (1,), np.float32)
        self.observation_space: spaces.Space = inner
        if not by_info:
            self.observation_space = spaces.Dict(
                {"observation": inner, "action_mask": spaces.MultiBinary(4)}
            )
        self.mask = np.zeros(4, np.int8)
        self.left = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.left = self.length
        return self._observe()

    def step(self, action):
        if self.strict and not self.mask[action]:
            raise ValueError(f"invalid action {action} where the mask is {self.mask}")
        self.left -= 1
        observation, info = self._observe()
        return observation, int(action) / 3, self.left == 0, False, info

    def _observe(self):
        self.mask = np.array([1, 1, self.np_random.integers(2), 0], np.int8)
        if self.left == 0:
            self.mask[:] = 0
        observation = np.zeros(1, np.float32)
        if self.by_info:
            return observation, {"action_mask": self.mask}
        return {"observation": observation, "action_mask": self.mask}, {}


class Memory(gymnasium.Env):
    """A cue of -1 or 1 is visible only at t = 0; the action at t = `delay` must match its sign.

    Observation: (the cue at t = 0, otherwise 0; t / delay). Actions: 0 for -1, 1 for 1; only the
    last has an effect. The episode has delay + 1 steps. Best: 1. Random, or without memory: 1/2.
    """

    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, delay: int = 16):
        self.delay = delay
        self.cue = self.time = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.cue, self.time = int(self.np_random.integers(2)), 0
        return np.array([2 * self.cue - 1, 0], np.float32), {}

    def step(self, action):
        last = self.time == self.delay
        reward = float(last and int(action) == self.cue)
        self.time += not last
        return np.array([0, self.time / self.delay], np.float32), reward, last, False, {}


class ImageAndVector(gymnasium.Env):
    """A bright square is left or right in a noisy image; a bit tells whether to point away from it.

    Observation: image uint8 [size, size, 1]; vector float [2], the bit one-hot. Actions: 0 left, 1
    right. One step. Best: 1. Random, or from image or vector alone: 1/2.
    """

    action_space = spaces.Discrete(2)

    def __init__(self, size: int = 16):
        self.size = size
        self.observation_space = spaces.Dict(
            {
                "image": spaces.Box(0, 255, (size, size, 1), np.uint8),
                "vector": spaces.Box(0.0, 1.0, (2,), np.float32),
            }
        )
        self.right = 0
        self.observation: dict[str, np.ndarray] = {}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        side, away = self.np_random.integers(2, size=2)
        self.right = int(side ^ away)
        image = self.np_random.integers(0, 64, (self.size, self.size, 1), np.uint8)
        half, edge = self.size // 2, self.size // 4
        row = self.np_random.integers(self.size - edge + 1)
        column = side * half + self.np_random.integers(half - edge + 1)
        image[row : row + edge, column : column + edge] = 255
        self.observation = {"image": image, "vector": np.eye(2, dtype=np.float32)[away]}
        return copy.deepcopy(self.observation), {}

    def step(self, action):
        return copy.deepcopy(self.observation), float(int(action) == self.right), True, False, {}


class Secret(gymnasium.Env):
    """Repeating a visible bit pays 1; in addition, the reward has 5 times a secret of -1 or 1.

    Observation: "observation" float [2], the bit one-hot, and "secret" float [1], which a critic
    may see: then its value is exact, 1 + 5 secret under the best policy; otherwise it has a squared
    error of 25. One step. Best: 1. Random: 1/2. The standard deviation of a return is 5.
    """

    action_space = spaces.Discrete(2)
    observation_space = spaces.Dict(
        {"observation": spaces.Box(0.0, 1.0, (2,), np.float32), "secret": _VALUE}
    )

    def __init__(self):
        self.bit, self.observation = 0, {}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.bit, secret = (int(draw) for draw in self.np_random.integers(2, size=2))
        self.observation = {
            "observation": np.eye(2, dtype=np.float32)[self.bit],
            "secret": np.array([2 * secret - 1], np.float32),
        }
        return copy.deepcopy(self.observation), {}

    def step(self, action):
        reward = float(int(action) == self.bit) + 5.0 * float(self.observation["secret"][0])
        return copy.deepcopy(self.observation), reward, True, False, {}


class HiddenVelocity(gymnasium.ObservationWrapper):
    """CartPole-v1 with position and angle in the observation, but not their velocities.

    Best: 500, the maximum number of steps, which takes memory. Random: about 22.
    """

    def __init__(self, render_mode: str | None = None):
        from gymnasium.envs.classic_control import CartPoleEnv

        super().__init__(CartPoleEnv(render_mode=render_mode))
        box = self.env.observation_space
        self.observation_space = spaces.Box(box.low[[0, 2]], box.high[[0, 2]], dtype=np.float32)

    def observation(self, observation):
        return observation[[0, 2]]


def _identity(space: spaces.Space) -> tuple[type, dict[str, Any]]:
    return Identity, {"action_space": space}


# {id: (class, arguments)}
ENVIRONMENTS: dict[str, tuple[type, dict[str, Any]]] = {
    IDENTITY_DISCRETE: _identity(spaces.Discrete(4)),
    IDENTITY_MULTI_DISCRETE: _identity(spaces.MultiDiscrete([2, 3])),
    IDENTITY_MULTI_BINARY: _identity(spaces.MultiBinary(3)),
    IDENTITY_BOX: _identity(spaces.Box(-1.0, 1.0, (2,), np.float32)),
    IDENTITY_TUPLE: _identity(spaces.Tuple((spaces.Discrete(3), _VALUE))),
    IDENTITY_DICT: _identity(spaces.Dict({"choice": spaces.Discrete(3), "value": _VALUE})),
    MASKED: (Masked, {}),
    MASKED_BY_INFO: (Masked, {"by_info": True}),
    MEMORY: (Memory, {}),
    IMAGE_AND_VECTOR: (ImageAndVector, {}),
    SECRET: (Secret, {}),
}


def register() -> None:
    """Registers the environments; a second call does nothing."""
    for name, (entry_point, kwargs) in ENVIRONMENTS.items():
        if name not in gymnasium.registry:
            gymnasium.register(name, entry_point, disable_env_checker=True, kwargs=kwargs)
    if CARTPOLE_HIDDEN_VELOCITY not in gymnasium.registry:
        gymnasium.register(CARTPOLE_HIDDEN_VELOCITY, HiddenVelocity, max_episode_steps=500)


def _parts(space: spaces.Space) -> list[tuple[Any, spaces.Space]]:
    if isinstance(space, spaces.Dict):
        return list(space.spaces.items())
    return list(enumerate(space.spaces))


def _draw(space: spaces.Space, random: np.random.Generator) -> Any:
    if isinstance(space, spaces.Dict | spaces.Tuple):
        drawn = {key: _draw(part, random) for key, part in _parts(space)}
        return drawn if isinstance(space, spaces.Dict) else tuple(drawn.values())
    if isinstance(space, spaces.Discrete):
        return int(random.integers(space.n))
    if isinstance(space, spaces.MultiDiscrete):
        return random.integers(space.nvec)
    if isinstance(space, spaces.MultiBinary):
        return random.integers(2, size=space.shape, dtype=np.int8)
    return random.uniform(-1.0, 1.0, space.shape).astype(np.float32)


def _encode(space: spaces.Space, value: Any) -> np.ndarray:
    if isinstance(space, spaces.Dict | spaces.Tuple):
        return np.concatenate([_encode(part, value[key]) for key, part in _parts(space)])
    if isinstance(space, spaces.Discrete):
        return np.eye(int(space.n), dtype=np.float32)[value]
    if isinstance(space, spaces.MultiDiscrete):
        one_hot = [np.eye(n, dtype=np.float32)[i] for n, i in zip(space.nvec, value, strict=True)]
        return np.concatenate(one_hot)
    return np.array(value, np.float32)


def _score(space: spaces.Space, action: Any, target: Any) -> float:
    if isinstance(space, spaces.Dict | spaces.Tuple):
        return sum(_score(part, action[key], target[key]) for key, part in _parts(space))
    if isinstance(space, spaces.Box):
        return -float(np.abs(action - target).mean())
    return float(np.mean(np.asarray(action) == target))
