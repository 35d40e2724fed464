"""Learning from the last rollouts together, each step weighted for the policy that took it.

Queeney et al. 2021 (arXiv 2111.00072, GePPO): the data of the last M policies are M times as many
for the same number of environment steps. Each step is weighted with w = pi_k(a|s) / mu(a|s), the
probability of its action by the policy about to be updated over that by the policy that acted. One
factor per step and not a product over the trajectory, whose variance grows exponentially with the
horizon; what the states' own distribution lacks is bounded by small steps of the policy.
"""

from __future__ import annotations

import collections
from typing import Any

import numpy as np
import tensorflow as tf

from ppo_tf import ops
from ppo_tf.support import keywords
from ppo_tf.support.checks import check_at_least_one
from ppo_tf.types import LOSS_KEYWORDS, Loss, Structure, Tensor, Trajectory


class Rollouts:
    """The last rollouts, side by side as environments of one trajectory.

    Args:
        count: number of rollouts to learn from, M; 1 learns from the newest only.
    """

    def __init__(self, count: int):
        check_at_least_one(reuse=count)
        self.count = count
        self._old: collections.deque[Trajectory] = collections.deque(maxlen=count - 1)

    def joined(self, new: Trajectory) -> Trajectory:
        """Returns the newest rollout and the old ones, [T, M * B, ...], the newest first.

        The shape is always the same: until there are M, copies of the newest fill the places, with
        rows that are not valid. Log-probabilities are those of the last environments: the newest
        rollout has none if the policy before the update collected it.
        """
        if self.count == 1:
            return new
        nothing = new._replace(valid=np.zeros_like(new.valid), log_probs=np.zeros_like(new.rewards))
        missing = [nothing] * (self.count - 1 - len(self._old))
        rollouts = [new, *self._old, *missing]
        given = [x.log_probs for x in rollouts if not isinstance(x.log_probs, tuple)]
        rest = [x._replace(log_probs=()) for x in rollouts]
        joined = tf.nest.map_structure(lambda *x: np.concatenate(x, axis=1), *rest)
        return joined._replace(log_probs=np.concatenate(given, axis=1))

    def newest(self, nest: Structure) -> Structure:
        """Returns what belongs to the newest rollout of tensors [T, M * B, ...]."""
        if self.count == 1:
            return nest
        return tf.nest.map_structure(lambda x: x[:, : x.shape[1] // self.count], nest)

    def kept(self, *tensors: Any) -> tuple[Tensor, ...]:
        """Returns what `keep` needs of the newest rollout; nothing if it keeps none."""
        return () if self.count == 1 else self.newest(tensors)

    def keep(self, new: Trajectory, rewards: Tensor, log_probs: Tensor) -> None:
        """Keeps a rollout for later updates.

        Args:
            new: the rollout, [T, B].
            rewards: float [T, B], the estimator's: a transformation sees each reward once.
            log_probs: float [T, B], of the actions by the policy before the update; not used if
                the rollout has those of another one, which acted.
        """
        if not isinstance(new.log_probs, tuple):
            log_probs = new.log_probs
        self._old.appendleft(new._replace(rewards=np.array(rewards), log_probs=np.array(log_probs)))

    def forget(self) -> None:
        """Forgets all rollouts."""
        self._old.clear()


def importance_weights(log_probs: Tensor, trajectory: Trajectory) -> Tensor:
    """w = pi(a|s) / mu(a|s), float [T, B], capped at e^20; 1 on rows that are not valid.

    Args:
        log_probs: float [T, B], log pi(a|s) of the policy before the update.
        trajectory: [T, B], with log mu(a|s) of the policies that acted; where there is none, for
            the first environments, w is 1.
    """
    given: Any = trajectory.log_probs
    ours = log_probs.shape[1] - given.shape[1]
    log_ratio = tf.minimum(log_probs[:, ours:] - given, ops.MAX_LOG_RATIO)
    log_ratio = tf.concat([tf.zeros_like(log_probs[:, :ours]), log_ratio], axis=1)
    return tf.where(trajectory.valid, tf.exp(log_ratio), tf.ones_like(log_ratio))


def effective_sample_size(weights: Tensor, valid: Tensor) -> Tensor:
    """(sum w)^2 / (n sum w^2), the share of n weighted samples that as good unweighted ones are.

    Kong 1992; 1 where all weights are equal, 1 / n where one sample outweighs all others.

    Args:
        weights: float [...].
        valid: bool [...], the samples that count.
    """
    return tf.math.divide_no_nan(
        ops.masked_mean(weights, valid) ** 2, ops.masked_mean(weights**2, valid)
    )


def check_loss(loss: Loss) -> None:
    """Raises ValueError for a loss that looks at actions but not at their importance weights."""
    parts: Any = [getattr(loss, "surrogate", None), *getattr(loss, "losses", ())]
    for part in parts:
        if part is not None:
            check_loss(part)
    names = keywords.accepted(loss, LOSS_KEYWORDS, "loss")
    if "actions" in names and "importance_weights" not in names:
        raise ValueError(
            "reuse needs a loss that takes importance_weights, because other policies have chosen "
            f"the actions. Received: loss={loss!r}"
        )
