"""What an environment does wrong, said in one line that names it and the step."""

from __future__ import annotations

import os
import traceback
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np

from ppo_tf.types import EnvironmentFailure

# Types of rewards that need no closer look.
_NUMBERS = frozenset(
    {float, int, bool, np.float64, np.float32, np.float16, np.int64, np.int32, np.bool_}
)
_NO_FAILURES = (KeyboardInterrupt, GeneratorExit)  # Ctrl-C is the user's
MISSING_PACKAGES = (ImportError, gymnasium.error.DependencyNotInstalled)
_LIBRARIES = tuple(
    os.path.dirname(os.path.abspath(path)) + os.sep
    for path in (gymnasium.__file__, os.path.dirname(__file__))
)


def failure_of(
    error: BaseException, environment: int | None, step: int | None, resetting: bool = False
) -> EnvironmentFailure:
    """Returns the failure of an environment that raised an exception; arguments as its own."""
    what = f"raised {type(error).__name__}"
    frames = own_frames(error)
    return EnvironmentFailure(environment, what, _message(error), step, resetting, frames)


def own_frames(error: BaseException) -> str:
    """Formats the traceback without the frames of Gymnasium and of this package."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not os.path.abspath(f.filename).startswith(_LIBRARIES)]
    return "".join(traceback.format_list(own))


def misfit(space: gymnasium.Space[Any], value: Any, name: str = "observation") -> str | None:
    """What is wrong with an observation's structure or shape; None if it fits.

    Args:
        space: space of the observation.
        value: observation.
        name: what to call it.

    Returns:
        What was expected and what came.
    """
    if isinstance(space, gymnasium.spaces.Dict):
        if not isinstance(value, Mapping) or not space.spaces.keys() <= value.keys():
            return f"{name} must be a dict with keys {list(space)}. Received: {describe(value)}"
        parts: Any = [(key, part, value[key]) for key, part in space.spaces.items()]
    elif isinstance(space, gymnasium.spaces.Tuple):
        if not isinstance(value, tuple | list) or len(value) != len(space.spaces):
            return f"{name} must be a tuple of {len(space.spaces)}. Received: {describe(value)}"
        parts = [(i, part, value[i]) for i, part in enumerate(space.spaces)]
    else:
        return _array_misfit(space, value, name)
    problems = (misfit(part, of_it, f"{name}[{key!r}]") for key, part, of_it in parts)
    return next((problem for problem in problems if problem), None)


def _array_misfit(space: gymnasium.Space[Any], value: Any, name: str) -> str | None:
    if space.shape is None:  # a space without arrays, such as Text
        return None
    try:
        array = np.asarray(value)
        fits = array.shape == space.shape and array.dtype.kind in "biufc"
    except Exception:  # such as a ragged list
        fits = False
    if fits:
        return None
    expected = f"an array of shape {space.shape}, {space.dtype}"
    return f"{name} must be {expected}. Received: {describe(value)}"


def describe(value: Any) -> str:
    """Describes a value in a few words: the shape and type of an array, the keys of a dict."""
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}, {value.dtype}"
    if isinstance(value, Mapping):
        return f"a dict with keys {list(value)}"
    try:
        text = repr(value)
    except Exception:
        text = "?"
    return f"{text[:60]}{'...' * (len(text) > 60)} ({type(value).__name__})"


class Guard(gymnasium.Wrapper[Any, Any, Any, Any], gymnasium.utils.RecordConstructorArgs):
    """Turns whatever goes wrong in an environment into an `EnvironmentFailure`.

    Missing packages stay ImportErrors until the first step.

    Args:
        env: environment.
        index: its index among those side by side.
        strict: whether to check observations in every step, not only when an episode starts or
            ends.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], index: int, strict: bool = False):
        gymnasium.utils.RecordConstructorArgs.__init__(self, index=index, strict=strict)
        gymnasium.Wrapper.__init__(self, env)
        self.index, self.steps = index, 0
        self._strict = strict

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Steps the environment."""
        try:
            result = self.env.step(action)
            observation, reward, terminated, truncated, info = result
            if (
                type(reward) not in _NUMBERS
                or type(info) is not dict
                or terminated
                or truncated
                or self._strict
            ):
                self._check_reward(reward)
                self._check(observation, info)
        except _NO_FAILURES:
            raise
        except EnvironmentFailure:
            raise
        except BaseException as error:
            raise failure_of(error, self.index, self.steps) from error
        self.steps += 1
        return result

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Resets the environment."""
        try:
            observation, info = self.env.reset(seed=seed, options=options)
            self._check(observation, info, resetting=True)
        except _NO_FAILURES:
            raise
        except EnvironmentFailure:
            raise
        except BaseException as error:
            if not self.steps and isinstance(error, MISSING_PACKAGES):
                raise
            raise failure_of(error, self.index, self.steps, True) from error
        return observation, info

    def _check(self, observation: Any, info: Any, resetting: bool = False) -> None:
        if problem := misfit(self.observation_space, observation):
            raise self._failure("gave an observation that does not fit", problem, resetting)
        if not isinstance(info, Mapping):
            problem = f"info must be a dict. Received: {describe(info)}"
            raise self._failure("gave an info that is no dict", problem, resetting)

    def _check_reward(self, reward: Any) -> None:
        number = isinstance(reward, int | float | np.number | np.bool_)
        if not number and not (isinstance(reward, np.ndarray) and reward.shape == ()):
            problem = f"reward must be a number. Received: {describe(reward)}"
            raise self._failure("gave a reward that is no number", problem)

    def _failure(self, what: str, problem: str, resetting: bool = False) -> EnvironmentFailure:
        return EnvironmentFailure(self.index, what, problem, self.steps, resetting)


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # the environment's own class may fail at this as well
        return ""
