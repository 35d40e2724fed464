"""`Learner`: one call turns a trajectory into a better policy, as one compiled TensorFlow
function."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from ppo_tf import ops
from ppo_tf.learning import diagnostics
from ppo_tf.learning.batch import Batch, first_states
from ppo_tf.learning.estimators import GAE
from ppo_tf.learning.losses import Clip, SquaredError
from ppo_tf.learning.objective import Objective
from ppo_tf.learning.optimizers import default_optimizer
from ppo_tf.networks import layers, models, recurrent
from ppo_tf.policies.policy import Policy
from ppo_tf.support import seeds
from ppo_tf.types import (
    Estimator,
    Loss,
    Metrics,
    Nest,
    NonFiniteError,
    Tensor,
    Trajectory,
    ValueLoss,
)

_plain = tf.autograph.experimental.do_not_convert


class _Start(NamedTuple):
    """What an update knows before its first gradient step."""

    variables: list[Tensor]  # to undo the update
    rewards: Tensor  # [T, B], scaled
    policy_state: list[Tensor]  # before the first row, [B, units] each
    critic_state: list[Tensor]
    old_parameters: Nest  # [T, B, ...]
    explained_variance: Tensor
    batch: Batch
    last_states: list[list[Tensor]]  # of policy and critic after the last row


class Learner:
    """Proximal policy optimisation from exchangeable parts (Schulman et al. 2017, Algorithm 1).

    An update recomputes the old distributions and the values with the weights that acted, estimates
    advantages, and takes `epochs` passes of gradient steps over shuffled minibatches. An update in
    which a number is not finite is undone. Components are called as they are, without AutoGraph:
    control flow that depends on tensors needs `tf.cond`, `tf.scan` or a `tf.function` of their own.

    Args:
        policy: what acts and learns.
        critic: keras.Model from observations [B, ...] to values [B]; None: every value is 0, which
            suits `RewardToGo(baseline=False)`.
        optimizer: of Keras; `default_optimizer()` by default. Its schedule counts gradient steps,
            its `global_clipnorm` clips gradients.
        estimator: of advantages, by default `GAE()`.
        loss: of the policy, by default `Clip()`.
        value_loss: of the critic, by default `SquaredError()`.
        value_coefficient: weight of the value loss.
        epochs: passes over the data per update.
        minibatch_size: samples per gradient step; must divide horizon * num_envs.
        standardize_advantages: whether each minibatch's advantages get mean 0 and standard
            deviation 1.
        recompute_advantages: whether values and advantages are estimated anew before each epoch.
        reward_transformation: layer from (rewards, done, valid) to rewards, such as
            `RewardScaling`.
        sequence_length: steps that gradients reach back in models with a memory; must divide the
            horizon and minibatch_size. Minibatches are of whole sequences then, each started from
            the state that its first step was reached with.
        early_stopping_kl: stops an update's epochs after a gradient step whose minibatch had a mean
            KL(old || new) above it, in nats; None never stops.
        jit_compile: whether XLA compiles the update; None: unless there are convolutions, which it
            makes slower on CPUs.
        seed: of the shuffling, and of whoever acts for this learner.

    Raises:
        ValueError: an argument out of range.
    """

    def __init__(
        self,
        policy: Policy,
        critic: keras.Model | None = None,
        optimizer: keras.optimizers.Optimizer | None = None,
        estimator: Estimator | None = None,
        loss: Loss | None = None,
        *,
        value_loss: ValueLoss | None = None,
        value_coefficient: float = 0.5,
        epochs: int = 10,
        minibatch_size: int = 64,
        standardize_advantages: bool = True,
        recompute_advantages: bool = False,
        reward_transformation: keras.Layer | None = None,
        sequence_length: int = 32,
        early_stopping_kl: float | None = None,
        jit_compile: bool | None = None,
        seed: int = 0,
    ):
        for name, value, least in (
            ("epochs", epochs, 1),
            # One advantage alone, standardised, is 0 and would never teach anything.
            ("minibatch_size", minibatch_size, 2 if standardize_advantages else 1),
            ("sequence_length", sequence_length, 1),
            ("seed", seed, 0),
        ):
            if value < least:
                raise ValueError(f"{name} must be at least {least}. Received: {name}={value}")
        if not 0 <= value_coefficient < math.inf:
            raise ValueError(
                "value_coefficient must be at least 0 and finite. "
                f"Received: value_coefficient={value_coefficient}"
            )
        if early_stopping_kl is not None and not early_stopping_kl > 0:
            raise ValueError(
                "early_stopping_kl must be positive. "
                f"Received: early_stopping_kl={early_stopping_kl}"
            )
        if critic is not None and not critic.built:
            raise ValueError(
                "The critic must be built: start it with a keras.Input, or call it once. "
                f"Received: {critic}"
            )
        self.policy = policy
        self.critic = critic
        self.optimizer = optimizer or default_optimizer()
        self.loss = loss or Clip()
        self.epochs = epochs
        self.minibatch_size = minibatch_size
        self.recompute_advantages = recompute_advantages
        self.reward_transformation = reward_transformation
        self.recurrent = policy.recurrent or recurrent.is_recurrent(critic)
        self.sequence_length = sequence_length if self.recurrent else 1
        self.objective = Objective(
            policy,
            critic,
            estimator or GAE(),
            self.loss,
            value_loss or SquaredError(),
            value_coefficient,
            standardize_advantages,
            early_stopping_kl,
        )
        self.seed = seed
        self.iterations = 0  # done so far
        self._metric_names: list[str] = []  # set when the update is traced
        self._models = [policy] if critic is None else [policy, critic]
        # The memories of policy and critic after the last row of the last trajectory.
        self._states: list[list[Any]] = [[], []]
        self._trained = _unique(v for m in self._models for v in m.trainable_variables)
        self.optimizer.build(self._trained)
        if jit_compile is None:
            jit_compile = not any(models.has_convolutions(model) for model in self._models)
        self.jit_compile = jit_compile
        self._compiled: Callable = tf.function(self._update, jit_compile=jit_compile)

    @property
    def variables(self) -> list[Any]:
        """Everything an update changes: weights, statistics, optimiser, adaptive coefficients."""
        holders = [*self._models, self.optimizer, self.reward_transformation, self.loss]
        found = [v for holder in holders for v in getattr(holder, "variables", ())]
        return _unique([*found, *self._states[0], *self._states[1]])

    def check_batch(self, horizon: int, num_envs: int) -> None:
        """Raises ValueError unless minibatches divide a trajectory of [horizon, num_envs]."""
        length = self.sequence_length
        if horizon % length or self.minibatch_size % length:
            raise ValueError(
                "sequence_length must divide the horizon and minibatch_size. Received: "
                f"sequence_length={length}, horizon={horizon}, minibatch_size={self.minibatch_size}"
            )
        if (horizon * num_envs) % self.minibatch_size:
            raise ValueError(
                "minibatch_size must divide horizon * num_envs. Received: "
                f"minibatch_size={self.minibatch_size}, horizon * num_envs={horizon * num_envs}"
            )

    def update(self, trajectory: Trajectory) -> dict[str, float | None]:
        """Learns from a trajectory that the current weights collected.

        Args:
            trajectory: [T, B], see `Trajectory`.

        Returns:
            Metrics by name. Means over the gradient steps taken: `loss`, which is `policy_loss` +
            value_coefficient * `value_loss`, those two, `gradient_norm` (before clipping) and the
            policy loss' own, such as `clip_fraction`. Over the
            whole trajectory after the update, those of `diagnostics.policy_change`: `kl`, `kl_k1`,
            `kl_k2`, `kl_k3`, `entropy`, in nats. Before it: `explained_variance` of the targets by
            the values, None where all targets are equal. And `epochs` that ran, `gradient_steps`
            and the `learning_rate` after them.

        Raises:
            ValueError: shapes that do not fit.
            NonFiniteError: a metric went NaN or infinite; all variables are as before the call.
        """
        shape = np.shape(trajectory.rewards)
        for name in ("terminated", "truncated", "valid", "starts"):
            if np.shape(getattr(trajectory, name)) != shape or len(shape) != 2:
                raise ValueError(
                    f"rewards and {name} must share one shape [T, B]. Received: rewards of shape "
                    f"{shape}, {name} of shape {np.shape(getattr(trajectory, name))}"
                )
        self.check_batch(*shape)
        self._build(shape[1])
        trajectory = Trajectory(*tf.nest.map_structure(tf.convert_to_tensor, tuple(trajectory)))
        sequences = math.prod(shape) // self.sequence_length
        order = seeds.shuffled(self.epochs, sequences, self.seed, "shuffle", self.iterations)
        order = order.reshape(self.epochs, -1, self.minibatch_size // self.sequence_length)
        *values, first_bad = self._compiled(trajectory, tf.constant(order)).numpy().tolist()
        metrics = dict(zip(self._metric_names, values, strict=True))
        if first_bad >= 0:
            name = self._metric_names[int(first_bad)]
            raise NonFiniteError(
                f"update {self.iterations}: {name} became {metrics[name]}; "
                "the weights are those from before this update"
            )
        self.iterations += 1
        # Constant targets leave the explained variance without an answer.
        return {name: None if math.isnan(value) else value for name, value in metrics.items()}

    def begin_episodes(self, num_envs: int) -> None:
        """Empties what is carried from one trajectory to the next: memories and running returns.

        For whoever starts new episodes in all environments between two updates. A reward scaling
        of one's own that carries something has a method `begin_episodes` of its own.
        """
        self._build(num_envs)
        for variable in [*self._states[0], *self._states[1]]:
            variable.assign(tf.zeros_like(variable))
        begin = getattr(self.reward_transformation, "begin_episodes", None)
        if begin is not None:
            begin()

    def _build(self, num_envs: int) -> None:
        """Makes the variables that there is one of for each environment."""
        if self.reward_transformation is not None and not self.reward_transformation.built:
            self.reward_transformation.build((None, num_envs))
        if self.recurrent and self._states == [[], []]:
            for model, states in zip([self.policy, self.critic], self._states, strict=True):
                for part in recurrent.initial_state(model, num_envs):
                    states.append(keras.Variable(part, trainable=False, dtype=part.dtype))

    def _update(self, trajectory: Trajectory, order: Tensor) -> Tensor:
        """The whole update as one graph; see `update`.

        Args:
            trajectory: [T, B].
            order: int32 [epochs, minibatches, n], the sequences of each gradient step.

        Returns:
            float [n], the metrics by the order of `_metric_names`; last, the index of the first
            that went bad, or -1.
        """
        start = self._start(trajectory)
        like, _ = self._evaluated(start.batch.take(order[0, 0]))
        totals = {name: tf.zeros_like(value) for name, value in like.items()}
        first_bad, steps, epoch = tf.constant(-1), tf.constant(0), tf.constant(0)
        stop = tf.constant(False)

        # Conditions of the loops instead of `break`, which would make every step a branch.
        while epoch < self.epochs and not stop:
            batch = self._refreshed(start, trajectory)
            minibatch = tf.constant(0)
            while minibatch < order.shape[1] and not stop:
                metrics, kl = self._gradient_step(batch, order[epoch, minibatch])
                totals = tf.nest.map_structure(tf.add, totals, metrics)
                first_bad = self._first_bad(metrics)
                minibatch += 1
                stop = first_bad >= 0
                if self.objective.early_stopping_kl is not None:
                    stop = stop | (kl > self.objective.early_stopping_kl)
            steps += minibatch
            epoch += 1
        return self._finish(trajectory, start, totals, steps, epoch, first_bad)

    # What follows needs no AutoGraph, whose conversions were a third of the time to trace.

    @_plain
    def _start(self, trajectory: Trajectory) -> _Start:
        """All that is computed with the weights that acted."""
        before = [tf.identity(v) for v in self.variables]
        rewards = self._scaled_rewards(trajectory)
        policy_state, critic_state = [[tf.identity(v) for v in part] for part in self._states]
        old_parameters, policy_states = self.policy.unroll(
            trajectory.observations, policy_state, trajectory.starts
        )
        values, advantages, targets, critic_states = self.objective.estimate(
            trajectory, rewards, critic_state
        )
        length = self.sequence_length
        facts = (trajectory.observations, trajectory.actions, trajectory.valid, trajectory.starts)
        steps: Any = ops.to_sequences((*facts, old_parameters, values, advantages, targets), length)
        states: Any = (
            first_states(policy_state, policy_states, length),
            first_states(critic_state, critic_states, length),
        )
        batch = Batch(*steps, *states)
        last = [[part[-1] for part in states] for states in (policy_states, critic_states)]
        explained = ops.explained_variance(values, targets, trajectory.valid)
        return _Start(
            before, rewards, policy_state, critic_state, old_parameters, explained, batch, last
        )

    @_plain
    def _refreshed(self, start: _Start, trajectory: Trajectory) -> Batch:
        """The batch with the advantages that an epoch wants; at epoch 0 they are the same again."""
        if not self.recompute_advantages:
            return start.batch
        _, advantages, targets, _ = self.objective.estimate(
            trajectory, start.rewards, start.critic_state
        )
        advantages, targets = ops.to_sequences((advantages, targets), self.sequence_length)
        return start.batch._replace(advantages=advantages, targets=targets)

    @_plain
    def _evaluated(self, batch: Batch) -> tuple[Metrics, Tensor]:
        """The metrics of a gradient step by their names; only the shapes are used."""
        _, metrics, kl = self.objective.losses(batch)
        return metrics | {"gradient_norm": tf.constant(0.0)}, kl

    @_plain
    def _gradient_step(self, batch: Batch, rows: Tensor) -> tuple[Metrics, Tensor]:
        """One step of the optimiser on the sequences `rows`; returns (metrics, mean KL before the
        step)."""
        with tf.GradientTape() as tape:
            total, metrics, kl = self.objective.losses(batch.take(rows))
        gradients = tape.gradient(total, [v.value for v in self._trained])
        metrics["gradient_norm"] = tf.linalg.global_norm(gradients)
        self.optimizer.apply(gradients, self._trained)
        return metrics, kl

    @_plain
    def _first_bad(self, metrics: Metrics) -> Tensor:
        return diagnostics.first_non_finite(list(metrics.values()))

    @_plain
    def _finish(self, trajectory, start: _Start, totals, steps, epoch, first_bad) -> Tensor:
        """Moves what moves once per update, undoes all of it if a number is bad, and returns the
        metrics."""
        metrics = {name: total / tf.cast(steps, tf.float32) for name, total in totals.items()}
        new_parameters, _ = self.policy.unroll(
            trajectory.observations, start.policy_state, trajectory.starts
        )
        old_dist = self.policy.family(**ops.merge_time(start.old_parameters))
        new_dist = self.policy.family(**ops.merge_time(new_parameters))
        actions, valid = ops.merge_time((trajectory.actions, trajectory.valid))
        metrics.update(diagnostics.policy_change(old_dist, new_dist, actions, valid))
        if hasattr(self.loss, "after_update"):
            self.loss.after_update(metrics.get("kl", metrics["kl_k3"]))
        self._learn_statistics(trajectory)
        for variables, states in zip(self._states, start.last_states, strict=True):
            for variable, state in zip(variables, states, strict=True):
                variable.assign(state)
        first_bad = tf.where(first_bad >= 0, first_bad, self._first_bad(metrics))
        for variable, value in zip(self.variables, start.variables, strict=True):
            variable.assign(tf.where(first_bad < 0, tf.convert_to_tensor(variable), value))
        metrics["explained_variance"] = start.explained_variance
        metrics["epochs"] = epoch
        metrics["gradient_steps"] = steps
        metrics["learning_rate"] = tf.convert_to_tensor(self.optimizer.learning_rate)
        self._metric_names = list(metrics)
        return tf.stack([tf.cast(value, tf.float32) for value in [*metrics.values(), first_bad]])

    def _scaled_rewards(self, trajectory: Trajectory) -> Tensor:
        """Rewards [T, B] as the estimator sees them: scaled, and 0 on rows that are not valid."""
        rewards = tf.cast(trajectory.rewards, tf.float32)
        if self.reward_transformation is not None:
            done = trajectory.terminated | trajectory.truncated
            rewards = self.reward_transformation(rewards, done, trajectory.valid)
        return tf.where(trajectory.valid, rewards, tf.zeros_like(rewards))

    def _learn_statistics(self, trajectory: Trajectory) -> None:
        """Moves the normalisers by the observations of this update, once."""
        observations, valid = ops.merge_time((trajectory.observations, trajectory.valid))
        with layers.learn_statistics(tf.cast(valid, tf.float32)):
            recurrent.encode(self.policy.actor, observations)
            if self.critic is not None:
                recurrent.encode(self.critic, observations)


def _unique(variables) -> list[Any]:
    return list({id(v): v for v in variables}.values())
