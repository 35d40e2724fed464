"""Trajectories and learners to test with, small enough to be built many times."""

from types import SimpleNamespace

import gymnasium
import numpy as np
import tensorflow as tf

import ppo_tf


def spaces(observation_space, action_space):
    """What models and policies need to know of an environment."""
    return SimpleNamespace(
        single_observation_space=observation_space, single_action_space=action_space
    )


def box(*shape):
    return gymnasium.spaces.Box(-3.0, 3.0, shape)


def make_policy(envs, **options):
    return ppo_tf.mlp_policy(envs, hidden_sizes=(8,), seed=1, **options)


def make_critic(envs, **options):
    return ppo_tf.mlp_critic(envs, hidden_sizes=(8,), seed=2, **options)


def observe(space, shape, seed=0):
    """Observations [*shape, ...] drawn from a space."""
    space.seed(seed)
    count = int(np.prod(shape))
    rows = np.stack([space.sample() for _ in range(count)])
    return rows.reshape(*shape, *rows.shape[1:])


def trajectory(envs, policy, horizon=8, num_envs=2, seed=0):
    """Random facts with actions drawn by the policy; both kinds of ends and invalid rows occur."""
    rng = np.random.default_rng(seed)
    shape = (horizon, num_envs)
    observations = observe(envs.single_observation_space, shape, seed)
    flat = observations.reshape(-1, *observations.shape[2:])
    actions = policy.sample(tf.constant(flat), np.array([seed, 7], np.int32)).numpy()
    terminated = rng.random(shape) < 0.2
    truncated = (rng.random(shape) < 0.2) & ~terminated
    valid = np.ones(shape, bool)
    valid[1:] = ~(terminated | truncated)[:-1]  # as after an auto-reset of the mode NEXT_STEP
    return ppo_tf.Trajectory(
        observations=observations,
        actions=actions.reshape(*shape, *actions.shape[1:]),
        rewards=rng.normal(size=shape).astype(np.float32) * valid,
        next_observations=observe(envs.single_observation_space, shape, seed + 1),
        terminated=terminated & valid,
        truncated=truncated & valid,
        valid=valid,
        starts=np.concatenate([np.ones((1, num_envs), bool), ~valid[:-1]]),
    )


def numbers(learner):
    """Everything an update changes, as NumPy arrays."""
    return [np.array(tf.convert_to_tensor(v)) for v in learner.variables]
