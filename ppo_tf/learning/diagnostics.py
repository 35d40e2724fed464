"""How far an update moved the policy, and what a rollout reveals about its actions."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from ppo_tf import ops
from ppo_tf.actions.maps import ClipAction, JointAction, TanhAction, UnitAction
from ppo_tf.spaces import masks
from ppo_tf.types import ActionMap, Distribution, Nest, Tensor, Trajectory


def divergence(old_dist: Distribution, new_dist: Distribution, actions: Nest) -> Tensor:
    """KL(old || new) per sample in nats, float [n]: exact if TFP has it, otherwise estimated by k3.

    Args:
        old_dist, new_dist: of batch shape [n].
        actions: [n, ...], drawn from old_dist.
    """
    try:
        return old_dist.kl_divergence(new_dist)
    except NotImplementedError:
        return kl_estimates(old_dist, new_dist, actions)["kl_k3"]


def kl_estimates(
    old_dist: Distribution, new_dist: Distribution, actions: Nest
) -> dict[str, Tensor]:
    """Estimates KL(old || new) per sample, in nats, from samples of old: float [n] each.

    With r = new / old: k1 = -log r, k2 = (log r)^2 / 2, k3 = (r - 1) - log r (Schulman 2020,
    "Approximating KL divergence"). k1 and k3 are unbiased; k2 and k3 have low variance.
    """
    log_ratio = new_dist.log_prob(actions) - old_dist.log_prob(actions)
    log_ratio = tf.minimum(log_ratio, ops.MAX_LOG_RATIO)
    return {
        "kl_k1": -log_ratio,
        "kl_k2": 0.5 * log_ratio**2,
        "kl_k3": tf.math.expm1(log_ratio) - log_ratio,
    }


def policy_change(
    old_dist: Distribution, new_dist: Distribution, actions: Nest, valid: Tensor
) -> dict[str, Tensor]:
    """Measures how far an update moved the policy: means over the valid samples, in nats.

    Args:
        old_dist, new_dist: of batch shape [n].
        actions: [n, ...], drawn from old_dist.
        valid: bool [n], the samples that count.

    Returns:
        `kl_k1`, `kl_k2` and `kl_k3`; and, if TFP can compute them exactly, `kl`, which is
        KL(old || new), and the `entropy` of new. What TFP can't compute is absent.
    """
    per_sample = kl_estimates(old_dist, new_dist, actions)
    try:
        per_sample["kl"] = old_dist.kl_divergence(new_dist)
    except NotImplementedError:
        pass
    try:
        per_sample["entropy"] = new_dist.entropy()
    except NotImplementedError:
        pass
    return {name: ops.masked_mean(x, valid) for name, x in per_sample.items()}


def rollout(trajectory: Trajectory, action_map: ActionMap) -> dict[str, float]:
    """Statistics of the actions in the valid rows of a rollout. Their names depend on the spaces
    alone.

    Args:
        trajectory: [T, B, ...].
        action_map: the policy's.

    Returns:
        `rollout/saturated_actions`, for bounded Boxes with one of our action maps: the fraction of
        action elements that were clipped or lie within 1% of the range of a bound.
        `rollout/dead_actions`, where there are masks: the number of actions that no row allowed.
    """
    valid: Any = np.asarray(trajectory.valid)
    if valid.all():
        valid = slice(None)  # a view instead of copies
    found = {}
    maps = action_map.maps if isinstance(action_map, JointAction) else {"": action_map}
    saturated, count = 0, 0
    for path, leaf in maps.items():
        if not isinstance(leaf, ClipAction | TanhAction | UnitAction):
            continue
        low, high = leaf.raw_limits()
        raw = np.asarray(trajectory.actions[path] if path else trajectory.actions)[valid]
        raw = raw.reshape(-1, low.size)
        saturated += int(np.count_nonzero((raw <= low) | (raw >= high)))
        count += len(raw) * int(np.count_nonzero(np.isfinite(low) | np.isfinite(high)))
    if count:
        found["rollout/saturated_actions"] = saturated / count
    if isinstance(trajectory.observations, dict):
        seen = [np.asarray(x) for p, x in trajectory.observations.items() if masks.is_mask(p)]
        if seen:
            ever = [(x[valid] != 0).reshape(-1, x.shape[-1]).any(axis=0) for x in seen]
            found["rollout/dead_actions"] = float(sum(np.count_nonzero(~x) for x in ever))
    return found
