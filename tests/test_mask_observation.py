"""Masks in an environment's info reach the observation, in every auto-reset mode."""

import environments
import gymnasium
import numpy as np
import probe_environments as probes
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

import ppo_tf
from ppo_tf.environments.mask_observation import MASK_KEY, MaskObservation, mask_space

environments.register()

SEEN = spaces.Discrete(3)
MULTI = spaces.MultiDiscrete([2, 3])
COMPOSITE = spaces.Dict(
    {"move": spaces.Discrete(2), "parts": spaces.Tuple((MULTI, spaces.Box(-1, 1, (1,))))}
)


class MaskedByInfo(gymnasium.Env):
    """Reports the given masks, one per reset or step (None: no mask); the last one is final."""

    def __init__(self, action_space, masks, observation_space=SEEN):
        self.action_space, self.masks = action_space, masks
        self.observation_space = observation_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = list(self.masks)
        return self.observe()

    def step(self, action):
        observation, info = self.observe()
        return observation, 0.0, not self.left, False, info

    def observe(self):
        mask = self.left.pop(0)
        is_dict = isinstance(self.observation_space, spaces.Dict)
        observation = {"seen": 2} if is_dict else 2
        return observation, {"other": 1} if mask is None else {MASK_KEY: mask}


def first_mask(action_space, mask):
    env = MaskObservation(MaskedByInfo(action_space, [mask, mask]))
    observation, _ = env.reset()
    assert env.observation_space.contains(observation)
    return observation[MASK_KEY]


def test_the_observation_becomes_a_dict_with_the_mask():
    env = MaskObservation(MaskedByInfo(spaces.Discrete(2), [np.array([0, 1], np.int8)] * 2))
    assert env.observation_space == spaces.Dict(
        observation=spaces.Discrete(3), action_mask=spaces.MultiBinary(2)
    )
    observation, info = env.reset()
    assert observation["observation"] == 2
    np.testing.assert_array_equal(observation[MASK_KEY], [0, 1])
    np.testing.assert_array_equal(info[MASK_KEY], [0, 1])  # unchanged


def test_a_dict_observation_gets_one_more_key():
    space = spaces.Dict(seen=spaces.Discrete(3))
    env = MaskObservation(MaskedByInfo(spaces.Discrete(2), [np.ones(2, bool)], space))
    assert env.observation_space == spaces.Dict(
        seen=spaces.Discrete(3), action_mask=spaces.MultiBinary(2)
    )
    observation, _ = env.reset()
    assert sorted(observation) == [MASK_KEY, "seen"]
    assert observation["seen"] == 2


@pytest.mark.parametrize("mask", [np.array([1, 0], np.int8), np.array([True, False]), [1, 0]])
def test_masks_become_int8(mask):
    found = first_mask(spaces.Discrete(2), mask)
    assert found.dtype == np.int8
    np.testing.assert_array_equal(found, [1, 0])


@pytest.mark.parametrize(
    "mask",
    [
        np.array([1, 0, 0, 1, 1], np.int8),
        (np.array([1, 0], np.int8), np.array([0, 1, 1], np.int8)),
    ],
)
def test_multi_discrete_takes_one_array_or_one_per_element(mask):
    np.testing.assert_array_equal(first_mask(MULTI, mask), [1, 0, 0, 1, 1])


def test_a_multi_discrete_of_two_axes_takes_nested_tuples():
    space = spaces.MultiDiscrete([[2, 2], [1, 2]])
    parts = tuple(np.array(part, np.int8) for part in ([1, 0], [0, 1], [1], [1, 1]))
    found = first_mask(space, (parts[:2], parts[2:]))
    np.testing.assert_array_equal(found, [1, 0, 0, 1, 1, 1, 1])


def test_composite_masks_are_nested_like_the_actions_and_none_means_unrestricted():
    assert mask_space(COMPOSITE) == spaces.Dict(
        {"move": spaces.MultiBinary(2), "parts": spaces.Dict({"0": spaces.MultiBinary(5)})}
    )
    found = first_mask(COMPOSITE, {"move": np.array([0, 1], np.int8), "parts": (None, None)})
    np.testing.assert_array_equal(found["move"], [0, 1])
    np.testing.assert_array_equal(found["parts"]["0"], np.ones(5))


@pytest.mark.parametrize(
    ("space", "mask", "message"),
    [
        (spaces.Discrete(2), np.ones(3, np.int8), r"shape \(2,\).*Discrete\(2\).*shape \(3,\)"),
        (spaces.Discrete(2), np.ones(2, np.float32), "bool or int8.*dtype float32"),
        (spaces.Discrete(2), np.zeros(2, np.int8), r"leaves no valid action of Discrete\(2\)"),
        (MULTI, np.array([1, 1, 0, 0, 0], np.int8), "leaves no valid action"),
        (COMPOSITE, np.ones(2, np.int8), "nested like the action space"),
        (COMPOSITE, {"mov": np.ones(2, np.int8)}, "nested like the action space"),
        (COMPOSITE, {"parts": (None,)}, "nested like the action space"),
        (COMPOSITE, {"parts": (None, np.ones(1))}, r"\['parts'\]\[1\] masks Box.* no choices"),
    ],
)
def test_a_mask_that_does_not_fit_is_an_error_that_names_both_sides(space, mask, message):
    with pytest.raises(ValueError, match=message):
        first_mask(space, mask)


def test_a_missing_mask_is_an_error_that_names_the_method_and_the_keys():
    env = MaskObservation(MaskedByInfo(spaces.Discrete(2), [np.ones(2, bool), None, None]))
    env.reset()
    with pytest.raises(ValueError, match=r"step\(\).*no info\['action_mask'\].*\['other'\]"):
        env.step(0)


def test_the_mask_of_a_final_observation_may_be_empty():
    masks = [np.ones(2, np.int8), np.zeros(2, np.int8)]
    env = MaskObservation(MaskedByInfo(spaces.Discrete(2), masks))
    env.reset()
    observation, _, terminated, *_ = env.step(0)
    assert terminated
    np.testing.assert_array_equal(observation[MASK_KEY], [0, 0])


def test_actions_without_choices_have_no_mask():
    box = spaces.Box(-1, 1, (1,))
    assert mask_space(box) is None
    with pytest.raises(ValueError, match="Only Discrete and MultiDiscrete"):
        MaskObservation(MaskedByInfo(box, [None]))


@pytest.mark.filterwarnings("ignore::UserWarning")  # about being a wrapper
def test_gymnasiums_checks_pass():
    check_env(MaskObservation(gymnasium.make("Taxi-v4").unwrapped), skip_render_check=True)


@pytest.mark.parametrize("backend", ["auto", "sync", "async"])
def test_make_envs_detects_masks_in_the_info(backend):
    envs = ppo_tf.make_envs("Taxi-v4", 2, backend=backend)
    try:
        assert envs.single_observation_space[MASK_KEY] == spaces.MultiBinary(6)
        observations, info = envs.reset()
        np.testing.assert_array_equal(observations[MASK_KEY], info[MASK_KEY])
    finally:
        envs.close()


def test_masks_are_the_reason_for_the_backend():
    backend, reason = ppo_tf.choose_backend("Taxi-v4", 16)
    assert backend == "sync"
    assert "info['action_mask']" in reason


def test_masks_can_be_left_out():
    assert ppo_tf.make_envs("Taxi-v4", action_mask=False).single_observation_space == (
        spaces.Discrete(500)
    )


@pytest.mark.parametrize("env_id", ["CartPole-v1", probes.MASKED, probes.IDENTITY_DICT])
def test_environments_without_masks_in_the_info_are_unchanged(env_id):
    space = gymnasium.make(env_id).observation_space
    assert ppo_tf.make_envs(env_id, 2).single_observation_space == space


def test_a_required_mask_that_is_missing_is_an_error():
    with pytest.raises(ppo_tf.EnvironmentFailure, match=r"reset\(\).*no info\['action_mask'\]"):
        ppo_tf.make_envs("CartPole-v1", action_mask=True)


def test_masks_need_backend_sync_or_async():
    with pytest.raises(ValueError, match="backend='vector'"):
        ppo_tf.make_envs("CartPole-v1", 4, backend="vector", action_mask=True)


@pytest.mark.parametrize("mode", AutoresetMode)
def test_only_valid_actions_are_taken_in_every_reset_mode(mode):
    """The environment raises on an invalid action; final masks are empty and not acted on."""
    envs = ppo_tf.make_envs(probes.MASKED_BY_INFO, 3, autoreset_mode=mode, length=3)
    observations, _ = envs.reset()
    final_masks = []
    for _ in range(30):
        masks = observations[MASK_KEY]
        # A row that only resets has no valid action: argmax gives 0, which is ignored.
        observations, _, terminated, truncated, infos = envs.step(masks.argmax(axis=1))
        done = terminated | truncated
        if not done.any():
            continue
        if mode is AutoresetMode.SAME_STEP:
            final_masks += [final[MASK_KEY] for final in infos["final_obs"][done]]
            assert observations[MASK_KEY].any(axis=1).all()
        else:
            final_masks += list(observations[MASK_KEY][done])
        if mode is AutoresetMode.DISABLED:
            observations, _ = envs.reset(options={"reset_mask": done})
            assert observations[MASK_KEY].any(axis=1).all()
    assert len(final_masks) >= 9
    assert not np.any(final_masks)
