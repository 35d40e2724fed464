"""Invalid-action masks that an environment tells in its info, made a part of what it observes.

Gymnasium's own environments (Taxi) and many others say in `info["action_mask"]` which actions can
be taken now. A policy acts on observations, a trajectory keeps observations: so the mask belongs
there. `MaskObservation` puts it under the key "action_mask" of a `Dict`; which form a mask has is
said by the action space:

- Discrete(n): a mask [n]; MultiBinary(n) in the observation.
- MultiDiscrete(nvec): [sum(nvec)], or nested tuples of an array per element, the form Gymnasium
  samples with; MultiBinary(sum(nvec)) in the observation.
- Dict, Tuple: nested as the space, None for a part that is free or has no choices; in the
  observation a Dict by key or index of the parts that have choices.

1 or True: the action can be taken.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from ppo_tf.spaces import children
from ppo_tf.spaces.masks import MASK_KEY, find_empty, segment_sizes

_DTYPES = ("bool", "int8", "uint8", "int32", "int64")


class MaskObservation(gymnasium.Wrapper, gymnasium.utils.RecordConstructorArgs):
    """Moves `info["action_mask"]` into the observation: Dict(observation=S, action_mask=mask).

    If the observation space S is a Dict already, the mask becomes one more of its keys. The info
    stays as it is. In the final observation of an episode, on which nobody acts, a mask may leave
    no action.

    Args:
        env: whose info has the mask at every reset and step.

    Raises:
        ValueError: the action space has no choices to mask, or the observation has the key already;
            in reset and step: a mask that is missing, of another form than the action space says,
            or leaves no action.
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
            raise ValueError(f"The observation has the key {MASK_KEY!r} already. Received: {inner}")
        self.observation_space = spaces.Dict({**parts, MASK_KEY: masks})

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        """As the environment's, the mask in the observation."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._with_mask(observation, info, "reset", final=False), info

    def step(self, action: Any):
        """As the environment's, the mask in the observation."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        final = bool(terminated or truncated)
        observation = self._with_mask(observation, info, "step", final)
        return observation, reward, terminated, truncated, info

    def _with_mask(self, observation: Any, info: dict[str, Any], method: str, final: bool) -> dict:
        if MASK_KEY not in info:
            raise ValueError(
                f"{method}() of {self.env} gave no info[{MASK_KEY!r}], which action_mask=True asks "
                f"for at every step. Received: info with the keys {sorted(map(str, info))}"
            )
        mask = _read(self.env.action_space, info[MASK_KEY], f"info[{MASK_KEY!r}]", final)
        parts = observation if self._is_dict else {"observation": observation}
        return {**parts, MASK_KEY: mask}


def has_mask(env: gymnasium.Env) -> bool:
    """Whether an environment tells masks: resets it and looks into the info."""
    parts = env.observation_space
    if isinstance(parts, spaces.Dict) and MASK_KEY in parts.spaces:
        return False  # it is where it belongs
    if mask_space(env.action_space) is None:
        return False
    _, info = env.reset(seed=0)
    return MASK_KEY in info


def mask_space(action: spaces.Space) -> spaces.Space | None:
    """The space of an action space's masks; None if nothing in it can be masked."""
    if isinstance(action, spaces.Discrete | spaces.MultiDiscrete):
        return spaces.MultiBinary(sum(segment_sizes(action)))
    parts = {str(key): mask_space(part) for key, part in children(action)}
    found = {key: part for key, part in parts.items() if part is not None}
    return spaces.Dict(found) if found else None


def _read(action: spaces.Space, mask: Any, name: str, final: bool) -> Any:
    """A mask as int8 arrays, nested as `mask_space` says."""
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
        raise ValueError(f"{name} leaves no action of {action}. Received: {array.tolist()}")
    return valid.astype(np.int8)


def _read_composite(action: spaces.Space, mask: Any, name: str, final: bool) -> dict:
    is_dict = isinstance(action, spaces.Dict)
    keys = [key for key, _ in children(action)]
    if mask is None:
        mask = dict.fromkeys(keys) if is_dict else (None,) * len(keys)
    fits = isinstance(mask, dict if is_dict else tuple | list)
    if not fits or (set(mask) - set(keys) if is_dict else len(mask) != len(keys)):
        raise ValueError(f"{name} must be nested as the action space {action}. Received: {mask!r}")
    found = {}
    for key, part in children(action):
        value = mask.get(key) if is_dict else mask[key]
        where = f"{name}[{key!r}]"
        if mask_space(part) is not None:
            found[str(key)] = _read(part, value, where, final)
        elif value is not None:
            raise ValueError(f"{where} masks {part}, which has no choices. Received: {value!r}")
    return found


def _flat(mask: Any):
    for part in mask:
        if isinstance(part, tuple):
            yield from _flat(part)
        else:
            yield part
