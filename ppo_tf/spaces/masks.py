"""Invalid-action masks: which of an observation's leaves say what can't be done now.

A mask is a part of a `Dict` observation under one key, "action_mask": 1 where the category can be
chosen, 0 where it can't. `Discrete(n)` takes a mask [n]; `MultiDiscrete(nvec)` one of sum(nvec)
entries, a segment per element in nvec's C order. The masks of a composite action space are nested
as that space, under the same keys; what has no mask is free: "action_mask/move" masks the action
"move". The actor sets the logits of invalid categories to a very low number, so that their
probability is 0 (Huang and Ontañón 2022, "A closer look at invalid action masking").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np

from ppo_tf.spaces.composite import leaves, paths

MASK_KEY = "action_mask"

_DTYPES = ("int8", "uint8", "bool")


def is_mask(path: str, mask_key: str | None = MASK_KEY) -> bool:
    """Whether an observation path is that of a mask: the key itself or under it.

    Args:
        path: of an observation's leaf.
        mask_key: the key; None: there are no masks.
    """
    return mask_key is not None and (path == mask_key or path.startswith(mask_key + "/"))


def mask_paths(observation_space: gymnasium.Space, mask_key: str | None = MASK_KEY) -> list[str]:
    """The paths of the masks in an observation; a plain observation has none."""
    return [p for p in paths(observation_space) if is_mask(p, mask_key)]


def segment_sizes(action: gymnasium.Space) -> tuple[int, ...]:
    """Categories of each choice of an action leaf: (n,) of Discrete, nvec of MultiDiscrete.

    Raises:
        ValueError: a space without categories, which can't be masked.
    """
    if isinstance(action, gymnasium.spaces.Discrete):
        return (int(action.n),)
    if isinstance(action, gymnasium.spaces.MultiDiscrete):
        return tuple(int(n) for n in np.ravel(action.nvec))
    raise ValueError(f"Only Discrete and MultiDiscrete actions have a mask. Received: {action}")


def masked_leaves(
    observation_space: gymnasium.Space,
    action_space: gymnasium.Space,
    mask_key: str | None = MASK_KEY,
) -> dict[str, str]:
    """The action leaves that have a mask, and where in the observation it is.

    Args:
        observation_space: of one environment.
        action_space: of one environment.
        mask_key: key of the masks; None: there are none.

    Returns:
        {path of the action leaf: path of its mask}, the path "" for a plain action space; empty
        without masks.

    Raises:
        ValueError: a mask that does not fit its action, of another shape or dtype for instance, or
            has none.
    """
    observations: Any = leaves(observation_space)
    actions = leaves(action_space)
    if not isinstance(actions, dict):
        actions = {"": actions}
    found = {}
    for path in mask_paths(observation_space, mask_key):
        action_path = path[len(str(mask_key)) + 1 :]
        if action_path not in actions:
            raise ValueError(
                f"The masks in the observation must be nested as the action space. Received: "
                f"{path!r} for the action space {action_space}"
                + (f", whose paths are {list(actions)}" if "" not in actions else "")
            )
        _check(path, observations[path], actions[action_path])
        found[action_path] = path
    return found


def find_empty(mask: np.ndarray, sizes: Sequence[int]) -> int | None:
    """The first row of a mask in which one of the choices has no valid category.

    Args:
        mask: int or bool [..., n], nonzero where valid.
        sizes: categories of each choice, as of `segment_sizes`; their sum is n.

    Returns:
        The row's index, counted through the leading axes in C order; None if there is no such row.

    Raises:
        ValueError: sizes that do not add up to n.
    """
    mask = np.asarray(mask)
    if sum(sizes) != mask.shape[-1] or min(sizes) < 1:
        raise ValueError(
            "sizes must be positive and add up to the mask's last axis. "
            f"Received: sizes={tuple(sizes)}, mask of shape {mask.shape}"
        )
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    empty = ~np.logical_or.reduceat(mask != 0, starts, axis=-1).all(axis=-1)
    rows = np.flatnonzero(empty)
    return int(rows[0]) if len(rows) else None


def _check(path: str, mask: gymnasium.Space, action: gymnasium.Space) -> None:
    received = f"Received: {path!r} is {mask}, the action space is {action}"
    try:
        sizes = segment_sizes(action)
    except ValueError:
        raise ValueError(
            f"Only Discrete and MultiDiscrete actions have a mask. {received}"
        ) from None
    is_array = isinstance(mask, gymnasium.spaces.Box | gymnasium.spaces.MultiBinary)
    size = sum(sizes)
    if not is_array or mask.shape != (size,) or np.dtype(mask.dtype).name not in _DTYPES:
        raise ValueError(
            f"The mask of {action} must be a MultiBinary or a Box of shape ({size},) and dtype "
            f"{', '.join(_DTYPES)}. {received}"
        )
