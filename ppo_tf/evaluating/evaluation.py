"""How good is a policy? Whole episodes on fresh environments with seeds of their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import tensorflow as tf
from gymnasium.vector import AutoresetMode

from ppo_tf import ops, spaces
from ppo_tf.environments.backends import environment_seeds, make_envs, reset
from ppo_tf.policies.policy import Policy
from ppo_tf.support import seeds
from ppo_tf.types import NonFiniteError

Act = Callable[[Any, np.ndarray, np.ndarray], Any]  # (observations, seed, starts) -> actions


@dataclass(frozen=True)
class Evaluation:
    """Returns and lengths of evaluated episodes, in the order of their seeds.

    Attributes:
        returns: undiscounted sum of rewards per episode.
        lengths: steps per episode.
    """

    returns: tuple[float, ...]
    lengths: tuple[int, ...]

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(np.mean(self.returns))

    @property
    def std(self) -> float:
        """Standard deviation of the returns (divisor n)."""
        return float(np.std(self.returns))

    def summary(self) -> dict[str, Any]:
        """Mean, spread and every episode, for a JSON file."""
        return {
            "episodes": len(self.returns),
            "mean_return": self.mean,
            "std_return": self.std,
            "min_return": min(self.returns),
            "max_return": max(self.returns),
            "mean_length": float(np.mean(self.lengths)),
            "returns": list(self.returns),
            "lengths": list(self.lengths),
        }


def evaluate(
    policy: Policy | Act,
    env_id: str,
    *,
    episodes: int = 100,
    seed: int = 0,
    deterministic: bool = True,
    num_envs: int = 32,
    **kwargs: Any,
) -> Evaluation:
    """Runs whole episodes; episode k starts from the k-th seed, however many run side by side.

    Args:
        policy: to evaluate; or any callable from (observations, seed, starts) to actions: those as
            the vector environment has them, a seed int32 [2], and bool [B], where an episode
            starts.
        env_id: of the environment.
        episodes: to run.
        seed: of the episodes and of sampled actions.
        deterministic: whether a Policy takes its mode or draws.
        num_envs: environments side by side, at most.
        kwargs: of the environment, for instance render_mode.

    Raises:
        ValueError: an argument out of range, or as `make_envs`.
        NonFiniteError: an episode's return is not a number.
    """
    if episodes < 1:
        raise ValueError(f"episodes must be at least 1. Received: episodes={episodes}")
    num_envs = min(num_envs, episodes)
    envs = make_evaluation_envs(env_id, num_envs, **kwargs)
    try:
        act = make_act(policy, envs, deterministic) if isinstance(policy, Policy) else policy
        return play(envs, act, episodes, seed)
    finally:
        envs.close()


def make_evaluation_envs(env_id: str, num_envs: int, **kwargs: Any) -> gymnasium.vector.VectorEnv:
    """Environments for `play`; of Atari whole games and scores, see `make_envs`."""
    return make_envs(
        env_id, num_envs, backend="sync", autoreset_mode=AutoresetMode.DISABLED, **kwargs
    )


def play(
    envs: gymnasium.vector.VectorEnv,
    act: Act,
    episodes: int,
    seed: int,
    max_steps: int | None = None,
) -> Evaluation:
    """What `evaluate` does, on environments that are there already; each call does the same.

    Args:
        envs: of auto-reset mode DISABLED, no more than episodes.
        act: as for `evaluate`.
        episodes: to run.
        seed: of the episodes and of sampled actions.
        max_steps: after which an episode is broken off.

    Raises:
        NonFiniteError: an episode's return is not a number.
    """
    num_envs = envs.num_envs
    episode_seeds = environment_seeds(seed, episodes, "evaluation")
    returns, lengths = np.zeros(episodes), np.zeros(episodes, np.int64)
    current = np.arange(num_envs)  # the episode each environment is in
    observations = reset(envs, episode_seeds[:num_envs])
    starts = np.ones(num_envs, bool)
    upcoming, step = num_envs, 0
    while (running := current < episodes).any():
        actions = act(observations, seeds.derive_seed(seed, "acting", step), starts)
        observations, rewards, terminated, truncated, _ = envs.step(actions)
        returns[current[running]] += rewards[running]
        lengths[current[running]] += 1
        done = terminated | truncated
        if max_steps is not None:
            done[running] |= lengths[current[running]] >= max_steps
        starts = done
        if done.any():
            reset_seeds: list[int | None] = [None] * num_envs
            for env in np.flatnonzero(done):
                current[env] = upcoming  # from `episodes` on, whoever waits for the last ones
                upcoming += 1
                if current[env] < episodes:
                    reset_seeds[env] = episode_seeds[current[env]]
            if (current < episodes).any():  # the last frame of a video is no new episode's
                observations = reset(envs, reset_seeds, done)
        step += 1
    if not np.isfinite(returns).all():
        bad = int(np.flatnonzero(~np.isfinite(returns))[0])
        raise NonFiniteError(f"evaluation episode {bad} had a return of {returns[bad]}")
    return Evaluation(tuple(returns.tolist()), tuple(lengths.tolist()))


def make_act(policy: Policy, envs: gymnasium.vector.VectorEnv, deterministic: bool) -> Act:
    """The policy as such a callable; of one with a memory it keeps the state.

    Args:
        policy: whose present weights act, also after an update.
        envs: whose number and spaces are used; it may be closed afterwards.
        deterministic: whether it takes the mode or draws.
    """
    memory = [policy.initial_state(envs.num_envs)]

    @tf.function(jit_compile=True, autograph=False)
    def act(observations, state, starts, seed):
        parameters, state = policy.step(observations, ops.emptied(starts, state))
        raw = policy.draw(parameters, None if deterministic else seed)
        return policy.action_map(raw), state

    def step(observations, seed, starts):
        observations = spaces.flatten(envs.single_observation_space, observations)
        observations = tf.nest.map_structure(tf.constant, observations)
        actions, memory[0] = act(observations, memory[0], tf.constant(starts), tf.constant(seed))
        actions = tf.nest.map_structure(lambda x: x.numpy(), actions)
        return spaces.unflatten(envs.single_action_space, actions)

    return step
