"""What a user writes, as mypy sees it; see test_typing.py.

Each `type: ignore` marks a wrong use: mypy refuses the line, and would refuse the comment too if
the line were accepted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

import ppo_tf
from ppo_tf.types import Distribution, Metrics, Nest, Tensor

array: np.ndarray = np.zeros((8, 2), np.float32)
flags: np.ndarray = np.zeros((8, 2), bool)


# Components that take some of the keywords of their protocol.
def advantages(*, rewards: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    return rewards - values, rewards


def weighted_returns(
    rewards: Tensor, values: Tensor, *, starts: Tensor, weight: float = 0.5
) -> tuple[Tensor, Tensor]:
    returns = weight * tf.cumsum(rewards, reverse=True)
    return tf.where(starts, returns - values, returns), returns


@dataclass(frozen=True)
class Surrogate:
    scale: float = 1.0

    def __call__(
        self, *, new_dist: Distribution, actions: Nest, advantages: Tensor
    ) -> tuple[Tensor, Metrics]:
        loss = -self.scale * new_dist.log_prob(actions) * advantages
        return loss, {"surrogate": loss}


def absolute_error(*, values: Tensor, targets: Tensor) -> Tensor:
    return tf.abs(values - targets)


def shifted(*, rewards: Tensor, terminated: Tensor) -> Tensor:
    return rewards - tf.cast(terminated, tf.float32)


class Plain:
    """An update rule without a draw."""

    def check(self, objective: Any) -> None: ...
    def check_batch(self, horizon: int, num_envs: int, sequence_length: int) -> None: ...
    def __call__(self, *, batch: Any, objective: Any) -> Metrics:
        return {}


class Whole(Plain):
    """An update rule on the batch as a whole."""

    def draw(self, sequences: int, sequence_length: int, seed: int, iteration: int) -> np.ndarray:
        return np.zeros(0)


def learners(policy: ppo_tf.Policy) -> None:
    ppo_tf.Learner(
        policy,
        None,
        None,
        advantages,
        Surrogate(),
        value_loss=absolute_error,
        reward_transformation=shifted,
        update_rule=Whole(),
    )
    ppo_tf.Learner(
        policy, estimator=weighted_returns, loss=ppo_tf.Sum([ppo_tf.Clip(), Surrogate()])
    )
    ppo_tf.Learner(policy, estimator=ppo_tf.GAE(), reward_transformation=ppo_tf.RewardScaling())
    ppo_tf.Learner(policy, update_rule=ppo_tf.MinibatchUpdate(epochs=4))

    ppo_tf.Learner(policy, estimator="gae")  # type: ignore[arg-type]
    ppo_tf.Learner(policy, estimator=ppo_tf.Clip())  # type: ignore[arg-type]
    ppo_tf.Learner(policy, update_rule=Plain())  # type: ignore[arg-type]
    ppo_tf.Learner("policy")  # type: ignore[arg-type]
    ppo_tf.Sum([absolute_error])  # type: ignore[list-item]


def one_tensor(*, rewards: Tensor, values: Tensor) -> Tensor:
    return rewards - values


def without_metrics(*, new_dist: Distribution, actions: Nest, advantages: Tensor) -> Tensor:
    return -new_dist.log_prob(actions) * advantages


def with_metrics(*, values: Tensor, targets: Tensor) -> tuple[Tensor, Metrics]:
    return (values - targets) ** 2, {}


def number(*, rewards: Tensor) -> float:
    return float(rewards[0, 0])


def wrong_results(policy: ppo_tf.Policy) -> None:
    ppo_tf.Learner(policy, estimator=one_tensor)  # type: ignore[arg-type]
    ppo_tf.Learner(policy, loss=without_metrics)  # type: ignore[arg-type]
    ppo_tf.Learner(policy, value_loss=with_metrics)  # type: ignore[arg-type]
    ppo_tf.Learner(policy, reward_transformation=number)  # type: ignore[arg-type]


def tensors(tensor: Tensor, nest: Nest) -> None:
    ppo_tf.ops.discounted_sum(array, 0.5 * tensor)
    ppo_tf.ops.discounted_sum(tf.zeros(3), tf.Variable(1.0))
    ppo_tf.ops.masked_mean(tensor**2, (tensor > 0.0) & ~(tensor == 1.0))
    steps, flat = ppo_tf.ops.merge_time((nest, tensor))
    ppo_tf.ops.standardize(flat, tensor > 0.0)
    ppo_tf.ops.merge_time({"camera": array, "arm": {"0": tensor}})

    ppo_tf.ops.discounted_sum(tensor, "0.9")  # type: ignore[arg-type]
    ppo_tf.ops.discounted_sum([1.0, 2.0], tensor)  # type: ignore[arg-type]
    ppo_tf.ops.discounted_sum(tensor, 0.9)  # type: ignore[arg-type]
    ppo_tf.ops.standardize(steps, tensor > 0.0)  # type: ignore[arg-type]
    ppo_tf.ops.merge_time("observations")  # type: ignore[type-var]
    _ = tensor.rank  # type: ignore[attr-defined]
    ppo_tf.GAE()(rewards=tensor, values=tensor)  # type: ignore[call-arg]


def trajectories(policy: ppo_tf.Policy) -> ppo_tf.Trajectory:
    nest: Mapping[str, np.ndarray] = {"camera": array}
    ppo_tf.Trajectory(nest, array, array, nest, flags, flags, flags, flags)
    ppo_tf.Trajectory(nest, array, [1.0], nest, flags, flags, flags, flags)  # type: ignore[arg-type]
    ppo_tf.Trajectory("o", array, array, nest, flags, flags, flags, flags)  # type: ignore[arg-type]
    ppo_tf.Trajectory(nest, array, array)  # type: ignore[call-arg]
    return ppo_tf.Trajectory(array, array, array, array, flags, flags, flags, flags)


class OwnCollector:
    num_envs = 2
    horizon = 8

    def __init__(self, policy: ppo_tf.Policy):
        self.policy = policy

    def collect(self) -> tuple[ppo_tf.Trajectory, list[ppo_tf.Episode]]:
        return trajectories(self.policy), [ppo_tf.Episode(1.0, 8)]


class Endless:
    """A collector without its sizes."""

    def collect(self) -> tuple[ppo_tf.Trajectory, list[ppo_tf.Episode]]:
        raise NotImplementedError


def training(learner: ppo_tf.Learner) -> Sequence[float]:
    ppo_tf.fit(learner, OwnCollector(learner.policy), total_steps=100)
    ppo_tf.fit(learner, ppo_tf.make_envs("CartPole-v1", 2), total_steps=100)
    ppo_tf.fit(learner, Endless(), total_steps=100)  # type: ignore[arg-type]
    ppo_tf.fit(learner, "CartPole-v1", total_steps=100)  # type: ignore[arg-type]
    learner.update({"rewards": array})  # type: ignore[arg-type]
    return ppo_tf.evaluate(learner.policy, "CartPole-v1", episodes=5).returns
