"""What a rollout is searched for: numbers that aren't finite, and masks without a valid action."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from ppo_tf import spaces
from ppo_tf.collecting.rows import Final
from ppo_tf.spaces import masks
from ppo_tf.types import Arrays


class NonFinite(NamedTuple):
    """A NaN or an infinity from an environment.

    Attributes:
        step: row of the rollout; an observation belongs to the step that acts on it.
        env: index of the environment.
        field: "reward", "observation", or "observation" with its path.
        value: the number.
    """

    step: int
    env: int
    field: str
    value: Any


def find_non_finite(seen: Arrays, rewards: np.ndarray, finals: Sequence[Final]) -> NonFinite | None:
    """The first number that isn't finite, by step and then by environment; None if all are.

    Args:
        seen: observations [T + 1, B, ...], as of `Rows`.
        rewards: float [T, B].
        finals: final observations; what ends step t counts as of step t + 1.
    """
    found = []
    for path, leaf in seen.items() if isinstance(seen, dict) else [(None, seen)]:
        if not np.issubdtype(leaf.dtype, np.floating):
            continue
        field = "observation" if path is None else f"observation {path!r}"
        for step, env, *_ in np.argwhere(~np.isfinite(leaf))[:1]:
            found.append(NonFinite(step, env, field, leaf[step, env]))
        for final in finals:
            rows = final.observations if path is None else final.observations[path]
            for env, row in zip(final.environments, rows, strict=True):
                if not np.isfinite(row.astype(leaf.dtype)).all():
                    found.append(NonFinite(final.step + 1, env, field, row))
    for step, env in np.argwhere(~np.isfinite(rewards))[:1]:
        found.append(NonFinite(step, env, "reward", rewards[step, env]))
    if not found:
        return None
    first = min(found, key=lambda bad: (bad.step, bad.env))
    values = np.ravel(first.value)
    return first._replace(value=values[~np.isfinite(values.astype(np.float32))][0])


class EmptyMask(NamedTuple):
    """A mask without a valid action.

    Attributes:
        step: row of the rollout.
        env: index of the environment.
        path: of the mask in the observation.
    """

    step: int
    env: int
    path: str


def mask_sizes(
    envs: gymnasium.vector.VectorEnv, mask_key: str | None
) -> dict[str, tuple[int, ...]]:
    """{path of a mask in the observation: categories of each choice that it masks}.

    Args:
        envs: the environments.
        mask_key: key of the masks; None: there are none.

    Raises:
        ValueError: a mask that doesn't fit its action.
    """
    space = envs.single_action_space
    actions: Any = spaces.leaves(space)
    found = masks.masked_leaves(envs.single_observation_space, space, mask_key)
    return {
        path: masks.segment_sizes(actions[action] if action else actions)
        for action, path in found.items()
    }


def find_empty_mask(
    sizes: Mapping[str, tuple[int, ...]], seen: Arrays, valid: np.ndarray
) -> EmptyMask | None:
    """The first row on which an agent had no valid action; None if there is none.

    Args:
        sizes: as of `mask_sizes`.
        seen: observations [T + 1, B, ...]; nobody acts on the last row.
        valid: bool [T, B]; on other rows masks may be empty.
    """
    for path, segments in sizes.items():
        row = masks.find_empty(seen[path][:-1][valid], segments)
        if row is not None:
            step, env = np.argwhere(valid)[row]
            return EmptyMask(step, env, path)
    return None
