"""Invalid-action masks: the leaves of an observation that say which actions are valid now.

A mask is the part of a `Dict` observation under the key "action_mask": 1 where a category can be
chosen, 0 where it can't. `Discrete(n)` takes a mask [n]; `MultiDiscrete(nvec)` one of sum(nvec)
entries, a segment per element in nvec's C order. The masks of a composite action space are nested
like that space, under the same keys: "action_mask/move" masks the action "move". An action without
a mask is unrestricted. The actor sets the logits of invalid categories to a very low number, so
that their probability is 0 (Huang and Ontañón 2022, "A closer look at invalid action masking").
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
    """Whether an observation path belongs to a mask: it is the mask key or lies under it.

    Args:
        path: path of an observation leaf.
        mask_key: key of the masks; None: there are no masks.
    """
    return mask_key is not None and (path == mask_key or path.startswith(mask_key + "/"))


def mask_paths(
    observation_space: gymnasium.Space[Any], mask_key: str | None = MASK_KEY
) -> list[str]:
    """Returns the paths of the masks in an observation; none for a plain observation."""
    return [p for p in paths(observation_space) if is_mask(p, mask_key)]


def segment_sizes(action: gymnasium.Space[Any]) -> tuple[int, ...]:
    """Returns the number of categories per choice: (n,) for Discrete, nvec for MultiDiscrete.

    Raises:
        ValueError: the action space has no categories, so it can't be masked.
    """
    if isinstance(action, gymnasium.spaces.Discrete):
        return (int(action.n),)
    if isinstance(action, gymnasium.spaces.MultiDiscrete):
        return tuple(int(n) for n in np.ravel(action.nvec))
    raise ValueError(f"Only Discrete and MultiDiscrete actions have a mask. Received: {action}")


def masked_leaves(
    observation_space: gymnasium.Space[Any],
    action_space: gymnasium.Space[Any],
    mask_key: str | None = MASK_KEY,
) -> dict[str, str]:
    """Finds the action leaves that have a mask, and each mask's path in the observation.

    Args:
        observation_space: observation space of a single environment.
        action_space: action space of a single environment.
        mask_key: key of the masks; None: there are none.

    Returns:
        {path of the action leaf: path of its mask}, with "" as the path of a plain action space;
        empty if there are no masks.

    Raises:
        ValueError: a mask belongs to no action, or does not match its action's shape or dtype.
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
                f"The masks in the observation must be nested like the action space. Received: "
                f"{path!r} for the action space {action_space}"
                + (f", whose paths are {list(actions)}" if "" not in actions else "")
            )
        _check(path, observations[path], actions[action_path])
        found[action_path] = path
    return found


def find_empty(mask: np.ndarray, sizes: Sequence[int]) -> int | None:
    """Finds the first row of a mask in which some choice has no valid category.

    Args:
        mask: int or bool [..., n], nonzero where valid.
        sizes: number of categories of each choice, see `segment_sizes`; their sum is n.

    Returns:
        The row's index over the leading axes in C order; None if there is no such row.

    Raises:
        ValueError: the sizes are not positive, or do not add up to n.
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


def _check(path: str, mask: gymnasium.Space[Any], action: gymnasium.Space[Any]) -> None:
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
