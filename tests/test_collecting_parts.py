"""The parts of the collector alone: auto-reset modes, sums of episodes, searches of a rollout."""

import numpy as np
import pytest
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode

from ppo_tf.collecting.autoreset import make_autoreset
from ppo_tf.collecting.checks import EmptyMask, find_empty_mask, find_non_finite
from ppo_tf.collecting.episodes import EpisodeSums
from ppo_tf.collecting.rows import Final, Rows

T, B = 5, 3
MODES = list(AutoresetMode)
SAME_STEP, NEXT_STEP, DISABLED = (
    AutoresetMode.SAME_STEP,
    AutoresetMode.NEXT_STEP,
    AutoresetMode.DISABLED,
)

# Environment 0 ends an episode in row 1, environment 1 in the last row.
DONE = np.zeros((T, B), bool)
DONE[1, 0] = DONE[4, 1] = True


class Envs:
    """What an auto-reset object needs of environments; a reset shows -1."""

    num_envs = B
    single_observation_space = Box(-9, 9, (1,))

    def __init__(self, mode):
        self.metadata = {"autoreset_mode": mode}
        self.masks = []

    def reset(self, *, options):
        self.masks.append(options["reset_mask"].tolist())
        return np.full((B, 1), -1.0), {}


def follow(autoreset, done):
    """A rollout whose step t shows t: (rows, observations and starts that `after` told)."""
    rows = Rows(T, np.zeros((B, 1)))
    rows.terminated[:], rows.truncated[:] = done, False
    seen, starting = [], []
    for t in range(T):
        infos = {"_final_obs": done[t], "final_obs": [np.full(1, 50.0 + t)] * B}
        observations, starts = autoreset.after(t, rows, np.full((B, 1), float(t)), infos)
        seen.append(observations[:, 0].tolist())
        starting.append(starts)
    return rows, seen, np.array(starting)


def ones(array):
    """Where a bool array [T, B] is true."""
    return [tuple(index) for index in np.argwhere(array).tolist()]


@pytest.mark.parametrize("mode", [SAME_STEP, DISABLED])
def test_where_a_step_resets_the_row_after_an_end_is_an_episodes_first(mode):
    autoreset = make_autoreset(Envs(mode), has_memory=False)
    valid, starts = autoreset.finish(DONE)
    assert valid.all()
    assert ones(starts) == [(0, 0), (0, 1), (0, 2), (2, 0)]
    valid, starts = autoreset.finish(np.zeros_like(DONE))
    assert valid.all()
    assert ones(starts) == [(0, 1)]  # carried over from the last row


def test_next_step_spends_a_row_on_the_reset():
    autoreset = make_autoreset(Envs(NEXT_STEP), has_memory=False)
    valid, starts = autoreset.finish(DONE)
    assert ones(~valid) == [(2, 0)]
    assert ones(starts) == [(0, 0), (0, 1), (0, 2), (3, 0)]
    valid, starts = autoreset.finish(np.zeros_like(DONE))
    assert ones(~valid) == [(0, 1)]
    assert ones(starts) == [(1, 1)]
    autoreset.finish(DONE)
    autoreset.begin_episodes()
    valid, starts = autoreset.finish(np.zeros_like(DONE))
    assert valid.all()
    assert ones(starts) == [(0, 0), (0, 1), (0, 2)]


@pytest.mark.parametrize("mode", MODES)
def test_starts_told_after_each_step_are_those_of_the_trajectory(mode):
    """The memory that acts is emptied in the same rows as the learner's."""
    autoreset = make_autoreset(Envs(mode), has_memory=True)
    random = np.random.default_rng(0)
    for _ in range(20):
        done = random.random((T, B)) < 0.3
        first = autoreset.starting
        _, _, told = follow(autoreset, done)
        _, starts = autoreset.finish(done)
        np.testing.assert_array_equal([first, *told[:-1]], starts)
        np.testing.assert_array_equal(told[-1], autoreset.starting)


def test_same_step_takes_final_observations_from_the_infos():
    rows, seen, _ = follow(make_autoreset(Envs(SAME_STEP), has_memory=False), DONE)
    assert seen == [[t] * B for t in range(T)]
    one, two = rows.finals
    assert (one.step, one.environments.tolist(), one.observations.tolist()) == (1, [0], [[51.0]])
    assert (two.step, two.environments.tolist(), two.observations.tolist()) == (4, [1], [[54.0]])


def test_disabled_resets_what_has_ended_and_keeps_what_it_showed():
    envs = Envs(DISABLED)
    rows, seen, _ = follow(make_autoreset(envs, has_memory=False), DONE)
    assert envs.masks == [[True, False, False], [False, True, False]]
    assert seen == [[0] * B, [-1] * B, [2] * B, [3] * B, [-1] * B]
    one, two = rows.finals
    assert (one.step, one.environments.tolist(), one.observations.tolist()) == (1, [0], [[1.0]])
    assert (two.step, two.environments.tolist(), two.observations.tolist()) == (4, [1], [[4.0]])


def test_next_step_shows_final_observations_by_itself():
    rows, seen, _ = follow(make_autoreset(Envs(NEXT_STEP), has_memory=True), DONE)
    assert seen == [[t] * B for t in range(T)]
    assert rows.finals == []


# ---- sums of episodes


def test_episodes_are_summed_over_rollouts_and_told_in_the_order_of_their_ends():
    sums = EpisodeSums(2)
    rewards = np.array([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0]])
    valid = np.ones((3, 2), bool)
    done = np.array([[0, 0], [1, 1], [1, 0]], bool)
    # 1 + 2 in two steps, 10 + 20 in two; then environment 0 has an episode of one step.
    assert sums.add(rewards, done, valid) == [(3.0, 2), (30.0, 2), (4.0, 1)]
    assert sums.add(rewards, np.zeros_like(done), valid) == []
    done = np.array([[0, 1], [0, 0], [1, 0]], bool)
    # 40 + (10 + 20 + 40) + 10 in 1 + 3 + 1 steps, then (1 + 2 + 4) twice in 3 + 3.
    assert sums.add(rewards, done, valid) == [(120.0, 5), (14.0, 6)]


def test_rows_that_are_no_transition_do_not_lengthen_an_episode():
    sums = EpisodeSums(1)
    rewards = np.array([[1.0], [0.0], [3.0], [5.0]])
    done = np.array([[1], [0], [0], [1]], bool)
    valid = np.array([[1], [0], [1], [1]], bool)
    assert sums.add(rewards, done, valid) == [(1.0, 1), (8.0, 2)]


# ---- searches


def clean():
    """Finite observations [T + 1, B, 2] and rewards [T, B]."""
    return np.zeros((T + 1, B, 2), np.float32), np.zeros((T, B), np.float32)


def test_finite_numbers_are_not_found():
    seen, rewards = clean()
    final = Final(1, np.array([2]), np.ones((1, 2)))
    assert find_non_finite(seen, rewards, [final]) is None


def test_the_first_non_finite_number_is_that_of_the_earliest_step_then_environment():
    seen, rewards = clean()
    rewards[3, 0] = -np.inf
    assert find_non_finite(seen, rewards, []) == (3, 0, "reward", -np.inf)
    seen[3, 0] = [7.0, np.inf]  # at the same place the observation came before the reward
    assert find_non_finite(seen, rewards, []) == (3, 0, "observation", np.inf)
    final = Final(1, np.array([1, 2]), np.array([[0.0, 0.0], [0.0, np.inf]]))  # as of step 2
    assert find_non_finite(seen, rewards, [final]) == (2, 2, "observation", np.inf)
    rewards[2, 1] = np.inf
    assert find_non_finite(seen, rewards, [final]) == (2, 1, "reward", np.inf)


def test_a_final_observation_that_float32_cannot_hold_is_told_as_it_was():
    seen, rewards = clean()
    final = Final(0, np.array([1]), np.array([[0.0, 1e300]]))
    with np.errstate(over="ignore"):
        assert find_non_finite(seen, rewards, [final]) == (1, 1, "observation", 1e300)


def test_of_composite_observations_the_path_is_told_and_integers_are_passed_over():
    seen, rewards = clean()
    seen[4, 2, 1] = np.inf
    nest = {"count": np.zeros((T + 1, B), np.int64), "arm/0": seen}
    final = Final(1, np.array([0]), {"count": np.zeros(1, np.int64), "arm/0": np.zeros((1, 2))})
    assert find_non_finite(nest, rewards, [final]) == (4, 2, "observation 'arm/0'", np.inf)


def test_an_empty_mask_counts_where_somebody_acted_on_it():
    sizes = {"action_mask/move": (2,), "action_mask/arm": (1, 2)}
    seen = {"action_mask/move": np.ones((T + 1, B, 2)), "action_mask/arm": np.ones((T + 1, B, 3))}
    valid = np.ones((T, B), bool)
    valid[1, 0] = False
    seen["action_mask/move"][1, 0] = 0.0  # a reset, in which nobody acts
    seen["action_mask/move"][T, 0] = 0.0  # nobody has acted yet
    assert find_empty_mask(sizes, seen, valid) is None
    seen["action_mask/arm"][3, 2] = [1.0, 0.0, 0.0]
    assert find_empty_mask(sizes, seen, valid) == EmptyMask(3, 2, "action_mask/arm")
