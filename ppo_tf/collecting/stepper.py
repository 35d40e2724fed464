"""Steps environments for a rollout, right in each of Gymnasium's auto-reset modes.

Needs no TensorFlow: whoever acts is a function of arrays.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from ppo_tf import spaces
from ppo_tf.collecting.autoreset import make_autoreset
from ppo_tf.collecting.checks import find_empty_mask, find_non_finite, mask_sizes
from ppo_tf.collecting.rows import Final, Rows
from ppo_tf.environments.backends import reset
from ppo_tf.environments.failures import failure_of
from ppo_tf.types import Arrays, EnvironmentFailure, Nest, NonFiniteError

# (observations [B, ...], step of the rollout, where episodes start, bool [B]) -> raw actions and
# the environment's actions, [B, ...]
Act = Callable[[Arrays, int, np.ndarray], tuple[Nest, Nest]]


class Rollout(NamedTuple):
    """T steps of B environments.

    Attributes:
        observations, actions, next_observations, terminated, truncated, valid, starts: as in a
            `Trajectory`.
        rewards: float64 [T, B].
        env_actions: [T, B, ...], what the environments were given; empty unless recorded.
    """

    observations: Arrays
    actions: Nest
    rewards: np.ndarray
    next_observations: Arrays
    terminated: np.ndarray
    truncated: np.ndarray
    valid: np.ndarray
    starts: np.ndarray
    env_actions: Nest | tuple[()]

    def digest(self) -> int:
        """Returns a checksum of all that came from the environments."""
        found = 0
        seen = [self.observations, self.next_observations]
        leaves = [x for nest in seen for x in (nest.values() if isinstance(nest, dict) else [nest])]
        for array in (*leaves, self.rewards, self.terminated, self.truncated):
            found = zlib.crc32(np.ascontiguousarray(array).data, found)
        return found


class Stepper:
    """Steps a Gymnasium vector environment, rollout by rollout; episodes run on across them.

    The three auto-reset modes give the same transitions. NEXT_STEP costs one row per episode, in
    which the environment ignores the action and resets: it is marked as not valid.

    Args:
        envs: the environments; their metadata say the auto-reset mode.
        horizon: steps per environment and rollout, T.
        has_memory: whether who acts has a memory, and needs to know where episodes start.
        mask_key: key of invalid-action masks in the observations, see `masks`.
        first: index of the first environment among all that collect, for errors.
        record: whether rollouts say what the environments were given.
        progress: int64 [1], counts the steps where others can see it.

    Raises:
        ValueError: the environments do not say how they reset, or a mask that fits no action.
    """

    def __init__(
        self,
        envs: gymnasium.vector.VectorEnv,
        horizon: int,
        *,
        has_memory: bool,
        mask_key: str | None,
        first: int = 0,
        record: bool = False,
        progress: np.ndarray | None = None,
    ):
        self._autoreset = make_autoreset(envs, has_memory)
        self._mask_sizes = mask_sizes(envs, mask_key)
        self.envs = envs
        self.horizon = horizon
        self._first, self._record = first, record
        self._composite = any(
            spaces.is_composite(space)
            for space in (envs.single_observation_space, envs.single_action_space)
        )
        self._observations: Arrays | None = None
        self._progress = np.zeros(1, np.int64) if progress is None else progress

    def begin_episodes(self, seeds: Sequence[int]) -> None:
        """Starts new episodes everywhere, with a seed for each environment."""
        self._observations = self._flat(reset(self.envs, seeds))
        self._autoreset.begin_episodes()

    @np.errstate(over="ignore")  # what float32 can't hold is infinite, and reported so
    def rollout(self, act: Act, rows_before: int) -> Rollout:
        """Returns the next `horizon` steps.

        Args:
            act: who acts.
            rows_before: rows of earlier rollouts, from which errors count.

        Raises:
            NonFiniteError: a NaN or infinite reward or observation; names the first one by its
                environment and step, counted in rows. An observation belongs to the step that acts
                on it, a reward to the one that earned it.
            EnvironmentFailure: an environment raised an exception or gave something that does not
                fit, counted likewise.
            ValueError: an invalid-action mask without a valid action, counted likewise.
        """
        rows, env_actions = self._fill_rows(act, rows_before)
        self._check_finite(rows.seen, rows.rewards.astype(np.float32), rows.finals, rows_before)
        done = rows.terminated | rows.truncated
        valid, starts = self._autoreset.finish(done)
        self._check_masks(rows.seen, valid, rows_before)
        return Rollout(
            observations=spaces.map_leaves(lambda x: x[:-1], rows.seen),
            actions=spaces.map_leaves(lambda *x: np.stack(x), *rows.actions),
            rewards=rows.rewards,
            next_observations=rows.successors(),
            terminated=rows.terminated,
            truncated=rows.truncated,
            valid=valid,
            starts=starts,
            env_actions=spaces.map_leaves(lambda *x: np.stack(x), *env_actions)
            if self._record
            else (),
        )

    def _fill_rows(self, act: Act, rows_before: int) -> tuple[Rows, list[Nest]]:
        """Takes the steps of a rollout; returns their rows and the environments' actions."""
        if self._observations is None:
            self._observations = self._flat(self.envs.reset()[0])
        rows = Rows(self.horizon, self._observations)
        env_actions: list[Nest] = []
        after = self._autoreset.after
        step_envs = self._step_composite if self._composite else self.envs.step
        progress = self._progress
        rewards, terminated, truncated = rows.rewards, rows.terminated, rows.truncated
        observations, starting = self._observations, self._autoreset.starting
        t = 0
        try:
            for t in range(self.horizon):
                progress[0] += 1
                raw, action = act(rows.see(t, observations), t, starting)
                rows.actions.append(raw)
                if self._record:
                    env_actions.append(action)
                observations, rewards[t], terminated[t], truncated[t], infos = step_envs(action)
                observations, starting = after(t, rows, observations, infos)
        except (Exception, SystemExit) as error:
            # A policy that saw a NaN acts on it: name the cause, not what came of it.
            before = spaces.map_leaves(lambda x: x[: t + 1], rows.seen)
            self._check_finite(before, rewards[:t], rows.finals, rows_before, cause=error)
            if isinstance(error, EnvironmentFailure):
                error.step = rows_before + t
                if error.environment is not None:
                    error.environment += self._first
            elif len(rows.actions) > t:  # not the policy's
                raise failure_of(error, None, rows_before + t) from error
            raise
        rows.see(self.horizon, observations)
        self._observations = observations
        return rows, env_actions

    def _step_composite(self, action: Nest) -> tuple[Any, ...]:
        """`envs.step` with one-level dicts in place of Gymnasium's own nests."""
        nested = spaces.unflatten(self.envs.single_action_space, action)
        observations, *rest = self.envs.step(nested)
        return self._flat(observations), *rest

    def _flat(self, observations: Any) -> Arrays:
        return spaces.flatten(self.envs.single_observation_space, observations)

    def _check_finite(
        self,
        seen: Arrays,
        rewards: np.ndarray,
        finals: list[Final],
        rows_before: int,
        cause: BaseException | None = None,
    ) -> None:
        """Raises NonFiniteError if there is a NaN or an infinity."""
        if bad := find_non_finite(seen, rewards, finals):
            raise NonFiniteError(
                f"environment {self._first + bad.env} gave a non-finite {bad.field} at its step "
                f"{rows_before + bad.step}: {bad.value}"
            ) from cause

    def _check_masks(self, seen: Arrays, valid: np.ndarray, rows_before: int) -> None:
        """Raises ValueError where an agent had no valid action."""
        if bad := find_empty_mask(self._mask_sizes, seen, valid):
            raise ValueError(
                f"environment {self._first + bad.env} gave an action mask without a valid action "
                f"at its step {rows_before + bad.step}: observation {bad.path!r}"
            )
