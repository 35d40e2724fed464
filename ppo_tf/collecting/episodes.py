"""Returns and lengths of episodes, which run on across rollouts."""

from __future__ import annotations

import numpy as np

from ppo_tf.types import Episode


class EpisodeSums:
    """What the episodes under way have earned so far.

    Args:
        num_envs: B, the number of environments.
    """

    def __init__(self, num_envs: int):
        self._returns = np.zeros(num_envs)
        self._lengths = np.zeros(num_envs, np.int64)

    def add(self, rewards: np.ndarray, done: np.ndarray, valid: np.ndarray) -> list[Episode]:
        """Adds a rollout and returns the episodes that ended in it, in the order of their ends.

        Args:
            rewards: float64 [T, B].
            done: bool [T, B], where episodes ended.
            valid: bool [T, B], False on rows that are no steps.
        """
        returns = self._returns + np.cumsum(rewards, axis=0)
        lengths = self._lengths + np.cumsum(valid, axis=0)
        # Where the episode under way began: the sums of those before it.
        returns_before, lengths_before = np.zeros_like(self._returns), np.zeros_like(self._lengths)
        episodes = []
        for step, env in np.argwhere(done):
            episode_return = returns[step, env] - returns_before[env]
            length = lengths[step, env] - lengths_before[env]
            episodes.append(Episode(float(episode_return), int(length)))
            returns_before[env], lengths_before[env] = returns[step, env], lengths[step, env]
        self._returns, self._lengths = returns[-1] - returns_before, lengths[-1] - lengths_before
        return episodes

    def give_up(self, first: int, count: int) -> int:
        """Forgets the episodes under way in some environments; returns how many steps they have."""
        part = slice(first, first + count)
        steps = int(self._lengths[part].sum())
        self._returns[part], self._lengths[part] = 0.0, 0
        return steps
