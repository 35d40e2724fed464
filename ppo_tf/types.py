"""The data that flows between components, and the protocols of the components."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from ppo_tf.support.keywords import Keywords


class Tensor(Protocol):
    """An array of numbers: a tf.Tensor, a variable, a Keras tensor or a NumPy array.

    TensorFlow comes without types, so this is a protocol of what they share. Type checkers refuse
    numbers, strings and lists for it. With the package types-tensorflow, annotate components of
    your own with its tf.Tensor, which fits.
    """

    @property
    def shape(self) -> Any:
        """A TensorFlow shape or a tuple."""
        ...

    @property
    def dtype(self) -> Any:
        """Of TensorFlow or NumPy, or its name."""
        ...

    def __getitem__(self, key: Any, /) -> Tensor: ...
    def __add__(self, other: Any, /) -> Tensor: ...
    def __radd__(self, other: Any, /) -> Tensor: ...
    def __sub__(self, other: Any, /) -> Tensor: ...
    def __rsub__(self, other: Any, /) -> Tensor: ...
    def __mul__(self, other: Any, /) -> Tensor: ...
    def __rmul__(self, other: Any, /) -> Tensor: ...
    def __truediv__(self, other: Any, /) -> Tensor: ...
    def __rtruediv__(self, other: Any, /) -> Tensor: ...
    def __matmul__(self, other: Any, /) -> Tensor: ...
    def __pow__(self, other: Any, /) -> Tensor: ...
    def __neg__(self) -> Tensor: ...
    def __and__(self, other: Any, /) -> Tensor: ...
    def __or__(self, other: Any, /) -> Tensor: ...
    def __invert__(self) -> Tensor: ...
    def __eq__(self, other: Any, /) -> Any: ...
    def __lt__(self, other: Any, /) -> Tensor: ...
    def __le__(self, other: Any, /) -> Tensor: ...
    def __gt__(self, other: Any, /) -> Tensor: ...
    def __ge__(self, other: Any, /) -> Tensor: ...
    def __array__(self, dtype: Any = None, /) -> np.ndarray: ...
    def __int__(self) -> int: ...
    def __index__(self) -> int: ...


Nest = Tensor | Mapping[str, "Nest"]  # a tensor, or tensors by name or path
Arrays = np.ndarray | dict[str, np.ndarray]  # likewise, on the environment's side
Structure = TypeVar(  # what tf.nest takes apart: functions return it as they got it
    "Structure", bound=Tensor | Mapping[str, Any] | tuple[Any, ...] | list[Any]
)
Metrics = dict[str, Tensor]


class Distribution(Protocol):
    """What the package uses of a `tfp.distributions.Distribution` of batch shape [B].

    Entropy, divergence, mode and mean raise NotImplementedError where there is no formula.
    """

    def sample(self, *, seed: Any) -> Any:
        """Draws raw actions [B, ...] with a stateless seed, int32 [2]."""
        ...

    def log_prob(self, value: Any, /) -> Any:
        """Returns the log-density or log-probability of raw actions [B, ...], float [B]."""
        ...

    def entropy(self) -> Any:
        """Returns the entropy in nats, float [B]."""
        ...

    def kl_divergence(self, other: Any, /) -> Any:
        """Returns KL(self || other) in nats, float [B]."""
        ...

    def mode(self) -> Any:
        """Returns the most likely raw actions [B, ...]."""
        ...

    def mean(self) -> Any:
        """Returns the mean raw actions, float [B, ...]."""
        ...


DistributionFamily = Callable[..., Distribution]  # distribution parameters by name -> distribution
ActionMap = Callable[[Any], Nest]  # raw actions [B, ...] -> what env.step takes


class Trajectory(NamedTuple):
    """T steps of B environments, time-major: only what happened, nothing the agent thought.

    Attributes:
        observations: [T, B, ...], what the agent saw before it acted.
        actions: [T, B, ...], the raw actions, before squashing, clipping or rescaling.
        rewards: float [T, B], reward received after acting.
        next_observations: [T, B, ...], the true successor: at the end of an episode its final
            observation, never the first one of the next episode.
        terminated: bool [T, B], the episode ended in a terminal state, with no future.
        truncated: bool [T, B], the episode was cut short; its future exists but is not seen.
        valid: bool [T, B], False on rows that are not transitions, such as an auto-reset.
        starts: bool [T, B], the row is the first of an episode, where recurrent state is reset.
        layer_noise: [T, B, ...] for each call of a layer with noise, such as Dropout, in the actor:
            what it drew when the policy acted; empty without such layers.
        log_probs: float [T, B], log mu(a | s) of the raw actions by the policy that acted, mu, if
            that may be another than the one that learns; empty where it is the same.
    """

    observations: Nest
    actions: Nest
    rewards: Tensor
    next_observations: Nest
    terminated: Tensor
    truncated: Tensor
    valid: Tensor
    starts: Tensor
    layer_noise: Sequence[Tensor] = ()
    log_probs: Tensor | tuple[()] = ()


ESTIMATOR_KEYWORDS = Keywords(
    ("rewards", "values", "next_values", "terminated", "truncated"),
    ("valid", "starts", "importance_weights"),
)
LOSS_KEYWORDS = Keywords(
    ("new_dist", "old_dist", "actions", "advantages"),
    ("observations", "valid", "importance_weights", "gradient_steps"),
)
VALUE_LOSS_KEYWORDS = Keywords(
    ("values", "old_values", "targets"), ("observations", "valid", "gradient_steps")
)
REWARD_TRANSFORMATION_KEYWORDS = Keywords(Trajectory._fields)


class Estimator(Protocol):
    """Turns rewards and values into advantages and value targets.

    Called with the keywords of ESTIMATOR_KEYWORDS that its signature names, all [T, B]:
    `rewards` float, 0 on rows that are not valid; `values` and `next_values` float, V(s_t) and
    V(s_{t+1}); `terminated` bool; `truncated` bool, also true before a row that is not valid;
    `valid` and `starts` bool, as in `Trajectory`; `importance_weights` float, pi(a|s) / mu(a|s) of
    the policy before the update over the one that acted, for which the trajectory needs
    `log_probs`.
    """

    def __call__(self, *arguments: Any, **keywords: Any) -> tuple[Tensor, Tensor]:
        """Returns (advantages, targets), both float [T, B]."""
        ...


class Loss(Protocol):
    """A policy loss, per sample and unreduced. Lower is better.

    Called with the keywords of LOSS_KEYWORDS that its signature names: `new_dist` and `old_dist`,
    TFP distributions of batch shape [n]; `actions` [n, ...], raw; `advantages` float [n];
    `observations` [n, ...]; `valid` bool [n], the samples that count in the mean;
    `importance_weights` float [n], pi_old(a|s) / mu(a|s) of the policy before the update over the
    one that acted, or None where they are one; `gradient_steps` int scalar, taken so far.

    A loss that adapts between updates is a `tf.Module` with a method `after_update(kl)`. The
    learner calls it inside its compiled update with the mean KL(old || new) in nats.
    """

    def __call__(self, *arguments: Any, **keywords: Any) -> tuple[Tensor, Metrics]:
        """Returns (loss float [n], metrics by name, each [n] or scalar)."""
        ...


class ValueLoss(Protocol):
    """A critic's loss, per sample and unreduced.

    Called with the keywords of VALUE_LOSS_KEYWORDS that its signature names: `values`,
    `old_values` (before the update) and `targets`, float [n]; `observations` [n, ...]; `valid`
    bool [n]; `gradient_steps` int scalar, taken so far.
    """

    def __call__(self, *arguments: Any, **keywords: Any) -> Tensor:
        """Returns the loss, float [n]."""
        ...


class RewardTransformation(Protocol):
    """Turns the environment's rewards into those that the estimator sees.

    Called with the keywords of REWARD_TRANSFORMATION_KEYWORDS that its signature names: the fields
    of a `Trajectory`. One that carries state from one trajectory to the next is a `keras.Layer`,
    built with the shape (None, num_envs), or a `tf.Module`, so that its variables are saved and
    restored; its method `begin_episodes()` discards what belongs to episodes in progress.
    """

    def __call__(self, *arguments: Any, **keywords: Any) -> Tensor:
        """Returns the transformed rewards, float [T, B]."""
        ...


class Episode(NamedTuple):
    """A finished episode as the environment reported it."""

    episode_return: float  # undiscounted sum of rewards
    length: int  # steps


class Collector(Protocol):
    """Turns an environment and a policy into trajectories.

    For use with checkpoints it also needs a method `begin_episodes(iterations)`, which starts new
    episodes in all environments, so that whatever follows depends only on the run's seed and on
    `iterations`, the number of trajectories so far. If it has an attribute `logs`, {name: number},
    these are added to the logs of the training.
    """

    num_envs: int
    horizon: int

    def collect(self) -> tuple[Trajectory, list[Episode]]:
        """Returns the next `horizon` steps and the episodes that finished in them."""
        ...


class Resumable(Protocol):
    """The extra methods of a callback that resumes from a checkpoint instead of starting over."""

    def state(self) -> dict[str, Any]:
        """Returns all that is needed to resume, as JSON values; called after an iteration."""
        ...

    def load_state(self, state: dict[str, Any]) -> None:
        """Restores that state, in a new process; called before `on_train_begin`."""
        ...


class NonFiniteError(FloatingPointError):
    """The environment or an update produced a NaN or an infinity."""


class EnvironmentFailure(RuntimeError):
    """An environment raised an exception, gave something that does not fit, or does not answer.

    Args:
        environment: index of the environment; None: unknown, they are stepped at once.
        what: what it did, such as "raised RuntimeError".
        detail: the message, or what was expected and what came.
        step: steps that it had taken before, counted like rows of rollouts; None: it was not made.
        resetting: whether it failed in a reset.
        frames: lines of the traceback in the environment's own code.

    Attributes:
        environment, what, detail, step, resetting, frames: see Args.
    """

    def __init__(
        self,
        environment: int | None,
        what: str,
        detail: str,
        step: int | None = None,
        resetting: bool = False,
        frames: str = "",
    ):
        super().__init__(environment, what, detail, step, resetting, frames)  # so it can be pickled
        self.environment, self.what, self.detail = environment, what, detail
        self.step, self.resetting, self.frames = step, resetting, frames

    def __str__(self) -> str:
        if self.step is None:
            when = "while it was made"
        elif self.resetting and not self.step:
            when = "in its first reset"
        else:
            when = f"{'in its reset at' if self.resetting else 'at its'} step {self.step}"
        who = "an environment" if self.environment is None else f"environment {self.environment}"
        return f"{who} {self.what} {when}{': ' * bool(self.detail)}{self.detail}"
