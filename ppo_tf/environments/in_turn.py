"""Stepping single environments in turn, in this process, with failures that have names."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from threading import get_ident
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import concatenate, create_empty_array, iterate

from ppo_tf.environments.failures import (
    MISSING_PACKAGES,
    NUMBERS,
    MakeEnv,
    check_info,
    check_observation,
    check_reward,
    close_quietly,
    copied,
    failure_of,
    labelled,
    misfit,
    name_call,
)
from ppo_tf.environments.waiting import WATCH, Call, can_end_calls, close_within
from ppo_tf.types import EnvironmentFailure

Batch = Callable[[Sequence[Any]], Any]  # observations -> observations [B, ...]
_ARRAYS = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)


class SyncEnvs(gymnasium.vector.SyncVectorEnv):
    """Steps environments in turn; what goes wrong is an `EnvironmentFailure`.

    Gives what Gymnasium's class gives, by a loop of its own, which is faster. An observation that
    ends an episode is copied, in case the reset overwrites it. A long wait is mentioned in the log
    "ppo_tf", see `waiting`.

    Args:
        make: makes an environment.
        num_envs: number of environments.
        autoreset_mode: see gymnasium.vector.
        max_seconds: how long a step or reset of an environment may take; None: for ever. Ends
            Python code and sleeps, by a signal, but not native code.

    Raises:
        EnvironmentFailure: an environment raised an exception while it was made.
        ValueError: max_seconds outside the main thread, or on Windows.
    """

    def __init__(
        self,
        make: MakeEnv,
        num_envs: int,
        autoreset_mode: AutoresetMode,
        max_seconds: float | None = None,
    ):
        if max_seconds is not None and not can_end_calls():
            raise ValueError(
                "max_seconds_per_step needs backend='async' outside the main thread and on "
                f"Windows. Received: max_seconds_per_step={max_seconds}, backend='sync'"
            )
        self._calls = 0  # of step and reset
        self._steps = 0
        self._made = False
        self._index: int | None = None  # the environment that is called now; None: none is
        self._reset_at: int | None = None  # its steps, if the call is a reset
        self._ended: set[int] = set()  # environments whose episodes have ended, not reset since
        made: list[gymnasium.Env[Any, Any]] = []

        def make_next() -> gymnasium.Env[Any, Any]:
            self._index = len(made)
            with labelled(self._index, None):
                made.append(make())
            return made[-1]

        self._watch(None)  # making may take longer than a step
        try:
            super().__init__([make_next] * num_envs, autoreset_mode=autoreset_mode)
        except BaseException:
            self.envs, self.render_mode = made, made[0].render_mode if made else None
            close_within(self)
            raise
        finally:
            self._index = None
        self._made = True
        self._rows = type(self.action_space) in _ARRAYS
        self._batch = _batcher(self.single_observation_space)
        self._fits = _fitter(self.single_observation_space)
        self._watch(max_seconds)

    def _watch(self, max_seconds: float | None) -> None:
        WATCH.remove(self)
        self.max_seconds, self._thread = max_seconds, get_ident()
        WATCH.add(self)

    def under_way(self) -> Call | None:
        """See `waiting.Watched`."""
        index = self._index
        if index is None:
            return None
        step = self._steps if self._reset_at is None else self._reset_at
        name = name_call(index, step if self._made else None, self._reset_at is not None)
        return Call((self._calls, index), name, self._thread)

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> Any:
        """Resets all environments, or those of the mask options["reset_mask"], bool [B]."""
        if seed is None or isinstance(seed, int):
            seed = [None if seed is None else seed + i for i in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise ValueError(f"seed must have one per environment. Received: seed={seed}")
        mask = np.ones(self.num_envs, bool)
        if options is not None and "reset_mask" in options:
            options = dict(options)
            mask = self._checked(options.pop("reset_mask"))
        self._calls, self._thread = self._calls + 1, get_ident()
        infos: dict[str, Any] = {}
        try:
            for index in np.flatnonzero(mask).tolist():
                self._index = index
                info = self._reset_one(index, self._steps, seed[index], options)
                self._add_info(infos, info, index)
                self._ended.discard(index)
        except (KeyboardInterrupt, EnvironmentFailure):
            raise
        except BaseException as error:
            if not self._steps and isinstance(error, MISSING_PACKAGES):
                raise
            raise self._failure(error) from error
        finally:
            self._index = None
        return self._batch(self._env_obs), infos

    def _checked(self, mask: Any) -> np.ndarray:
        """Returns a mask of environments to reset, if it is one."""
        fits = isinstance(mask, np.ndarray) and mask.dtype == bool
        if not fits or mask.shape != (self.num_envs,) or not mask.any():
            raise ValueError(
                f"reset_mask must be a bool array of shape ({self.num_envs},) with at least one "
                f"True. Received: reset_mask={mask!r}"
            )
        return mask

    def _reset_one(
        self,
        index: int,
        step: int,
        seed: int | None = None,
        options: dict[str, Any] | None = None,
    ) -> Any:
        """Resets an environment that has taken `step` steps; returns its info."""
        self._reset_at = step
        observation, info = self.envs[index].reset(seed=seed, options=options)
        if not self._fits(observation):
            check_observation(self.single_observation_space, observation, index, step, True)
        if type(info) is not dict:
            check_info(info, index, step, True)
        self._reset_at = None
        self._env_obs[index] = observation
        return info

    def step(self, actions: Any) -> Any:
        """Steps all environments.

        Raises:
            EnvironmentFailure: an environment raised an exception, gave something that does not
                fit, or took longer than it may.
            ValueError: another number of actions.
            gymnasium.error.ResetNeeded: an episode has ended, and nothing resets by itself.
        """
        if self._ended and self.autoreset_mode is AutoresetMode.DISABLED:
            ended = sorted(self._ended)
            raise gymnasium.error.ResetNeeded(f"environments {ended} have ended: reset them first")
        each = actions if self._rows else list(iterate(self.action_space, actions))
        if len(each) != self.num_envs:
            raise ValueError(f"actions must be {self.num_envs}. Received: actions={actions}")
        self._calls, self._thread = self._calls + 1, get_ident()
        try:
            result = self._step_each(each)
        except (KeyboardInterrupt, EnvironmentFailure):
            raise
        except BaseException as error:
            raise self._failure(error) from error
        finally:
            self._index = None
        try:
            observations = self._batch(self._env_obs)
        except Exception as error:
            raise self._misfit(error) from error
        self._steps += 1
        return observations, *result

    def _step_each(self, actions: Any) -> tuple[Any, ...]:
        """Steps the environments; kept short, as training pays for each line in every step."""
        rewards = np.zeros(self.num_envs)
        terminated, truncated = np.zeros(self.num_envs, bool), np.zeros(self.num_envs, bool)
        infos: dict[str, Any] = {}
        observations, to_reset = self._env_obs, self._ended
        self._ended = set()
        pairs = zip(self.envs, actions, strict=True)
        for self._index, (env, action) in enumerate(pairs):
            index = self._index
            if to_reset and index in to_reset:
                info = self._reset_one(index, self._steps)
            else:
                observations[index], reward, over, cut, info = env.step(action)
                if type(reward) not in NUMBERS:
                    check_reward(reward, index, self._steps)
                rewards[index] = reward
                if over or cut:
                    terminated[index], truncated[index] = over, cut
                    info = self._end(index, info, infos)
            if type(info) is not dict or info:
                check_info(info, index, self._steps)
                self._add_info(infos, info, index)
        return rewards, terminated, truncated, infos

    def _end(self, index: int, info: Any, infos: dict[str, Any]) -> Any:
        """Ends an episode as the mode wants it; returns the info of what is seen next.

        Args:
            index: of the environment.
            info: of its last step.
            infos: of all; those of the end are added if the next episode starts at once.
        """
        final = self._env_obs[index]
        if not self._fits(final):
            check_observation(self.single_observation_space, final, index, self._steps)
        if self.autoreset_mode is not AutoresetMode.SAME_STEP:
            self._ended.add(index)
            return info
        check_info(info, index, self._steps)
        self._add_info(infos, {"final_obs": copied(final), "final_info": info}, index)
        return self._reset_one(index, self._steps + 1)

    def _failure(self, error: BaseException) -> EnvironmentFailure:
        """Ends the call; returns the failure of the environment that was called."""
        index, self._index = self._index, None  # at once: nothing is overdue any more
        step = self._steps if self._reset_at is None else self._reset_at
        return failure_of(error, index, step, self._reset_at is not None)

    def _misfit(self, error: Exception) -> EnvironmentFailure:
        """The failure of the environment whose observation does not fit with the others."""
        try:
            for index, observation in enumerate(self._env_obs):
                check_observation(self.single_observation_space, observation, index, self._steps)
        except EnvironmentFailure as failure:
            return failure
        return failure_of(error, None, self._steps)

    def close_extras(self, **kwargs: Any) -> None:
        """Closes the environments; what they raise is a warning in the log "ppo_tf"."""
        WATCH.remove(self)
        for index, env in enumerate(self.envs):
            close_quietly(env, index)


def _batcher(space: spaces.Space[Any]) -> Batch:
    """Returns the function that makes one batch of observations; it raises if one does not fit."""
    if isinstance(space, spaces.Dict):
        parts = {key: _batcher(part) for key, part in space.spaces.items()}
        return lambda each: {key: of([x[key] for x in each]) for key, of in parts.items()}
    if isinstance(space, spaces.Tuple):
        elements = list(enumerate(_batcher(part) for part in space.spaces))
        return lambda each: tuple(of([x[i] for x in each]) for i, of in elements)
    if type(space) not in _ARRAYS:  # such as Text
        return lambda each: copy.deepcopy(concatenate(space, each, _room(space, len(each))))
    return _array_batcher(space)


def _room(space: spaces.Space[Any], count: int) -> Any:
    return create_empty_array(space, count)


def _array_batcher(space: spaces.Space[Any]) -> Batch:
    shape, dtype, fits = space.shape or (), space.dtype, _array_fitter(space)

    def batch(each: Sequence[Any]) -> np.ndarray:
        rows = np.empty((len(each), *shape), dtype)
        for index, x in enumerate(each):
            if not fits(x) and (problem := misfit(space, x)):
                raise ValueError(problem)
            rows[index] = x
        return rows

    return batch


def _fitter(space: spaces.Space[Any]) -> Callable[[Any], bool]:
    """Returns a quick test of observations; those that fail it need a closer look, by `misfit`."""
    if isinstance(space, spaces.Dict):
        parts = [(key, _fitter(part)) for key, part in space.spaces.items()]
        return lambda x: type(x) is dict and all(key in x and fits(x[key]) for key, fits in parts)
    if isinstance(space, spaces.Tuple):
        elements = [_fitter(part) for part in space.spaces]
        return lambda x: (
            type(x) is tuple
            and len(x) == len(elements)
            and all(fits(part) for fits, part in zip(elements, x, strict=True))
        )
    if type(space) not in _ARRAYS:
        return lambda x: False
    return _array_fitter(space)


def _array_fitter(space: spaces.Space[Any]) -> Callable[[Any], bool]:
    shape, dtype = space.shape, np.dtype(space.dtype)
    numbers = [np.dtype(code) for code in "?bBhHiIlLqQefdg"]
    fitting = frozenset(d for d in numbers if np.can_cast(d, dtype, "same_kind"))
    scalars = {int, np.int64} if shape == () and dtype == np.int64 else set()

    def fits(x: Any) -> bool:
        if type(x) is np.ndarray:
            return x.shape == shape and x.dtype in fitting
        return type(x) in scalars

    return fits
