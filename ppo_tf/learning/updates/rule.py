"""The protocol of update rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import tensorflow as tf

from ppo_tf.learning.objective import Objective
from ppo_tf.support.keywords import Keywords
from ppo_tf.types import Metrics, Nest

Function = TypeVar("Function", bound=Callable[..., Any])

# Leaves a function as it is. AutoGraph is needed for loops over tensors only, and converting all
# the rest takes a third of the tracing time.
plain: Callable[[Function], Function] = tf.autograph.experimental.do_not_convert

# The keywords that a rule may name in its signature.
UPDATE_RULE_KEYWORDS = Keywords(
    ("batch", "objective", "variables", "optimizer", "draws"), ("reestimate", "replicas")
)


class UpdateRule(Protocol):
    """One way to improve policy and critic on a batch of experience.

    Called inside the compiled update, by keyword with those of UPDATE_RULE_KEYWORDS that its
    signature names:

        batch       a `Batch`
        objective   an `Objective`: losses and values by the current weights
        variables   the weights to improve
        optimizer   a Keras optimizer, built for them
        draws       what `draw` returned, as tensors
        reestimate  a function that returns the batch with advantages and targets re-estimated by
                    the current critic
        replicas    the devices to learn on, a `Replicas`, or None for one device; a rule that does
                    not take it learns on one device only

    AutoGraph converts the rule, so Python's `while` may run over tensors. The learner around it
    computes what needs the weights that acted, measures the change of the policy, and undoes the
    update if a metric is not finite.
    """

    def check(self, objective: Objective) -> None:
        """Raises ValueError for an objective that the rule can't improve; called once, early."""
        ...

    def check_batch(self, horizon: int, num_envs: int, sequence_length: int) -> None:
        """Raises ValueError for trajectories of [horizon, num_envs] that it can't learn from."""
        ...

    def draw(self, sequences: int, sequence_length: int, seed: int, iteration: int) -> Nest:
        """Draws the random numbers of an update on the host, as NumPy arrays of fixed shapes.

        Args:
            sequences: number of sequences in the batch, N.
            sequence_length: steps per sequence, L.
            seed: the learner's seed.
            iteration: number of the update; the same seed and number give the same draws.
        """
        ...

    def __call__(self, *arguments: Any, **keywords: Any) -> Metrics:
        """Improves the variables; returns metrics by name, scalars."""
        ...
