"""The data that flows between components, and the shapes the components must have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

Tensor = Any  # a tf.Tensor or anything tf.convert_to_tensor takes
Nest = Any  # a Tensor, or a dict or tuple of Nests
Distribution = Any  # a tfp.distributions.Distribution
Metrics = dict[str, Tensor]
DistributionFamily = Callable[..., Distribution]  # distribution parameters by name -> distribution


class Trajectory(NamedTuple):
    """T steps of B environments, time-major: only what happened, nothing the agent thought.

    Attributes:
        observations: [T, B, ...], what the agent saw before it acted.
        actions: [T, B, ...], what it did, raw: before squashing, clipping or rescaling.
        rewards: float [T, B], reward received after acting.
        next_observations: [T, B, ...], the true successor: at an episode's end its final
            observation, never the one of the next episode's reset.
        terminated: bool [T, B], the episode ended in a terminal state (nothing comes after).
        truncated: bool [T, B], the episode was cut short (the future goes on unseen).
        valid: bool [T, B], False on rows that are no transition, such as an auto-reset.
        starts: bool [T, B], the row is the first of an episode: whoever has a memory begins anew.
    """

    observations: Nest
    actions: Nest
    rewards: Tensor
    next_observations: Nest
    terminated: Tensor
    truncated: Tensor
    valid: Tensor
    starts: Tensor


class Estimator(Protocol):
    """Turns rewards and values into advantages and value targets."""

    def __call__(
        self,
        *,
        rewards: Tensor,
        values: Tensor,
        next_values: Tensor,
        terminated: Tensor,
        truncated: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """All arguments [T, B]; returns (advantages, targets), both float [T, B]."""
        ...


class Loss(Protocol):
    """A policy loss, per sample and unreduced. Lower is better.

    A loss that adapts between updates is a `tf.Module` with a method `after_update(kl)`, which the
    learner calls inside its compiled update with the mean KL(old || new) in nats.
    """

    def __call__(
        self,
        *,
        new_dist: Distribution,
        old_dist: Distribution,
        actions: Tensor,
        advantages: Tensor,
    ) -> tuple[Tensor, Metrics]:
        """Returns (loss [n], metrics by name, each [n] or scalar)."""
        ...


class ValueLoss(Protocol):
    """A critic's loss, per sample and unreduced."""

    def __call__(self, *, values: Tensor, old_values: Tensor, targets: Tensor) -> Tensor:
        """All arguments float [n]; returns float [n]."""
        ...


class Episode(NamedTuple):
    """A finished episode as the environment reported it."""

    episode_return: float  # undiscounted sum of rewards
    length: int  # steps


class Collector(Protocol):
    """Turns an environment and a policy into trajectories.

    With checkpoints it also has a method `begin_episodes(iterations)`: it starts new episodes in
    all environments, so that what comes next depends on the run's seed and on `iterations`, the
    number of trajectories so far, alone.
    """

    num_envs: int
    horizon: int

    def collect(self) -> tuple[Trajectory, list[Episode]]:
        """Returns the next `horizon` steps and the episodes that finished in them."""
        ...


class Resumable(Protocol):
    """What a callback has besides if it goes on from a checkpoint instead of beginning anew."""

    def state(self) -> dict[str, Any]:
        """All that is needed to go on from here, as JSON values; called after an iteration."""
        ...

    def load_state(self, state: dict[str, Any]) -> None:
        """Takes it back, in a new process; called before `on_train_begin`."""
        ...


class NonFiniteError(FloatingPointError):
    """A NaN or an infinity came from the environment or out of an update."""
