"""For an action space: its distribution, the parameters a network must supply, and the action map.

The agent works with raw actions, the distribution's own samples; the action map turns them into
what `env.step` takes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import gymnasium
import numpy as np
import tensorflow_probability as tfp

from ppo_tf import spaces
from ppo_tf.actions.distributions import (
    FullGaussian,
    Joint,
    MultiBernoulli,
    MultiCategorical,
    StateDependentExploration,
    TanhGaussian,
    TruncatedGaussian,
    UnimodalBeta,
)
from ppo_tf.actions.maps import (
    BinAction,
    ClipAction,
    DiscreteAction,
    JointAction,
    TanhAction,
    UnitAction,
)
from ppo_tf.support.checks import check_at_least_one
from ppo_tf.types import ActionMap, DistributionFamily

tfd = tfp.distributions

Continuous = Literal[
    "clipped_gaussian",
    "tanh_gaussian",
    "beta",
    "truncated_gaussian",
    "full_covariance",
    "gsde",
    "categorical",
]


@dataclass(frozen=True)
class ActionSpec:
    """How to act in a space.

    Attributes:
        family: callable from the distribution's parameters, by name, to the distribution.
        parameters: size of each parameter's last axis, {name: size}; for a Dict or Tuple
            {path: {name: size}} with the paths of `spaces.leaves`.
        action_map: callable from raw actions [B, ...] to what `env.step` takes; for a Dict or Tuple
            from {path: [B, ...]} to {path: action}, which `spaces.unflatten` nests.
    """

    family: DistributionFamily
    parameters: dict[str, Any]
    action_map: ActionMap


def action_spec(
    space: gymnasium.Space[Any],
    *,
    continuous: Continuous = "clipped_gaussian",
    sde_period: int = 4,
    bins: int = 41,
) -> ActionSpec:
    """Chooses the distribution for an action space.

    | space | distribution | parameters |
    |---|---|---|
    | Discrete(n) | Categorical | logits [n] |
    | MultiDiscrete(sizes) | independent categoricals | logits [sum of sizes] |
    | MultiBinary(n) | independent Bernoullis | logits [n] |
    | Box of n floats | chosen by `continuous` | see below |
    | Dict, Tuple | those of the leaves, independent | by path |

    | continuous | distribution of raw actions | parameters | mapped into the Box by |
    |---|---|---|---|
    | clipped_gaussian | Gaussian | loc, scale_diag [n] | clipping |
    | tanh_gaussian | Gaussian, entropy of its tanh | loc, scale_diag [n] | tanh |
    | beta | Betas on (0, 1) | concentration1, concentration0 [n] | rescaling |
    | truncated_gaussian | truncated Gaussians on [-1, 1] | loc, scale_diag [n] | rescaling |
    | full_covariance | Gaussian | loc [n], scale_tril [n (n + 1) / 2] | clipping |
    | gsde | Gaussian, noise held for several steps | loc [n], directions [F, n] | clipping |
    | categorical | independent categoricals | logits [n bins] | evenly spaced values |

    Categoricals of evenly spaced values can have several peaks (Tang and Agrawal 2020, arXiv
    1901.10500); log-probabilities, entropies and divergences are sums over the elements.

    Args:
        space: action space of a single environment.
        continuous: the distribution for every Box in the space. "beta", "truncated_gaussian" and
            "categorical" need Boxes with finite bounds.
        sde_period: number of steps for which "gsde" holds its noise, at least 1.
        bins: number of values per element of "categorical", at least 2.

    Raises:
        ValueError: the space is not supported, or an option is unknown or does not fit the space.
    """
    if continuous not in get_args(Continuous):
        raise ValueError(
            f"continuous must be one of {', '.join(map(repr, get_args(Continuous)))}. "
            f"Received: continuous={continuous!r}"
        )
    check_at_least_one(sde_period=sde_period)
    if bins < 2:
        raise ValueError(f"bins must be at least 2. Received: bins={bins}")
    box = functools.partial(_box_spec, continuous=continuous, sde_period=sde_period, bins=bins)
    if not spaces.is_composite(space):
        return _leaf_spec(space, "", box)
    leaves: Any = spaces.leaves(space)
    if not leaves:
        raise ValueError(f"The action space must have at least one leaf. Received: {space}")
    specs = {path: _leaf_spec(leaf, f" at {path!r}", box) for path, leaf in leaves.items()}
    return ActionSpec(
        Joint({path: spec.family for path, spec in specs.items()}),
        {path: spec.parameters for path, spec in specs.items()},
        JointAction({path: spec.action_map for path, spec in specs.items()}),
    )


def _leaf_spec(
    space: gymnasium.Space[Any], where: str, box: Callable[[gymnasium.spaces.Box, str], ActionSpec]
) -> ActionSpec:
    if 0 in (space.shape or ()):
        raise ValueError(
            f"The action space{where} must have at least one element. Received: {space}"
        )
    if isinstance(space, gymnasium.spaces.Discrete):
        return ActionSpec(
            tfd.Categorical, {"logits": int(space.n)}, DiscreteAction.from_space(space)
        )
    if isinstance(space, gymnasium.spaces.MultiDiscrete):
        family = MultiCategorical(tuple(space.nvec.ravel().tolist()))
        return ActionSpec(family, {"logits": sum(family.sizes)}, DiscreteAction.from_space(space))
    if isinstance(space, gymnasium.spaces.MultiBinary):
        size = int(np.prod(space.shape))
        return ActionSpec(MultiBernoulli(), {"logits": size}, DiscreteAction.from_space(space))
    if isinstance(space, gymnasium.spaces.Box) and np.issubdtype(space.dtype, np.floating):
        return box(space, where)
    raise ValueError(
        f"The action space{where} must be Discrete, MultiDiscrete, MultiBinary, a Box of floats, "
        "or a Dict or Tuple of these. "
        f"Received: {space}; for other spaces, give Policy a custom distribution and action map"
    )


def _box_spec(
    space: gymnasium.spaces.Box, where: str, continuous: Continuous, sde_period: int, bins: int
) -> ActionSpec:
    n = int(np.prod(space.shape))
    clip = ClipAction.from_space(space)
    if continuous in ("beta", "truncated_gaussian", "categorical") and not clip.two_sided.all():
        raise ValueError(
            f"continuous={continuous!r} needs a Box with finite bounds; "
            "the Gaussians accept any Box. "
            f"Received: the action space{where} {space}"
        )
    if continuous == "beta":
        sizes = {"concentration1": n, "concentration0": n}
        return ActionSpec(UnimodalBeta(), sizes, UnitAction.from_space(space))
    if continuous == "categorical":
        action_map = BinAction(space.low, space.high, space.shape, str(space.dtype), bins)
        return ActionSpec(MultiCategorical((bins,) * n), {"logits": n * bins}, action_map)
    if continuous == "full_covariance":
        return ActionSpec(FullGaussian(), {"loc": n, "scale_tril": n * (n + 1) // 2}, clip)
    if continuous == "gsde":
        return ActionSpec(StateDependentExploration(sde_period), {"loc": n, "directions": n}, clip)
    sizes = {"loc": n, "scale_diag": n}
    if continuous == "truncated_gaussian":
        return ActionSpec(TruncatedGaussian(), sizes, clip)
    if continuous == "tanh_gaussian":
        squashed = tuple(clip.two_sided.ravel().tolist())
        return ActionSpec(TanhGaussian(squashed), sizes, TanhAction.from_space(space))
    return ActionSpec(tfd.MultivariateNormalDiag, sizes, clip)
