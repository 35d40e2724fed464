"""Gymnasium's three auto-reset modes: one object each, which tell the same story of episodes.

After each step an object says what the agent sees next, and keeps the final observations that it
doesn't see. After a rollout it says which rows are transitions and where episodes start.
"""

from __future__ import annotations

from typing import Any, Protocol

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode

from ppo_tf import spaces
from ppo_tf.collecting.rows import Final, Rows
from ppo_tf.types import Arrays


class AutoReset(Protocol):
    """What happens to an environment whose episode has ended.

    Attributes:
        starting: bool [B], whether the coming rollout's first row is an episode's first.
    """

    starting: np.ndarray

    def begin_episodes(self) -> None:
        """Forgets the episodes under way: all environments were reset."""
        ...

    def after(
        self, step: int, rows: Rows, observations: Arrays, infos: dict[str, Any]
    ) -> tuple[Arrays, np.ndarray]:
        """Follows up on a step.

        Args:
            step: the step, 0 to T - 1.
            rows: of this rollout, up to this step's ends; final observations are added.
            observations: [B, ...], as the step returned them.
            infos: likewise.

        Returns:
            (what the agent sees next [B, ...], whether the next row is an episode's first, bool
            [B]).
        """
        ...

    def finish(self, done: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sums up a rollout, and carries over what the next one needs.

        Args:
            done: bool [T, B], where episodes ended.

        Returns:
            (valid, starts) as in a `Trajectory`, each bool [T, B].
        """
        ...


def make_autoreset(envs: gymnasium.vector.VectorEnv, has_memory: bool) -> AutoReset:
    """The object for an environment's mode.

    Args:
        envs: the environments; their metadata say the mode.
        has_memory: whether the policy has a memory, which needs to know where episodes start.

    Raises:
        ValueError: the metadata say no mode.
    """
    mode = envs.metadata.get("autoreset_mode")
    if mode is AutoresetMode.SAME_STEP:
        return SameStep(envs)
    if mode is AutoresetMode.NEXT_STEP:
        return NextStep(envs.num_envs, has_memory)
    if mode is AutoresetMode.DISABLED:
        return Disabled(envs)
    raise ValueError(
        "The environment's metadata must say its gymnasium.vector.AutoresetMode. "
        f"Received: autoreset_mode={mode!r} from {envs}"
    )


class SameStep:
    """The step that ends an episode also resets: it returns the new episode's first observation.

    The final one is in the infos.
    """

    def __init__(self, envs: gymnasium.vector.VectorEnv):
        self._space = envs.single_observation_space
        self._num_envs = envs.num_envs
        self.begin_episodes()

    def begin_episodes(self) -> None:
        """See `AutoReset`."""
        self.starting = np.ones(self._num_envs, bool)

    def after(
        self, step: int, rows: Rows, observations: Arrays, infos: dict[str, Any]
    ) -> tuple[Arrays, np.ndarray]:
        """See `AutoReset`."""
        done = rows.terminated[step] | rows.truncated[step]
        if done.any():
            environments = np.flatnonzero(infos["_final_obs"])
            each = [spaces.flatten(self._space, infos["final_obs"][env]) for env in environments]
            stacked = spaces.map_leaves(lambda *x: np.stack(x), *each)
            rows.finals.append(Final(step, environments, stacked))
        return observations, done

    def finish(self, done: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `AutoReset`."""
        starts = _after(self.starting, done)
        self.starting = done[-1].copy()
        return np.ones_like(done), starts


class Disabled:
    """Nothing resets by itself: ended episodes are followed by a reset of their environments."""

    def __init__(self, envs: gymnasium.vector.VectorEnv):
        self._envs = envs
        self.begin_episodes()

    def begin_episodes(self) -> None:
        """See `AutoReset`."""
        self.starting = np.ones(self._envs.num_envs, bool)

    def after(
        self, step: int, rows: Rows, observations: Arrays, infos: dict[str, Any]
    ) -> tuple[Arrays, np.ndarray]:
        """See `AutoReset`."""
        done = rows.terminated[step] | rows.truncated[step]
        if done.any():
            environments = np.flatnonzero(done)
            ended = spaces.map_leaves(lambda x: x[environments], observations)
            rows.finals.append(Final(step, environments, ended))
            reset, _ = self._envs.reset(options={"reset_mask": done})
            observations = spaces.flatten(self._envs.single_observation_space, reset)
        return observations, done

    def finish(self, done: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `AutoReset`."""
        starts = _after(self.starting, done)
        self.starting = done[-1].copy()
        return np.ones_like(done), starts


class NextStep:
    """The step after an episode's end resets and ignores its action: a row that isn't valid."""

    def __init__(self, num_envs: int, has_memory: bool):
        self._num_envs = num_envs
        self._has_memory = has_memory
        self.begin_episodes()

    def begin_episodes(self) -> None:
        """See `AutoReset`."""
        self.starting = np.ones(self._num_envs, bool)
        self._resetting = np.zeros(self._num_envs, bool)  # the coming rollout's first row

    def after(
        self, step: int, rows: Rows, observations: Arrays, infos: dict[str, Any]
    ) -> tuple[Arrays, np.ndarray]:
        """See `AutoReset`."""
        if not self._has_memory:  # who acts doesn't look at the starts
            return observations, self.starting
        # An episode's first row follows the reset, which follows the end of the one before.
        ended = rows.terminated[step - 1] | rows.truncated[step - 1] if step else self._resetting
        return observations, ended

    def finish(self, done: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See `AutoReset`."""
        resets = _after(self._resetting, done)
        starts = _after(self.starting, resets)
        self.starting, self._resetting = resets[-1].copy(), done[-1].copy()
        return ~resets, starts


def _after(first: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Each row's values one row later, [T, B]; the first row has its own, [B]."""
    return np.concatenate([first[None], rows[:-1]])
