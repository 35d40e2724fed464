"""What an engine is: it computes actions from arrays and knows no Keras variables.

So an engine can act in a process that has no model, and `LiteRTEngine` in one that has no
TensorFlow. `acting` chooses an engine and hands it a policy's weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from ppo_tf.types import Nest, Tensor


class Arguments(NamedTuple):
    """What a policy's step takes.

    Attributes:
        weights: of the actor, in the order of `PolicyStep.read_weights`.
        observations: [B, ...], in the dtypes of `spaces.observed_dtype`; of a composite space the
            leaves that the actor takes.
        state: the memory, each part [B, units]; empty without one.
        noise: of this step, one row of `PolicyStep.joined`.
    """

    weights: Sequence[Tensor]
    observations: Nest
    state: Sequence[Tensor]
    noise: Nest


class Results(NamedTuple):
    """What a policy's step returns.

    Attributes:
        raw: [B, ...], actions as the distribution draws them.
        action: [B, ...], the environment's actions.
        state: the memory after the step, each part [B, units].
    """

    raw: Nest
    action: Nest
    state: Sequence[Tensor]


class Order(NamedTuple):
    """What an engine gets for a rollout.

    Attributes:
        weights: of the actor, in the order of `PolicyStep.read_weights`.
        noise: [T, B, ...], of all steps.
    """

    weights: Sequence[np.ndarray]
    noise: Nest


class Engine(Protocol):
    """Computes the actions of a policy in B environments."""

    state: Any  # the memory after the last step, each part [B, units]; empty without one

    def begin(self, weights: Sequence[np.ndarray], noise: Nest) -> None:
        """Takes the weights and the noise [T, B, ...] of a rollout; the memory stays as it is."""
        ...

    def __call__(self, observations: Nest, step: int, starts: np.ndarray) -> tuple[Nest, Nest]:
        """Returns raw actions and the environment's actions, NumPy arrays [B, ...].

        Args:
            observations: [B, ...], in the dtypes of `spaces.observed_dtype`.
            step: of the rollout; picks the row of the noise.
            starts: bool [B], where an episode begins: the memory is emptied there.
        """
        ...


class EngineModel(Protocol):
    """What an engine is made from: plain data, which can be pickled and sent to other processes."""

    def make(self) -> Engine:
        """Returns an engine, whose memory is empty."""
        ...
