"""Making vector environments by id, with errors that suggest a remedy."""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.util
from collections.abc import Sequence
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode

from ppo_tf.environments.atari import AtariEnvs, is_atari
from ppo_tf.environments.envpool import EnvPoolEnvs, has_plain_spaces
from ppo_tf.environments.failures import (
    MISSING_PACKAGES,
    close_quietly,
    failure_of,
    labelled,
    own_frames,
)
from ppo_tf.environments.in_turn import SyncEnvs
from ppo_tf.environments.mask_observation import MaskObservation, has_mask
from ppo_tf.environments.stepping import AsyncEnvs, close
from ppo_tf.environments.waiting import mentioned
from ppo_tf.spaces.masks import MASK_KEY
from ppo_tf.support import seeds
from ppo_tf.support.checks import check_at_least_one
from ppo_tf.support.extras import extra_of_entry_point, is_atari_id, needs

BACKENDS = ("auto", "sync", "async", "vector", "envpool")

# The least numbers of environments with which a batch at once is faster than stepping in turn,
# measured on 2 cores, see BUILD_NOTES.md. MuJoCo's long steps fill EnvPool's threads with fewer.
_VECTOR_FROM, _ENVPOOL_FROM, _ENVPOOL_FROM_MUJOCO = 4, 8, 4


def make_envs(
    env_id: str,
    num_envs: int = 1,
    *,
    seed: int | Sequence[int] = 0,
    backend: str = "auto",
    autoreset_mode: AutoresetMode = AutoresetMode.SAME_STEP,
    action_mask: bool | Literal["auto"] = "auto",
    training: bool = False,
    context: str | None = None,
    max_seconds_per_step: float | None = None,
    **kwargs: Any,
) -> gymnasium.vector.VectorEnv:
    """Makes a vector of environments and seeds it, so that `reset()` starts a reproducible run.

    Args:
        env_id: id in Gymnasium's registry; "module:Name-v0" imports the module first. Atari games
            (ALE/Pong-v5, PongNoFrameskip-v4) come with their usual preprocessing, see `atari`.
        num_envs: number of environments side by side.
        seed: seed from which each environment gets its own random stream, or a seed for each.
        backend: "sync" steps the environments in turn, "async" each in its own process, "vector" is
            the environment's own vector class, "envpool" is EnvPool's C++ version of it; "auto"
            takes the fastest one available, see `choose_backend`. Atari games always use the ALE's
            own vector class.
        autoreset_mode: how "sync", "async" and Atari games start the next episode, see
            gymnasium.vector.
        action_mask: whether info["action_mask"] becomes part of the observation, see
            `mask_observation`; "auto": if a trial environment has it after a reset. Needs "sync" or
            "async".
        training: whether an Atari game's episodes end with a life and its rewards are clipped,
            which helps learning; otherwise episodes are whole games with their own scores. Has no
            effect on other environments.
        context: multiprocessing start method of "async"; None: the platform's default.
        max_seconds_per_step: how long a step or a reset may take with "sync" or "async"; None: as
            long as it takes. "sync" ends Python code and sleeps, but not native code, and only in
            the main thread and not on Windows.
        kwargs: arguments of the environment, for instance render_mode.

    Raises:
        ValueError: an argument is out of range, the environment is unknown (similar ids are
            suggested), or action_mask=True with a back end or an action space without masks.
        ImportError: a package that the environment needs is not installed.
        EnvironmentFailure: an environment raised anything else. With "sync" and "async" all that
            goes wrong in their steps and resets is one, too.
    """
    check_at_least_one(num_envs=num_envs)
    env_seeds = environment_seeds(seed, num_envs) if isinstance(seed, int) else [*seed]
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {BACKENDS}. Received: backend={backend!r}")
    spec = find_spec(env_id)
    if backend == "auto":
        backend, _ = choose_backend(env_id, num_envs, action_mask=action_mask, **kwargs)
    if max_seconds_per_step is not None and (is_atari(spec) or backend not in ("sync", "async")):
        raise ValueError(
            "max_seconds_per_step needs backend='sync' or backend='async'. "
            f"Received: max_seconds_per_step={max_seconds_per_step}, backend={backend!r}"
        )
    if action_mask is True and (is_atari(spec) or backend not in ("sync", "async")):
        raise ValueError(
            "action_mask=True needs backend='sync' or backend='async'. "
            f"Received: env={env_id!r}, backend={backend!r}"
        )
    if is_atari(spec) and backend not in ("sync", "vector"):
        raise ValueError(f"Atari games need backend='vector'. Received: backend={backend!r}")
    if backend == "envpool":
        if kwargs:
            raise ValueError(f"backend='envpool' takes no further arguments. Received: {kwargs}")
        return EnvPoolEnvs(spec.id, num_envs, env_seeds)
    if backend == "vector" and not is_atari(spec) and spec.vector_entry_point is None:
        raise ValueError(
            "backend='vector' needs an environment with its own vector class. "
            f"Received: env={env_id!r}"
        )
    try:
        if is_atari(spec):
            envs: gymnasium.vector.VectorEnv = AtariEnvs(
                spec, num_envs, training=training, autoreset_mode=autoreset_mode, **kwargs
            )
        elif backend == "vector":
            envs = gymnasium.make_vec(spec, num_envs, "vector_entry_point", **kwargs)
        else:
            masked = _probe(spec, kwargs)[0] if action_mask == "auto" else action_mask
            make = functools.partial(_make, spec, kwargs, masked)
            if backend == "async":
                envs = AsyncEnvs(make, num_envs, autoreset_mode, context, max_seconds_per_step)
            else:
                envs = SyncEnvs(make, num_envs, autoreset_mode, max_seconds_per_step)
            envs.spec = spec
        try:
            reset(envs, env_seeds)
        except BaseException:
            close(envs)
            raise
    except MISSING_PACKAGES as error:
        raise ImportError(_missing_package(env_id, spec, kwargs, error)) from error
    return envs


def choose_backend(
    env_id: str,
    num_envs: int,
    *,
    action_mask: bool | Literal["auto"] = "auto",
    **kwargs: Any,
) -> tuple[str, str]:
    """Returns the back end that `make_envs` takes for backend="auto", and why.

    "sync" for environments with action masks, whose info the faster back ends do not pass on.
    Otherwise the environment's own vector class, which computes all environments at once; otherwise
    EnvPool, if it is installed and has the environment; both only with enough environments to pay
    off; otherwise "sync". The rule is fixed, not timed: a run must not depend on how busy the
    machine was.

    Args:
        env_id, num_envs, action_mask, kwargs: see `make_envs`.

    Returns:
        (backend, reason).
    """
    spec = find_spec(env_id)
    if is_atari(spec):
        return "vector", "Atari games have the ALE's own vector class"
    try:
        provides_masks, plain = (True, False) if action_mask is True else _probe(spec, kwargs)
    except MISSING_PACKAGES as error:
        raise ImportError(_missing_package(env_id, spec, kwargs, error)) from error
    if provides_masks and action_mask is not False:
        return "sync", f"vector classes and EnvPool do not carry info[{MASK_KEY!r}]"
    if kwargs:
        return "sync", "the environment takes extra arguments"
    if spec.vector_entry_point is not None:
        if num_envs >= _VECTOR_FROM:
            return "vector", "the environment has its own vector class"
        return "sync", f"its vector class gains nothing below {_VECTOR_FROM} environments"
    if importlib.util.find_spec("envpool") is None:
        return "sync", "EnvPool is not installed"
    least = _ENVPOOL_FROM_MUJOCO if "mujoco" in str(spec.entry_point) else _ENVPOOL_FROM
    if num_envs < least:
        return "sync", f"EnvPool gains nothing below {least} environments"
    import envpool

    if spec.id not in envpool.list_all_envs():
        return "sync", "EnvPool does not have the environment"
    if not plain:
        return "sync", "EnvPool does not keep Gymnasium's Dict and Tuple spaces"
    return "envpool", "EnvPool has the environment"


def reset(
    envs: gymnasium.vector.VectorEnv,
    seeds: Sequence[int | None],
    mask: np.ndarray | None = None,
) -> np.ndarray:
    """Starts new episodes and returns the observations [B, ...].

    Args:
        envs: the environments.
        seeds: one per environment; a vector class with a single random stream takes the first.
        mask: bool [B], which environments to reset, in auto-reset mode DISABLED; None: all.
    """
    one_each = isinstance(
        envs,
        gymnasium.vector.SyncVectorEnv | gymnasium.vector.AsyncVectorEnv | EnvPoolEnvs | AtariEnvs,
    )
    seed: Any = list(seeds) if one_each else seeds[0]
    observations, _ = envs.reset(seed=seed, options=None if mask is None else {"reset_mask": mask})
    return observations


def environment_seeds(seed: int, count: int, *path: int | str) -> list[int]:
    """Derives the seeds for `reset`, one per environment, from a run's seed.

    Nearby run seeds share none of them, unlike with seed, seed + 1, ... The path is their purpose,
    as in `seeds.derive_words`.
    """
    return seeds.derive_words(count, seed, *(path or ("environments",))).tolist()


def find_spec(env_id: str) -> gymnasium.envs.registration.EnvSpec:
    """Returns the entry of an environment in Gymnasium's registry; errors as of `make_envs`."""
    module, _, name = env_id.rpartition(":")
    if not module and is_atari_id(name):
        module = "ale_py"  # registers its games when imported
    if module and not all(part.isidentifier() for part in module.split(".")):
        raise ValueError(f"{module!r} is not the name of a module. Received: env={env_id!r}")
    try:
        if module:
            importlib.import_module(module)
        return gymnasium.spec(name)
    except ImportError as error:
        if module == "ale_py":
            raise ImportError(needs(env_id, "atari")) from error
        raise ImportError(f"The module of env={env_id!r} cannot be imported: {error}") from error
    except gymnasium.error.Error as error:
        similar = _similar_ids(name)
        hint = f"; similar ids: {', '.join(similar)}" if similar else ""
        raise ValueError(f"Unknown environment. Received: env={env_id!r}{hint}") from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # of its module
        raise failure_of(error, None, None) from error


def _similar_ids(env_id: str) -> list[str]:
    known = {name.lower(): name for name in gymnasium.registry}
    return [known[n] for n in difflib.get_close_matches(env_id.lower(), known, n=3, cutoff=0.6)]


def _missing_package(
    env_id: str,
    spec: gymnasium.envs.registration.EnvSpec,
    kwargs: dict[str, Any],
    error: Exception,
) -> str:
    extra = extra_of_entry_point(spec.entry_point)
    if "pygame" in str(error) and kwargs.get("render_mode"):
        extra = "render"
    if extra is not None:
        return needs(env_id, extra)
    return f"{env_id} needs a package that is not installed: {error}"


def _probe(spec: gymnasium.envs.registration.EnvSpec, kwargs: dict[str, Any]) -> tuple[bool, bool]:
    """Returns whether a trial environment provides masks, and whether its spaces are plain."""
    if spec.entry_point is None:
        return False, False
    quiet = {name: value for name, value in kwargs.items() if name != "render_mode"}  # no window
    with mentioned("a trial environment"):
        env = _make(spec, quiet, masked=False)
        try:
            with labelled(None, 0, resetting=True):
                return has_mask(env), has_plain_spaces(env)
        finally:
            close_quietly(env)


def _make(
    spec: gymnasium.envs.registration.EnvSpec, kwargs: dict[str, Any], masked: bool
) -> gymnasium.Env[Any, Any]:
    """Makes a single environment; `masked`: with the mask from its info in the observation."""
    try:
        env = gymnasium.make(spec, **kwargs)
    except (KeyboardInterrupt, *MISSING_PACKAGES):
        raise
    except BaseException as error:
        refused = isinstance(error, ValueError | TypeError | gymnasium.error.Error)
        if refused and (kwargs or not own_frames(error)):  # the arguments, or by Gymnasium
            raise
        raise failure_of(error, None, None) from error
    return MaskObservation(env) if masked else env
