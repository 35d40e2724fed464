"""What an update rule is."""

from __future__ import annotations

from typing import Any, Protocol

from ppo_tf.learning.objective import Objective
from ppo_tf.support.keywords import Keywords
from ppo_tf.types import Metrics, Nest

# What a rule may ask for by the names of its arguments.
UPDATE_RULE_KEYWORDS = Keywords(
    ("batch", "objective", "variables", "optimizer", "draws"), ("reestimate",)
)


class UpdateRule(Protocol):
    """One way to improve policy and critic on a batch of experience.

    Called inside the compiled update, by keyword with those of UPDATE_RULE_KEYWORDS that its
    signature names:

        batch       a `Batch`
        objective   an `Objective`: losses and values by the present weights
        variables   the weights to improve
        optimizer   a Keras optimizer, built for them
        draws       what `draw` returned, as tensors
        reestimate  a function that returns the batch with advantages and targets estimated anew by
                    the present critic

    AutoGraph converts the rule, so Python's `while` may run over tensors. The learner around it has
    computed what the acting weights know, reports what the update did to the policy, and undoes it
    if one of the metrics is not finite.
    """

    def check(self, objective: Objective) -> None:
        """Raises ValueError for an objective that the rule can't improve; called once, early."""
        ...

    def check_batch(self, horizon: int, num_envs: int, sequence_length: int) -> None:
        """Raises ValueError for trajectories of [horizon, num_envs] that it can't learn from."""
        ...

    def draw(self, sequences: int, sequence_length: int, seed: int, iteration: int) -> Nest:
        """The random numbers of an update, drawn on the host: NumPy arrays of fixed shapes.

        Args:
            sequences: in the batch, N.
            sequence_length: steps of each, L.
            seed: of the learner.
            iteration: of the training; the same one draws the same.
        """
        ...

    def __call__(self, *arguments: Any, **keywords: Any) -> Metrics:
        """Improves the variables; returns metrics by name, scalars."""
        ...
