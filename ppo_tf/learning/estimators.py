"""Advantage estimators: how much better was an action than the policy's average?

Every estimator takes float tensors [T, B] by keyword and returns (advantages, targets) [T, B]:

    rewards      r_t, received after acting at t
    values       V(s_t)
    next_values  V(s_{t+1}) of the true successor, at an episode's end its final state
    terminated   bool, s_{t+1} is terminal: V(s_{t+1}) counts as 0
    truncated    bool, the episode was cut at s_{t+1}: V(s_{t+1}) stands for what was not seen

and, if it names it, `importance_weights` [T, B], pi(a_t | s_t) / mu(a_t | s_t) of the policy that
learns over the one that acted.

A sum over time runs to the end of the episode or of the segment, whichever comes first. Unless it
reaches a termination, it closes with the value of the state where it stops. Termination cuts the
bootstrap; termination and truncation both cut the sum. Within an episode next_values[t] equals
values[t + 1], since both are values of the same state: sums of TD errors rely on this.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from ppo_tf import ops
from ppo_tf.support.checks import check_at_least_one
from ppo_tf.types import Tensor


def _check_fraction(name: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{name} must be in [0, 1]. Received: {name}={value}")


def _check_shapes(*tensors: Tensor) -> None:
    for tensor in tensors[1:]:
        if tensor.shape != tensors[0].shape:
            raise ValueError(
                "An estimator's arguments must share one shape [T, B]. "
                f"Received shapes: {[tuple(t.shape) for t in tensors]}"
            )


def _bootstrap(terminated: Tensor, next_values: Tensor) -> Tensor:
    """(1 - terminated_t) V(s_{t+1}); the critic's value of a terminal state is ignored, NaN too."""
    return tf.where(terminated, tf.zeros_like(next_values), next_values)


def _continues(terminated: Tensor, truncated: Tensor, dtype: Any) -> Tensor:
    return 1.0 - tf.cast(terminated | truncated, dtype)


def td_error(
    rewards: Tensor, values: Tensor, next_values: Tensor, terminated: Tensor, gamma: float
) -> Tensor:
    """delta_t = r_t + gamma (1 - terminated_t) V(s_{t+1}) - V(s_t).

    Schulman et al. 2016 (arXiv 1506.02438), before eq. 11. All tensors [T, B].
    """
    return rewards + gamma * _bootstrap(terminated, next_values) - values


def _return_to_go(
    rewards: Tensor, next_values: Tensor, terminated: Tensor, truncated: Tensor, gamma: float
) -> Tensor:
    """sum_{l>=0} gamma^l r_{t+l}, closed with gamma^k V(s_{t+k}) where it ends but for a terminal
    state. All tensors [T, B]."""
    continues = _continues(terminated, truncated, rewards.dtype)
    continues = tf.concat([continues[:-1], tf.zeros_like(continues[-1:])], axis=0)
    tail = (1.0 - continues) * _bootstrap(terminated, next_values)
    return ops.discounted_sum(rewards + gamma * tail, gamma * continues)


@dataclass(frozen=True)
class TrajectoryReturn:
    """A_t = R(tau) = sum_{l>=0} gamma^l r_l over the whole episode, one number for all its actions.

    The policy gradient at its simplest (Williams 1992): the gradient of log pi of every action is
    weighted with all rewards of its episode, those before the action too. They add no bias, since
    the action could not change them, but variance, which `RewardToGo` removes.

    Of an episode that a rollout cuts, each rollout sees a piece, and the sum runs over the piece:
    it begins with the piece's first row and closes with gamma^k V(s_k) at its last, unless that is
    terminal. Rewards in other rollouts are not in it. Targets are those of `RewardToGo`.

    Args:
        gamma: discount per step, in [0, 1].
    """

    gamma: float = 0.99

    def __post_init__(self) -> None:
        _check_fraction("gamma", self.gamma)

    def __call__(
        self,
        *,
        rewards: Tensor,
        values: Tensor,
        next_values: Tensor,
        terminated: Tensor,
        truncated: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Returns (advantages, targets), see the module's docstring."""
        _check_shapes(rewards, values, next_values, terminated, truncated)
        returns = _return_to_go(rewards, next_values, terminated, truncated, self.gamma)
        # Each piece takes over the return of its first row: y_t = first_t or y_{t-1}.
        goes_on = _continues(terminated, truncated, rewards.dtype)[:-1]
        goes_on = tf.concat([tf.zeros_like(returns[:1]), goes_on], axis=0)
        first = (1.0 - goes_on) * returns
        advantages = ops.discounted_sum(first[::-1], goes_on[::-1])[::-1]
        return advantages, returns


@dataclass(frozen=True)
class RewardToGo:
    """A_t = sum_{l>=0} gamma^l r_{t+l} - V(s_t): no bias from the critic, but high variance.

    Williams 1992 with a baseline; Schulman et al. 2016, eq. 18. The sum closes with
    gamma^k V(s_{t+k}) where the segment ends or a truncation cuts it short.

    Args:
        gamma: discount per step, in [0, 1].
        baseline: whether to subtract V(s_t). Without it the advantage is the return itself, as in
            plain REINFORCE. In a learner without a critic all values are zero.
    """

    gamma: float = 0.99
    baseline: bool = True

    def __post_init__(self) -> None:
        _check_fraction("gamma", self.gamma)

    def __call__(
        self,
        *,
        rewards: Tensor,
        values: Tensor,
        next_values: Tensor,
        terminated: Tensor,
        truncated: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Returns (advantages, targets), see the module's docstring."""
        _check_shapes(rewards, values, next_values, terminated, truncated)
        returns = _return_to_go(rewards, next_values, terminated, truncated, self.gamma)
        return returns - values if self.baseline else returns, returns


@dataclass(frozen=True)
class NStep:
    """A_t = sum_{l<n} gamma^l r_{t+l} + gamma^n V(s_{t+n}) - V(s_t).

    Mnih et al. 2016 (arXiv 1602.01783). If the episode or the segment ends within n steps, the sum
    stops there and closes with that state's value, which is 0 after a termination.

    Args:
        n: number of rewards summed before the critic takes over, at least 1.
        gamma: discount per step, in [0, 1].
    """

    n: int = 5
    gamma: float = 0.99

    def __post_init__(self) -> None:
        check_at_least_one(n=self.n)
        _check_fraction("gamma", self.gamma)

    def __call__(
        self,
        *,
        rewards: Tensor,
        values: Tensor,
        next_values: Tensor,
        terminated: Tensor,
        truncated: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Returns (advantages, targets), see the module's docstring.

        The n-step advantage telescopes into TD errors: A^(1)_t = delta_t and
        A^(m+1)_t = delta_t + gamma A^(m)_{t+1}, computed in n - 1 sweeps over the segment.
        """
        _check_shapes(rewards, values, next_values, terminated, truncated)
        delta = td_error(rewards, values, next_values, terminated, self.gamma)
        decay = self.gamma * _continues(terminated, truncated, rewards.dtype)
        n = min(self.n, 2**31 - 1)  # that of tf.shape is an int32
        sweeps = tf.minimum(n, tf.shape(rewards)[0]) - 1  # more cannot reach further

        def sweep(m: Tensor, advantages: Tensor) -> tuple[Tensor, Tensor]:
            later = tf.concat([advantages[1:], tf.zeros_like(advantages[-1:])], axis=0)
            return m + 1, delta + decay * later

        _, advantages = tf.while_loop(lambda m, _: m < sweeps, sweep, (0, delta))
        return advantages, advantages + values


@dataclass(frozen=True)
class GAE:
    """A_t = sum_{l>=0} (gamma lambda)^l delta_{t+l}, generalised advantage estimation.

    Schulman et al. 2016 (arXiv 1506.02438), eq. 16. lambda trades the bias of the critic (at 0, a
    single TD error) against the variance of the return (at 1, `RewardToGo`).

    Args:
        gamma: discount per step, in [0, 1].
        gae_lambda: decay of later TD errors, lambda in [0, 1].
    """

    gamma: float = 0.99
    gae_lambda: float = 0.95

    def __post_init__(self) -> None:
        _check_fraction("gamma", self.gamma)
        _check_fraction("gae_lambda", self.gae_lambda)

    def __call__(
        self,
        *,
        rewards: Tensor,
        values: Tensor,
        next_values: Tensor,
        terminated: Tensor,
        truncated: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Returns (advantages, targets), see the module's docstring."""
        _check_shapes(rewards, values, next_values, terminated, truncated)
        delta = td_error(rewards, values, next_values, terminated, self.gamma)
        continues = _continues(terminated, truncated, rewards.dtype)
        advantages = ops.discounted_sum(delta, self.gamma * self.gae_lambda * continues)
        return advantages, advantages + values


@dataclass(frozen=True)
class VTrace:
    """A_t = r_t + gamma (lambda v_{t+1} + (1 - lambda) V(s_{t+1})) - V(s_t), v_t V-trace's target.

    Espeholt et al. 2018 (arXiv 1802.01561), eq. 1, with w = pi(a|s) / mu(a|s) of the policy that
    learns over the one that acted:

        v_t = V(s_t) + delta_t + gamma c_t (v_{t+1} - V(s_{t+1}))
        delta_t = min(rho_max, w_t) (r_t + gamma V(s_{t+1}) - V(s_t))
        c_t = lambda min(c_max, w_t)

    so that a critic learns from steps of an older policy. rho_max decides what it learns: the
    values of pi if infinite, those of mu near 0. c_max decides only how fast. On data of the policy
    itself all w are 1, and both results are those of `GAE` with the same lambda. The paper
    multiplies A_t with min(rho_max, w_t); here that is left to the loss, whose ratio has w.

    Args:
        gamma: discount per step, in [0, 1].
        trace_lambda: decay of later TD errors, lambda in [0, 1].
        rho_max: largest weight of a TD error, positive.
        c_max: largest weight of what follows, positive and at most rho_max.
    """

    gamma: float = 0.99
    trace_lambda: float = 0.95
    rho_max: float = 1.0
    c_max: float = 1.0

    def __post_init__(self) -> None:
        _check_fraction("gamma", self.gamma)
        _check_fraction("trace_lambda", self.trace_lambda)
        if not 0.0 < self.c_max <= self.rho_max:
            raise ValueError(
                "c_max must be positive and at most rho_max. "
                f"Received: c_max={self.c_max}, rho_max={self.rho_max}"
            )

    def __call__(
        self,
        *,
        rewards: Tensor,
        values: Tensor,
        next_values: Tensor,
        terminated: Tensor,
        truncated: Tensor,
        importance_weights: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Returns (advantages, targets), see the module's docstring."""
        _check_shapes(rewards, values, next_values, terminated, truncated, importance_weights)
        error = td_error(rewards, values, next_values, terminated, self.gamma)
        decay = self.gamma * self.trace_lambda * _continues(terminated, truncated, rewards.dtype)
        delta = tf.minimum(importance_weights, self.rho_max) * error
        corrections = ops.discounted_sum(delta, decay * tf.minimum(importance_weights, self.c_max))
        later = tf.concat([corrections[1:], tf.zeros_like(corrections[-1:])], axis=0)
        return error + decay * later, values + corrections
