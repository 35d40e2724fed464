"""The states of recurrent models, carried from one trajectory to the next."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import tensorflow as tf

from ppo_tf.networks import recurrent
from ppo_tf.types import Tensor


class Memories:
    """The states of actor and critic after the last row of the previous trajectory.

    Models without a memory have no states, so nothing is carried.

    Args:
        actor, critic: Keras models, with or without a memory; the critic may be None.

    Attributes:
        states: (those of the actor, those of the critic), lists of keras.Variable [num_envs,
            units]; empty before `build`.
    """

    def __init__(self, actor: keras.Model, critic: keras.Model | None):
        self._models = (actor, critic)
        self.states: tuple[list[keras.Variable], list[keras.Variable]] = ([], [])

    @property
    def variables(self) -> list[keras.Variable]:
        """All states, the actor's first."""
        return [*self.states[0], *self.states[1]]

    def build(self, num_envs: int) -> None:
        """Creates the variables, one row per environment, unless they exist."""
        if self.variables:
            return
        for model, states in zip(self._models, self.states, strict=True):
            for part in recurrent.initial_state(model, num_envs):
                states.append(keras.Variable(part, trainable=False, dtype=part.dtype))

    def read(self) -> tuple[list[Tensor], list[Tensor]]:
        """Returns copies of the states, float [num_envs, units] each."""
        actor, critic = ([tf.identity(v) for v in states] for states in self.states)
        return actor, critic

    def carry_on(self, *after: Sequence[Tensor]) -> None:
        """Stores the states after the last step.

        Args:
            after: states after each step, float [T, num_envs, units] each: those of the actor, then
                those of the critic.
        """
        for variables, states in zip(self.states, after, strict=True):
            for variable, state in zip(variables, states, strict=True):
                variable.assign(state[-1])

    def empty(self) -> None:
        """Sets all states to zero, for new episodes in all environments."""
        for variable in self.variables:
            variable.assign(tf.zeros_like(variable))
