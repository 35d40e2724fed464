"""Evaluation of a policy: whole episodes on fresh environments, each with its own seed."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import tensorflow as tf
from gymnasium.vector import AutoresetMode

from ppo_tf import ops, spaces
from ppo_tf.environments.backends import environment_seeds, make_envs, reset
from ppo_tf.environments.stepping import close
from ppo_tf.policies.policy import Policy
from ppo_tf.support import seeds
from ppo_tf.support.checks import check_at_least_one
from ppo_tf.types import Nest, NonFiniteError, Tensor

MAX_STEPS = 100_000  # of an episode; the longest games of Atari have 27,000

Act = Callable[[Any, np.ndarray, np.ndarray], Any]  # (observations, seed, starts) -> actions


@dataclass(frozen=True)
class Evaluation:
    """Returns and lengths of evaluated episodes, in the order of their seeds.

    Attributes:
        returns: undiscounted sum of rewards per episode.
        lengths: steps per episode.
        unfinished: number of episodes that were cut off by `max_steps`.
    """

    returns: tuple[float, ...]
    lengths: tuple[int, ...]
    unfinished: int = 0

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(np.mean(self.returns))

    @property
    def std(self) -> float:
        """Standard deviation of the returns (divisor n)."""
        return float(np.std(self.returns))

    def summary(self) -> dict[str, Any]:
        """Returns mean, spread and every episode, for a JSON file."""
        return {
            "episodes": len(self.returns),
            "mean_return": self.mean,
            "std_return": self.std,
            "min_return": min(self.returns),
            "max_return": max(self.returns),
            "mean_length": float(np.mean(self.lengths)),
            "unfinished": self.unfinished,
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
    max_steps: int = MAX_STEPS,
    warn: Callable[[str], Any] = warnings.warn,
    **kwargs: Any,
) -> Evaluation:
    """Runs whole episodes; episode k starts from the k-th seed, however many run in parallel.

    Args:
        policy: policy to evaluate, or any callable from (observations, seed, starts) to actions:
            observations as the vector environment returns them, seed int32 [2], and starts
            bool [B], true where an episode starts.
        env_id: id of the environment.
        episodes: number of episodes.
        seed: seed of the episodes and of sampled actions.
        deterministic: whether a Policy takes its mode instead of sampling.
        num_envs: maximum number of environments run in parallel.
        max_steps: number of steps after which an episode is cut off. Without it an episode in an
            environment without a time limit might never end.
        warn: called with one line if episodes were cut off.
        kwargs: further arguments of the environment, for instance render_mode.

    Raises:
        ValueError: an argument is out of range; also as in `make_envs`.
        NonFiniteError: an episode's return is NaN or infinite.
        EnvironmentFailure: an environment raised an exception or gave something that does not fit.
    """
    check_at_least_one(episodes=episodes, max_steps=max_steps)
    num_envs = min(num_envs, episodes)
    envs = make_evaluation_envs(env_id, num_envs, **kwargs)
    try:
        act = make_act(policy, envs, deterministic) if isinstance(policy, Policy) else policy
        result = play(envs, act, episodes, seed, max_steps)
    finally:
        close(envs)
    if result.unfinished:
        warn(
            f"{result.unfinished} of {episodes} episodes had not ended after max_steps={max_steps} "
            "steps; their returns are those of the steps so far"
        )
    return result


def make_evaluation_envs(env_id: str, num_envs: int, **kwargs: Any) -> gymnasium.vector.VectorEnv:
    """Makes environments for `play`; Atari ones give whole games and scores, see `make_envs`."""
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
    """Runs `evaluate` on existing environments; every call gives the same result.

    Args:
        envs: environments in auto-reset mode DISABLED, at most as many as episodes.
        act: callable from (observations, seed, starts) to actions, as in `evaluate`.
        episodes: number of episodes.
        seed: seed of the episodes and of sampled actions.
        max_steps: number of steps after which an episode is cut off; by default none is.

    Raises:
        NonFiniteError: an episode's return is NaN or infinite.
    """
    num_envs = envs.num_envs
    episode_seeds = environment_seeds(seed, episodes, "evaluation")
    returns, lengths = np.zeros(episodes), np.zeros(episodes, np.int64)
    current = np.arange(num_envs)  # the episode each environment is in
    observations = reset(envs, episode_seeds[:num_envs])
    starts = np.ones(num_envs, bool)
    upcoming, step, unfinished = num_envs, 0, 0
    while (running := current < episodes).any():
        actions = act(observations, seeds.derive_seed(seed, "acting", step), starts)
        observations, rewards, terminated, truncated, _ = envs.step(actions)
        returns[current[running]] += rewards[running]
        lengths[current[running]] += 1
        done = terminated | truncated
        if max_steps is not None:
            cut = ~done[running] & (lengths[current[running]] >= max_steps)
            done[running] |= cut
            unfinished += int(np.count_nonzero(cut))
        starts = done
        if done.any():
            reset_seeds: list[int | None] = [None] * num_envs
            for env in np.flatnonzero(done):
                current[env] = upcoming  # `episodes` or more: idle until the last ones end
                upcoming += 1
                if current[env] < episodes:
                    reset_seeds[env] = episode_seeds[current[env]]
            if (current < episodes).any():  # a video must not end with a new episode's frame
                observations = reset(envs, reset_seeds, done)
        step += 1
    if not np.isfinite(returns).all():
        bad = int(np.flatnonzero(~np.isfinite(returns))[0])
        raise NonFiniteError(f"evaluation episode {bad} had a return of {returns[bad]}")
    return Evaluation(tuple(returns.tolist()), tuple(lengths.tolist()), unfinished)


def make_act(policy: Policy, envs: gymnasium.vector.VectorEnv, deterministic: bool) -> Act:
    """Turns a policy into an `Act`, which keeps the state of a recurrent policy.

    Args:
        policy: policy to act; its current weights are used, also after an update.
        envs: environments, for their number and spaces; they may be closed afterwards.
        deterministic: whether to take the mode instead of sampling.
    """
    memory = [policy.initial_state(envs.num_envs)]

    @tf.function(jit_compile=True, autograph=False)
    def act(
        observations: Nest, state: list[Tensor], starts: Tensor, seed: Tensor
    ) -> tuple[Nest, list[Tensor]]:
        parameters, state = policy.step(observations, ops.emptied(starts, state))
        raw = policy.draw(parameters, None if deterministic else seed)
        return policy.action_map(raw), state

    def step(observations: Any, seed: np.ndarray, starts: np.ndarray) -> Any:
        observations = spaces.flatten(envs.single_observation_space, observations)
        observations = tf.nest.map_structure(tf.constant, observations)
        actions, memory[0] = act(observations, memory[0], tf.constant(starts), tf.constant(seed))
        actions = tf.nest.map_structure(lambda x: x.numpy(), actions)
        return spaces.unflatten(envs.single_action_space, actions)

    return step
