"""Logs about the actions of a rollout: saturated ones, and those that masks never allow."""

from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary
from helpers import HYBRID, box, make_policy, masked, spaces, trajectory

import ppo_tf
from ppo_tf.actions.maps import ClipAction, DiscreteAction, JointAction, TanhAction, UnitAction
from ppo_tf.learning import diagnostics

pytestmark = pytest.mark.usefixtures("eager")

INF = np.inf


def facts(actions, valid=None, observations=None):
    """The fields of a trajectory that count here; actions and observations [T, B, ...]."""
    shape = np.shape(valid if valid is not None else np.ones(np.shape(actions)[:2]))
    valid = np.ones(shape, bool) if valid is None else np.array(valid)
    return SimpleNamespace(actions=actions, valid=valid, observations=observations)


def saturated(action_map, raw, **kwargs):
    raw = np.array(raw, np.float32).reshape(1, -1, int(np.prod(action_map.shape)))
    return diagnostics.rollout(facts(raw, **kwargs), action_map)["rollout/saturated_actions"]


def test_clipped_actions_and_those_within_one_percent_are_saturated():
    clip = ClipAction(-2.0, 6.0, (1,))  # 1% of the range of 8 is 0.02 of the raw range of 2
    assert saturated(clip, [0.0, 0.97, -0.97]) == 0.0
    assert saturated(clip, [0.99, -0.99, 1.0, -7.0]) == 1.0
    assert saturated(clip, [0.99, 0.0, 0.0, 0.0]) == 0.25


@pytest.mark.parametrize("kind", [ClipAction, TanhAction, UnitAction])
def test_actions_near_a_bound_of_the_box_are_saturated(kind):
    low, high = np.array([-2.0, 0.1]), np.array([6.0, 0.7])
    action_map = kind(low, high, (2,))
    raw = np.random.default_rng(0).normal(0.5, 1.5, (500, 2)).astype(np.float32)
    actions = action_map(tf.constant(raw)).numpy()
    near = (actions <= low + 0.01 * (high - low)) | (actions >= high - 0.01 * (high - low))
    assert 0.1 < near.mean() < 0.9
    assert saturated(action_map, raw) == near.mean()


def test_only_bounded_elements_count():
    low, high = np.array([-1.0, 0.5, -INF, -INF]), np.array([1.0, INF, 2.0, INF])
    clip = ClipAction(low, high, (4,))
    assert saturated(clip, [[0.0, 1.0, 1.0, 9.0]]) == 0.0
    assert saturated(clip, [[0.0, 0.4, 1.0, 9.0]]) == pytest.approx(1 / 3)
    assert saturated(clip, [[0.0, 0.4, 2.5, 9.0]]) == pytest.approx(2 / 3)
    # Softplus never reaches its bound: only the first element counts.
    tanh = TanhAction(low, high, (4,))
    assert saturated(tanh, [[9.0, -9.0, 9.0, 9.0]]) == 1.0
    unbounded = ClipAction(-INF, INF, (2,))
    assert diagnostics.rollout(facts(np.zeros((1, 3, 2))), unbounded) == {}


def test_invalid_rows_do_not_count():
    clip = ClipAction(-1.0, 1.0, (1,))
    assert saturated(clip, [9.0, 0.0, 9.0, 9.0], valid=[[True, True, False, False]]) == 0.5


def test_in_composite_actions_only_boxes_count():
    maps = {
        "move": DiscreteAction(),
        "arm": ClipAction(-1.0, 1.0, (3,)),
        "hand": TanhAction(-1.0, 1.0, (1,)),
    }
    actions = {
        "move": np.full((1, 2), 5),
        "arm": np.array([[[9.0, 0.0, 0.0], [9.0, 9.0, 0.0]]]),
        "hand": np.array([[[0.1], [0.1]]]),
    }
    found = diagnostics.rollout(facts(actions, valid=[[True, True]]), JointAction(maps))
    assert found == {"rollout/saturated_actions": 3 / 8}


def test_other_actions_do_not_have_this_log():
    assert diagnostics.rollout(facts(np.zeros((2, 2), int)), DiscreteAction()) == {}
    assert diagnostics.rollout(facts(np.ones((2, 2, 1))), lambda raw: raw) == {}


def test_dead_actions_are_never_allowed():
    masks = np.zeros((2, 2, 4), np.int8)
    masks[0, 0, 0] = masks[1, 0, 1] = 1
    observations = {"action_mask": masks, "observation": np.zeros((2, 2, 3))}
    actions = np.zeros((2, 2), int)

    def dead(**kwargs):
        found = diagnostics.rollout(facts(actions, **kwargs), DiscreteAction())
        return found["rollout/dead_actions"]

    assert dead(observations=observations) == 2.0
    # The row that allowed action 1 was an auto-reset, in which no action was taken.
    assert dead(observations=observations, valid=[[True, True], [False, True]]) == 3.0
    nested = {"action_mask/move": masks, "action_mask/arm/1": np.eye(4)[:2, None] > 0}
    assert dead(observations=nested, valid=np.ones((2, 1), bool)) == 4.0
    plain = {"observation": np.zeros((2, 2, 3))}
    assert diagnostics.rollout(facts(actions, observations=plain), DiscreteAction()) == {}


@pytest.mark.parametrize(
    ("observation", "action", "names"),
    [
        (box(3), Discrete(3), set()),
        (box(3), Box(-1.0, 1.0, (2,)), {"rollout/saturated_actions"}),
        (masked(Discrete(3)), Discrete(3), {"rollout/dead_actions"}),
        (box(3), HYBRID, {"rollout/saturated_actions"}),
        (
            Dict({"x": box(2), "action_mask": Dict({"move": MultiBinary(3)})}),
            HYBRID,
            {"rollout/saturated_actions", "rollout/dead_actions"},
        ),
    ],
)
def test_the_names_of_logs_follow_from_the_spaces(observation, action, names):
    envs = spaces(observation, action)
    policy = make_policy(envs)
    found = diagnostics.rollout(trajectory(envs, policy), policy.action_map)
    assert set(found) == names
    assert all(type(value) is float for value in found.values())


def test_fit_logs_them():
    envs = ppo_tf.make_envs("Pendulum-v1", 2)
    policy = ppo_tf.mlp_policy(envs, hidden_sizes=(4,), initial_scale=100.0)
    critic = ppo_tf.mlp_critic(envs, hidden_sizes=(4,))
    learner = ppo_tf.Learner(policy, critic, epochs=1, minibatch_size=8, jit_compile=False)
    history = ppo_tf.fit(learner, envs, total_steps=32, horizon=8)
    assert len(history["rollout/saturated_actions"]) == 2
    assert min(history["rollout/saturated_actions"]) > 0.8
    assert isinstance(envs.single_action_space, gymnasium.spaces.Box)
