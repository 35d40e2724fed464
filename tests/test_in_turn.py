"""Stepping in turn gives, bit for bit, what Gymnasium's own class gives."""

import copy

import environments
import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, Text, Tuple
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import ppo_tf
from ppo_tf.environments.in_turn import SyncEnvs

environments.register()


class Told(gymnasium.Env):
    """Episodes of 2 to 6 steps with infos of every kind, some of them only now and then.

    Observations come as the space's own arrays, as float64, as lists or as Python numbers.
    """

    action_space = Dict({"pair": Tuple((Discrete(3), Box(-1.0, 1.0, (2,))))})
    observation_space = Dict(
        {
            "array": Box(-9.0, 9.0, (2, 2), np.float32),
            "pair": Tuple((Discrete(50), Box(-9.0, 9.0, (1,), np.float64))),
            "bytes": Box(0, 255, (3,), np.uint8),
            "word": Text(3, min_length=0),
        }
    )

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = int(self.np_random.integers(2, 7))
        return self._observe(), {"options": str(options), "begun": True}

    def step(self, action):
        self.left -= 1
        info = {"number": self.left / 3, "nested": {"count": self.left, "word": "a" * self.left}}
        if self.left % 2:
            info |= {"array": self.np_random.normal(size=(2,)), "none": None}
        reward = [1, 0.5, np.float32(0.1), np.float64(3.0), True][self.left % 5]
        reward += float(action["pair"][1][0])
        return self._observe(), reward, self.left == 0, self.left < 2, info

    def _observe(self):
        array = self.np_random.normal(size=(2, 2))
        return {
            "array": [array, array.astype(np.float32), array.tolist()][self.left % 3],
            "pair": (self.left if self.left % 2 else np.int64(self.left), np.array([0.1])),
            "bytes": self.np_random.integers(0, 255, 3, dtype=np.uint8),
            "word": "abc"[: self.left % 3],
        }


class Reusing(gymnasium.Env):
    """Shows (steps of the episode, episode) in one array that it writes over; episodes of 3."""

    observation_space = Box(-9.0, 9.0, (2,), np.float32)
    action_space = Discrete(2)

    def __init__(self):
        self.seen = np.zeros(2, np.float32)

    def reset(self, *, seed=None, options=None):
        self.seen[0] = 0
        self.seen[1] += 1
        return self.seen, {}

    def step(self, action):
        self.seen[0] += 1
        return self.seen, 1.0, bool(self.seen[0] == 3), False, {}


for cls in (Told, Reusing):
    gymnasium.register(f"ppo_tf_tests/{cls.__name__}-v0", cls, disable_env_checker=True)

IDS = [
    "Pendulum-v1",
    "FrozenLake-v1",
    "Blackjack-v1",
    environments.COUNTING,
    environments.NESTED_COUNTING,
    environments.TEXT_OBSERVATION,
    "ppo_tf_tests/Told-v0",
]


def assert_same(ours, theirs):
    """Asserts equality of nested results, types of arrays included."""
    assert type(ours) is type(theirs)
    if isinstance(ours, dict):
        assert list(ours) == list(theirs)
        for key, value in ours.items():
            assert_same(value, theirs[key])
    elif isinstance(ours, tuple | list):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_same(one, other)
    elif isinstance(ours, np.ndarray) and ours.dtype == object:
        assert_same(list(ours), list(theirs))
    else:
        np.testing.assert_array_equal(ours, theirs)
        assert np.asarray(ours).dtype == np.asarray(theirs).dtype


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("env_id", IDS)
def test_steps_and_resets_equal_gymnasiums(env_id, mode):
    def make():
        return gymnasium.make(env_id)

    ours, theirs = SyncEnvs(make, 3, mode), SyncVectorEnv([make] * 3, autoreset_mode=mode)
    for name in ("observation_space", "action_space", "metadata", "num_envs"):
        assert getattr(ours, name) == getattr(theirs, name)
    for seed in (7, [1, 2, 3]):
        assert_same(ours.reset(seed=seed), theirs.reset(seed=seed))
        ours.action_space.seed(0)
        for _ in range(40):
            actions = ours.action_space.sample()
            result = ours.step(actions)
            assert_same(result, theirs.step(copy.deepcopy(actions)))
            ended = result[2] | result[3]
            if mode is AutoresetMode.DISABLED and ended.any():
                options = {"reset_mask": ended, "difficulty": 3}
                expected = theirs.reset(options=dict(options))
                assert_same(ours.reset(options=options), expected)
                assert list(options) == ["reset_mask", "difficulty"]  # the caller's stay
    ours.close()


def test_results_are_the_callers_own():
    envs = ppo_tf.make_envs(environments.NESTED_COUNTING, 2, backend="sync")
    first = envs.step(envs.action_space.sample())
    kept = copy.deepcopy(first)
    envs.step(envs.action_space.sample())
    assert_same(first, kept)


@pytest.mark.parametrize("backend", ["sync", "async"])
def test_final_observations_survive_an_environment_that_writes_over_them(backend):
    envs = ppo_tf.make_envs("ppo_tf_tests/Reusing-v0", 2, backend=backend)
    for _ in range(3):
        observations, _, _, _, infos = envs.step(np.zeros(2, int))
    np.testing.assert_array_equal(observations, [[0, 2], [0, 2]])
    np.testing.assert_array_equal(np.stack(infos["final_obs"]), [[3, 1], [3, 1]])
    envs.close()


def test_a_finished_episode_is_not_stepped():
    envs = ppo_tf.make_envs(
        environments.COUNTING, 2, backend="sync", autoreset_mode=AutoresetMode.DISABLED
    )
    with pytest.raises(gymnasium.error.ResetNeeded, match=r"environments \[[01]\] have ended"):
        for _ in range(20):
            envs.step(np.zeros(2, int))


@pytest.mark.parametrize("actions", [np.zeros(1, int), np.zeros(3, int)])
def test_another_number_of_actions_is_the_callers_error(actions):
    envs = ppo_tf.make_envs("CartPole-v1", 2, backend="sync")
    with pytest.raises(ValueError, match=r"actions must be 2\. Received: actions="):
        envs.step(actions)


@pytest.mark.parametrize("mask", [[True, False], np.ones(3, bool), np.zeros(2, bool), np.ones(2)])
def test_a_mask_of_resets_that_is_none_is_refused(mask):
    envs = ppo_tf.make_envs("CartPole-v1", 2, backend="sync")
    with pytest.raises(ValueError, match="reset_mask must be a bool array"):
        envs.reset(options={"reset_mask": mask})
    with pytest.raises(ValueError, match="seed must have one per environment"):
        envs.reset(seed=[1])
