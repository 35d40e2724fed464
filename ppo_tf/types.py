"""The data that flows between components, and the shapes the components must have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from ppo_tf.support.keywords import Keywords

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


ESTIMATOR_KEYWORDS = Keywords(
    ("rewards", "values", "next_values", "terminated", "truncated"), ("valid", "starts")
)
LOSS_KEYWORDS = Keywords(
    ("new_dist", "old_dist", "actions", "advantages"), ("observations", "valid")
)
VALUE_LOSS_KEYWORDS = Keywords(("values", "old_values", "targets"), ("observations", "valid"))
REWARD_TRANSFORMATION_KEYWORDS = Keywords(Trajectory._fields)


class Estimator(Protocol):
    """Turns rewards and values into advantages and value targets.

    Called by keyword with those of ESTIMATOR_KEYWORDS that its signature names, all [T, B]:
    `rewards` float, 0 on rows that are not valid; `values` and `next_values` float, V(s_t) and
    V(s_{t+1}); `terminated` bool; `truncated` bool, true also before a row that is not valid;
    `valid` and `starts` bool, as in `Trajectory`.
    """

    def __call__(self, *arguments: Any, **keywords: Any) -> tuple[Tensor, Tensor]:
        """Returns (advantages, targets), both float [T, B]."""
        ...


class Loss(Protocol):
    """A policy loss, per sample and unreduced. Lower is better.

    Called by keyword with those of LOSS_KEYWORDS that its signature names: `new_dist` and
    `old_dist`, TFP distributions of batch shape [n]; `actions` [n, ...], raw; `advantages` float
    [n]; `observations` [n, ...]; `valid` bool [n], the samples that count in the mean.

    A loss that adapts between updates is a `tf.Module` with a method `after_update(kl)`, which the
    learner calls inside its compiled update with the mean KL(old || new) in nats.
    """

    def __call__(self, *arguments: Any, **keywords: Any) -> tuple[Tensor, Metrics]:
        """Returns (loss float [n], metrics by name, each [n] or scalar)."""
        ...


class ValueLoss(Protocol):
    """A critic's loss, per sample and unreduced.

    Called by keyword with those of VALUE_LOSS_KEYWORDS that its signature names: `values`,
    `old_values` (before the update) and `targets`, float [n]; `observations` [n, ...]; `valid`
    bool [n].
    """

    def __call__(self, *arguments: Any, **keywords: Any) -> Tensor:
        """Returns float [n]."""
        ...


class RewardTransformation(Protocol):
    """Turns the environment's rewards into those that the estimator sees.

    Called by keyword with those of REWARD_TRANSFORMATION_KEYWORDS that its signature names: the
    parts of a `Trajectory`. One that carries something from one trajectory to the next is a
    `keras.Layer`, built with the shape (None, num_envs), or a `tf.Module`, so that it is saved and
    undone; its method `begin_episodes()` forgets what belongs to episodes under way.
    """

    def __call__(self, *arguments: Any, **keywords: Any) -> Tensor:
        """Returns rewards float [T, B]."""
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
