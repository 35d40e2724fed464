"""Moving invalid-action masks from an environment's info into its observations.

Gymnasium's own environments (Taxi) and many others report in `info["action_mask"]` which actions
are valid now. Policies act on observations and trajectories keep them, so the mask belongs there.
`MaskObservation` puts it under the key "action_mask" of a `Dict`. Its form depends on the action
space:

- Discrete(n): a mask [n]; MultiBinary(n) in the observation.
- MultiDiscrete(nvec): [sum(nvec)], or nested tuples with an array per element, the form in which
  Gymnasium samples; MultiBinary(sum(nvec)) in the observation.
- Dict, Tuple: nested like the space, None for a part that is unrestricted or has no choices; in the
  observation a Dict, by key or index, of the parts that have choices.

1 or True means that the action is valid.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from ppo_tf.spaces import children
from ppo_tf.spaces.masks import MASK_KEY, find_empty, segment_sizes

_DTYPES = ("bool", "int8", "uint8", "int32", "int64")


class MaskObservation(gymnasium.Wrapper, gymnasium.utils.RecordConstructorArgs):
    """Moves `info["action_mask"]` into the observation: Dict(observation=S, action_mask=mask).

    If the observation space S is already a Dict, the mask becomes another of its keys. The info is
    unchanged. In the final observation of an episode, on which nobody acts, a mask may leave no
    valid action.

    Args:
        env: an environment whose info has the mask at every reset and step.

    Raises:
        ValueError: the action space has no choices to mask, or the observation already has the key;
            in reset and step: the mask is missing, does not have the action space's form, or leaves
            no valid action.
    """

    def __init__(self, env: gymnasium.Env):
        gymnasium.utils.RecordConstructorArgs.__init__(self)
        gymnasium.Wrapper.__init__(self, env)
        inner = env.observation_space
        masks = mask_space(env.action_space)
        if masks is None:
            raise ValueError(
                "Only Discrete and MultiDiscrete actions, or composites of them, have a mask. "
                f"Received: the action space {env.action_space}"
            )
        self._is_dict = isinstance(inner, spaces.Dict)
        parts = dict(inner.spaces) if isinstance(inner, spaces.Dict) else {"observation": inner}
        if MASK_KEY in parts:
            raise ValueError(f"The observation already has the key {MASK_KEY!r}. Received: {inner}")
        self.observation_space = spaces.Dict({**parts, MASK_KEY: masks})

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Resets the environment; the observation includes the mask."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._with_mask(observation, info, "reset", final=False), info

    def step(self, action: Any) -> tuple[dict[str, Any], Any, bool, bool, dict[str, Any]]:
        """Steps the environment; the observation includes the mask."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        final = bool(terminated or truncated)
        observation = self._with_mask(observation, info, "step", final)
        return observation, reward, terminated, truncated, info

    def _with_mask(
        self, observation: Any, info: dict[str, Any], method: str, final: bool
    ) -> dict[str, Any]:
        if MASK_KEY not in info:
            raise ValueError(
                f"{method}() of {self.env} returned no info[{MASK_KEY!r}], which action_mask=True "
                f"requires at every step. Received: info with the keys {sorted(map(str, info))}"
            )
        mask = _read(self.env.action_space, info[MASK_KEY], f"info[{MASK_KEY!r}]", final)
        parts = observation if self._is_dict else {"observation": observation}
        return {**parts, MASK_KEY: mask}


def has_mask(env: gymnasium.Env) -> bool:
    """Whether an environment provides masks: resets it and looks in the info."""
    parts = env.observation_space
    if isinstance(parts, spaces.Dict) and MASK_KEY in parts.spaces:
        return False  # the observation has it already
    if mask_space(env.action_space) is None:
        return False
    _, info = env.reset(seed=0)
    return MASK_KEY in info


def mask_space(action: spaces.Space[Any]) -> spaces.Space[Any] | None:
    """Returns the space of an action space's masks; None if nothing in it can be masked."""
    if isinstance(action, spaces.Discrete | spaces.MultiDiscrete):
        return spaces.MultiBinary(sum(segment_sizes(action)))
    parts = {str(key): mask_space(part) for key, part in children(action)}
    found = {key: part for key, part in parts.items() if part is not None}
    return spaces.Dict(found) if found else None


def _read(action: spaces.Space[Any], mask: Any, name: str, final: bool) -> Any:
    """Returns a mask as int8 arrays, nested like `mask_space`."""
    if not isinstance(action, spaces.Discrete | spaces.MultiDiscrete):
        return _read_composite(action, mask, name, final)
    sizes = segment_sizes(action)
    if mask is None:
        return np.ones(sum(sizes), np.int8)
    if isinstance(action, spaces.MultiDiscrete) and isinstance(mask, tuple):
        mask = np.concatenate([np.ravel(part) for part in _flat(mask)])
    array = np.asarray(mask)
    if array.shape != (sum(sizes),) or array.dtype.name not in _DTYPES:
        raise ValueError(
            f"{name} must have shape ({sum(sizes)},) and be bool or int8 for the action space "
            f"{action}. Received: shape {array.shape}, dtype {array.dtype}"
        )
    valid = array != 0
    if not final and find_empty(valid, sizes) is not None:
        raise ValueError(f"{name} leaves no valid action of {action}. Received: {array.tolist()}")
    return valid.astype(np.int8)


def _read_composite(action: spaces.Space[Any], mask: Any, name: str, final: bool) -> dict[str, Any]:
    is_dict = isinstance(action, spaces.Dict)
    keys = [key for key, _ in children(action)]
    if mask is None:
        mask = dict.fromkeys(keys) if is_dict else (None,) * len(keys)
    fits = isinstance(mask, dict if is_dict else tuple | list)
    if not fits or (set(mask) - set(keys) if is_dict else len(mask) != len(keys)):
        raise ValueError(
            f"{name} must be nested like the action space {action}. Received: {mask!r}"
        )
    found = {}
    for key, part in children(action):
        value = mask.get(key) if is_dict else mask[key]
        where = f"{name}[{key!r}]"
        if mask_space(part) is not None:
            found[str(key)] = _read(part, value, where, final)
        elif value is not None:
            raise ValueError(f"{where} masks {part}, which has no choices. Received: {value!r}")
    return found


def _flat(mask: tuple[Any, ...]) -> Iterator[Any]:
    for part in mask:
        if isinstance(part, tuple):
            yield from _flat(part)
        else:
            yield part
