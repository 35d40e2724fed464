"""What an environment does wrong, said in one line that names it and the step."""

from __future__ import annotations

import contextlib
import copy
import importlib
import logging
import os
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import gymnasium
import numpy as np

from ppo_tf.types import EnvironmentFailure

MakeEnv = Callable[[], gymnasium.Env[Any, Any]]

# Types of rewards that need no closer look.
NUMBERS = frozenset(
    {float, int, bool, np.float64, np.float32, np.float16, np.int64, np.int32, np.bool_}
)
MISSING_PACKAGES = (ImportError, gymnasium.error.DependencyNotInstalled)
_LIBRARIES = tuple(
    os.path.dirname(os.path.abspath(path)) + os.sep
    for path in (gymnasium.__file__, importlib.__file__, os.path.dirname(__file__))
)
_LOG = logging.getLogger("ppo_tf")


class Overdue(BaseException):
    """Raised where an environment takes longer than it may.

    No Exception, so that an environment's own `except Exception` lets it pass.
    """


def failure_of(
    error: BaseException, environment: int | None, step: int | None, resetting: bool = False
) -> EnvironmentFailure:
    """Returns the failure of an environment that raised an exception; arguments as its own."""
    what = "did not answer" if isinstance(error, Overdue) else f"raised {type(error).__name__}"
    frames = own_frames(error)
    return EnvironmentFailure(environment, what, message_of(error), step, resetting, frames)


def own_frames(error: BaseException) -> str:
    """Formats the traceback without the frames of Gymnasium, of this package and of `import`."""
    frames = traceback.extract_tb(error.__traceback__)
    return "".join(traceback.format_list([f for f in frames if is_own(f.filename)]))


def is_own(filename: str) -> bool:
    """Whether a frame's file may be an environment's own."""
    return not filename.startswith("<frozen ") and not os.path.abspath(filename).startswith(
        _LIBRARIES
    )


def name_call(environment: int, step: int | None, resetting: bool = False) -> str:
    """Names what an environment is doing, such as "environment 2 at its step 31"."""
    if step is None:
        return f"environment {environment} to be made"
    if resetting and not step:
        return f"environment {environment} in its first reset"
    when = "in its reset at" if resetting else "at its"
    return f"environment {environment} {when} step {step}"


def message_of(error: BaseException) -> str:
    """Returns an exception's message, without failing itself."""
    try:
        return str(error)
    except Exception:  # the environment's own class may fail at this as well
        return ""


@contextlib.contextmanager
def labelled(
    environment: int | None,
    step: int | None,
    resetting: bool = False,
    passing: tuple[type[BaseException], ...] = (KeyboardInterrupt,),
) -> Iterator[None]:
    """Context in which an environment's exception becomes an `EnvironmentFailure`.

    What is `passing` passes, and so does a missing package before the first step.
    """
    try:
        yield
    except passing:
        raise
    except EnvironmentFailure as failure:
        if failure.environment is None:
            failure.environment = environment
        raise
    except BaseException as error:
        if not step and isinstance(error, MISSING_PACKAGES):
            raise
        raise failure_of(error, environment, step, resetting) from error


def close_quietly(env: gymnasium.Env[Any, Any], environment: int | None = None) -> None:
    """Closes an environment; what it raises is a warning in the log "ppo_tf"."""
    try:
        env.close()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        who = "an environment" if environment is None else f"environment {environment}"
        said = "%s raised %s while it was closed: %s"
        _LOG.warning(said, who, type(error).__name__, message_of(error))


def copied(observation: Any) -> Any:
    """Copies an observation, which the environment may write over."""
    return observation.copy() if type(observation) is np.ndarray else copy.deepcopy(observation)


def check_reward(reward: Any, environment: int, step: int) -> None:
    """Raises EnvironmentFailure if a reward is no number."""
    number = isinstance(reward, int | float | np.number | np.bool_)
    if not number and not (isinstance(reward, np.ndarray) and reward.shape == ()):
        problem = f"reward must be a number. Received: {describe(reward)}"
        raise EnvironmentFailure(environment, "gave a reward that is no number", problem, step)


def check_observation(
    space: gymnasium.Space[Any],
    observation: Any,
    environment: int,
    step: int,
    resetting: bool = False,
) -> None:
    """Raises EnvironmentFailure if an observation does not fit its space."""
    if problem := misfit(space, observation):
        what = "gave an observation that does not fit"
        raise EnvironmentFailure(environment, what, problem, step, resetting)


def check_info(info: Any, environment: int, step: int, resetting: bool = False) -> None:
    """Raises EnvironmentFailure if an info is no dict."""
    if not isinstance(info, Mapping):
        problem = f"info must be a dict. Received: {describe(info)}"
        what = "gave an info that is no dict"
        raise EnvironmentFailure(environment, what, problem, step, resetting)


def misfit(space: gymnasium.Space[Any], value: Any, name: str = "observation") -> str | None:
    """What is wrong with an observation's structure, shape or type; None if it fits.

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
        fits = array.shape == space.shape and keeps_values(array, space.dtype)
    except Exception:  # such as a ragged list
        fits = False
    if fits:
        return None
    expected = f"an array of shape {space.shape}, {space.dtype}"
    return f"{name} must be {expected}. Received: {describe(value)}"


def keeps_values(array: np.ndarray, dtype: Any) -> bool:
    """Whether a dtype can hold an array's values, up to the precision of floats."""
    if np.can_cast(array.dtype, dtype, "same_kind"):
        return True
    with np.errstate(invalid="ignore"):  # a NaN becomes some integer, which is another value
        return array.dtype.kind in "biuf" and np.array_equal(array.astype(dtype), array)


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

    In steps and resets a KeyboardInterrupt counts as well: Ctrl-C does not reach the processes that
    guards are for.

    Args:
        env: environment.
        index: its index among those side by side.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], index: int):
        gymnasium.utils.RecordConstructorArgs.__init__(self, index=index)
        gymnasium.Wrapper.__init__(self, env)
        self.index, self.steps = index, 0

    @classmethod
    def around(cls, make: MakeEnv, index: int) -> Guard:
        """Makes an environment and returns its guard."""
        with labelled(index, None):
            return cls(make(), index)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Steps the environment."""
        try:
            observation, reward, terminated, truncated, info = self.env.step(action)
            if type(reward) not in NUMBERS:
                check_reward(reward, self.index, self.steps)
            check_observation(self.observation_space, observation, self.index, self.steps)
            check_info(info, self.index, self.steps)
            if terminated or truncated:
                observation = copied(observation)
        except EnvironmentFailure:
            raise
        except BaseException as error:
            raise failure_of(error, self.index, self.steps) from error
        self.steps += 1
        return observation, reward, terminated, truncated, info

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Resets the environment."""
        with labelled(self.index, self.steps, resetting=True, passing=()):
            observation, info = self.env.reset(seed=seed, options=options)
            check_observation(self.observation_space, observation, self.index, self.steps, True)
            check_info(info, self.index, self.steps, True)
        return observation, info

    def close(self) -> None:
        """Closes the environment; what it raises is a warning in the log "ppo_tf"."""
        close_quietly(self.env, self.index)
