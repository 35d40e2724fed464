"""The rows of a rollout while it is collected."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ppo_tf import spaces
from ppo_tf.types import Arrays, Nest


class Final(NamedTuple):
    """Observations that ended episodes and that the agent did not act on.

    Attributes:
        step: in which the episodes ended.
        environments: int [n], in which they ended.
        observations: [n, ...].
    """

    step: int
    environments: np.ndarray
    observations: Arrays


class Rows:
    """Room for a rollout of T steps in B environments, filled step by step.

    Args:
        horizon: T.
        observations: [B, ...], the first ones; only their shapes and types are used.

    Attributes:
        seen: [T + 1, B, ...], what the agent sees before each step and after the last one. Row
            t + 1 is the successor of row t except where an episode ended.
        actions: raw actions [B, ...] of each step.
        rewards: float64 [T, B].
        terminated, truncated: bool [T, B].
        finals: the successors that are not in `seen`.
    """

    def __init__(self, horizon: int, observations: Arrays):
        def room(batch: np.ndarray) -> np.ndarray:
            return np.empty((horizon + 1, *batch.shape), spaces.observed_dtype(batch.dtype))

        self.seen: Arrays = spaces.map_leaves(room, observations)
        some = next(iter(self.seen.values())) if isinstance(self.seen, dict) else self.seen
        shape = (horizon, some.shape[1])
        self.actions: list[Nest] = []
        self.rewards = np.empty(shape)
        self.terminated, self.truncated = np.empty(shape, bool), np.empty(shape, bool)
        self.finals: list[Final] = []

    def see(self, step: int, observations: Arrays) -> Arrays:
        """Stores and returns what the agent sees before a step, [B, ...], in its own dtypes."""
        _store(self.seen, step, observations)
        seen: Arrays = spaces.map_leaves(lambda x: x[step], self.seen)
        return seen

    def successors(self) -> Arrays:
        """The true successors [T, B, ...]: at an episode's end its final observation."""
        found: Arrays = spaces.map_leaves(lambda x: x[1:].copy(), self.seen)
        for final in self.finals:
            _store(found, (final.step, final.environments), final.observations)
        return found


def _store(arrays: Arrays, index: Any, values: Any) -> None:
    if isinstance(arrays, dict):
        for path, array in arrays.items():
            array[index] = values[path]
    else:
        arrays[index] = values
