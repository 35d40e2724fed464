"""`Learner`: improves a policy on a trajectory, in one compiled TensorFlow function."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ppo_tf import ops
from ppo_tf.learning import diagnostics, undo
from ppo_tf.learning.compatibility import check_model, check_optimizer
from ppo_tf.learning.estimators import GAE
from ppo_tf.learning.losses import Clip
from ppo_tf.learning.memories import Memories
from ppo_tf.learning.naming import Variable, named_variables
from ppo_tf.learning.objective import Objective, Standardization
from ppo_tf.learning.optimizers import default_optimizer
from ppo_tf.learning.preparation import Preparation, Start
from ppo_tf.learning.replicas import Replicas, scope_of
from ppo_tf.learning.reuse import Rollouts, check_loss, effective_sample_size
from ppo_tf.learning.updates.minibatch import MinibatchUpdate
from ppo_tf.learning.updates.rule import UPDATE_RULE_KEYWORDS, UpdateRule, plain
from ppo_tf.learning.value_losses import SquaredError
from ppo_tf.networks import layers, models, recurrent
from ppo_tf.policies.policy import Policy
from ppo_tf.support import keywords
from ppo_tf.types import (
    REWARD_TRANSFORMATION_KEYWORDS,
    Estimator,
    Loss,
    Metrics,
    Nest,
    NonFiniteError,
    RewardTransformation,
    Tensor,
    Trajectory,
    ValueLoss,
)


class Learner:
    """Proximal policy optimisation from exchangeable parts (Schulman et al. 2017, Algorithm 1).

    An update recomputes the old distributions and the values with the weights that acted, estimates
    advantages, and leaves the rest to its update rule: by default `MinibatchUpdate`, the algorithm
    in `learning/updates/minibatch.py`. An update that produces a NaN or infinity is undone.

    Components are called with those keywords that their signatures name; see `types.Estimator` and
    the other protocols there. They are called without AutoGraph: control flow that depends on
    tensors needs `tf.cond`, `tf.scan` or a `tf.function`. Components with variables are Keras
    layers or tf.Modules; their variables are undone and checkpointed with the weights.

    Args:
        policy: policy that acts and learns.
        critic: keras.Model from observations [B, ...] to values [B]; None: every value is 0, which
            suits `RewardToGo(baseline=False)`.
        optimizer: a Keras optimizer, by default `default_optimizer()`. Its schedule counts gradient
            steps; its `global_clipnorm` clips gradients.
        estimator: advantage estimator, by default `GAE()`.
        loss: loss of the policy, by default `Clip()`.
        value_loss: loss of the critic, by default `SquaredError()`.
        value_coefficient: weight of the value loss.
        standardize_advantages: where advantages are scaled to mean 0 and standard deviation 1: in
            each "minibatch", in the whole "batch", or "off".
        reward_transformation: function from the environment's rewards to the estimator's, such as
            `RewardScaling`.
        sequence_length: number of steps that gradients reach back in recurrent models; must divide
            the horizon and minibatch_size. Minibatches then consist of whole sequences, each
            starting from the state in which its first step was reached.
        reuse: number of rollouts to learn from, M: the newest and M - 1 old ones, their steps
            weighted for the policies that took them (see `learning/reuse.py`). What is kept is
            forgotten where new episodes start in all environments, as after a checkpoint.
        update_rule: how policy and critic improve on a batch.
        jit_compile: whether XLA compiles the update, or with a strategy the gradients of each
            device; None: unless there are convolutions, which XLA makes slower on CPUs.
        strategy: devices of this machine that share the gradient steps, each with a part of every
            minibatch (see `learning/replicas.py`); None: one device. Models, optimizer and whatever
            else has variables must be made in its scope; `update` must be called outside. Tested on
            two CPU devices; nobody has tried GPUs yet.
        seed: seed of the shuffling, and of the collectors that act for this learner.
        minibatch_options: arguments of the default update rule, `MinibatchUpdate`: `epochs`,
            `minibatch_size`, `recompute_advantages` and `early_stopping_kl`.

    Attributes:
        iterations: number of updates so far.

    Raises:
        ValueError: an argument is out of range, arguments are incompatible, or a component needs an
            argument that its protocol does not have.
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
        standardize_advantages: Standardization = "minibatch",
        reward_transformation: RewardTransformation | None = None,
        sequence_length: int = 32,
        reuse: int = 1,
        update_rule: UpdateRule | None = None,
        jit_compile: bool | None = None,
        strategy: tf.distribute.MirroredStrategy | None = None,
        seed: int = 0,
        **minibatch_options: Any,
    ):
        if update_rule is not None and minibatch_options:
            raise ValueError(
                f"{', '.join(minibatch_options)} cannot be combined with update_rule. "
                f"Received: update_rule={update_rule}, {minibatch_options}"
            )
        _check(value_coefficient=value_coefficient, sequence_length=sequence_length, seed=seed)
        if critic is not None and not critic.built:
            raise ValueError(
                "The critic must be built: give it a keras.Input, or call it once. "
                f"Received: {critic}"
            )
        check_model(policy.actor, "actor")
        if critic is not None:
            check_model(critic, "critic")
        self.policy = policy
        self.critic = critic
        self.strategy = strategy
        with scope_of(strategy):
            self.optimizer = optimizer or default_optimizer()
        check_optimizer(self.optimizer)
        self.reward_transformation = reward_transformation
        self.objective = Objective(
            policy,
            critic,
            estimator or GAE(),
            loss or Clip(),
            value_loss or SquaredError(),
            value_coefficient,
            standardize_advantages,
        )
        self.loss = self.objective.loss
        self.update_rule = update_rule or MinibatchUpdate(**minibatch_options)
        self.update_rule.check(self.objective)
        self.memories = Memories(policy.actor, critic)
        recurs = policy.recurrent or recurrent.is_recurrent(critic)
        self.sequence_length = sequence_length if recurs else 1
        self.rollouts = Rollouts(reuse)
        if reuse > 1:
            check_loss(self.loss)
            if recurs:
                raise ValueError(
                    "reuse cannot be combined with a memory, whose states would be those of other "
                    f"weights. Received: reuse={reuse}"
                )
        self.seed = seed
        self.iterations = 0
        self._num_envs: int | None = None  # that per-environment variables are for
        self._improve = keywords.taking(self.update_rule, UPDATE_RULE_KEYWORDS, "update_rule")
        transform = reward_transformation and keywords.taking(
            reward_transformation, REWARD_TRANSFORMATION_KEYWORDS, "reward_transformation"
        )
        self._prepare = Preparation(
            *(self.objective, self.memories, self.rollouts, transform, self.sequence_length)
        )
        parts = [policy] if critic is None else [policy, critic]
        weights = [weight for model in parts for weight in model.trainable_variables]
        self.trained = list({id(weight): weight for weight in weights}.values())
        self._normalizations = [layer for part in parts for layer in layers.normalizations(part)]
        if jit_compile is None:
            jit_compile = not any(models.has_convolutions(model) for model in parts)
        self.jit_compile = jit_compile
        self._replicas = None if strategy is None else Replicas(strategy, jit_compile)
        if self._replicas is not None:
            self._replicas.check(self.update_rule, self.named_variables)
        with scope_of(strategy):
            self.optimizer.build(self.trained)
        self._compile()

    def _compile(self) -> None:
        self._trainable = self._frozen_or_not()
        whole = self.jit_compile and self._replicas is None
        self._compiled: Callable[..., Any] = tf.function(self._update, jit_compile=whole)

    def _frozen_or_not(self) -> list[bool]:
        """Whether each weight learns, and each normaliser."""
        return [part.trainable for part in [*self.trained, *self._normalizations]]

    @property
    def named_variables(self) -> dict[str, Variable]:
        """All variables that an update changes, by names that are the same in every process."""
        return named_variables(
            {
                "policy": self.policy,
                "critic": self.critic,
                "optimizer": self.optimizer,
                "reward_transformation": self.reward_transformation,
                "estimator": self.objective.estimator,
                "loss": self.loss,
                "value_loss": self.objective.value_loss,
                "update_rule": self.update_rule,
                "memory": self.memories.variables,
            }
        )

    @property
    def variables(self) -> list[Variable]:
        """All variables that an update changes: weights, statistics, optimizer, coefficients."""
        return list(self.named_variables.values())

    def check_batch(self, horizon: int, num_envs: int) -> None:
        """Raises ValueError if the rule can't learn from trajectories of [horizon, num_envs]."""
        num_envs *= self.rollouts.count
        self.update_rule.check_batch(horizon, num_envs, self.sequence_length)
        if self._replicas is not None:
            self._replicas.check_batch(self.update_rule, self.sequence_length)

    def update(self, trajectory: Trajectory) -> dict[str, float | None]:
        """Learns from a trajectory that the current weights collected.

        Args:
            trajectory: [T, B], see `Trajectory`.

        Returns:
            Metrics by name.

            - Those of the update rule. For `MinibatchUpdate`, means over the gradient steps of
              `loss` = `policy_loss` + value_coefficient * `value_loss`, those two, `gradient_norm`
              (before clipping) and the metrics of the policy loss, such as `clip_fraction`; and the
              numbers of `epochs` and `gradient_steps` that ran.
            - Those of `diagnostics.policy_change` over the whole trajectory, from the policy that
              acted to the one that will act: `kl`, `kl_k1`, `kl_k2`, `kl_k3` and `entropy`, in
              nats. What the normalisers' move did to the policy is included.
            - `explained_variance` of the targets by the values before the update; None if all
              targets are equal.
            - `learning_rate` after the update.

        Raises:
            ValueError: shapes do not match.
            NonFiniteError: a metric or a variable became NaN or infinite; all variables are as
                before the call.
        """
        shape = np.shape(trajectory.rewards)
        for name in ("terminated", "truncated", "valid", "starts"):
            if np.shape(getattr(trajectory, name)) != shape or len(shape) != 2:
                raise ValueError(
                    f"rewards and {name} must share one shape [T, B]. Received: rewards of shape "
                    f"{shape}, {name} of shape {np.shape(getattr(trajectory, name))}"
                )
        if np.size(trajectory.log_probs) == 0:
            trajectory = trajectory._replace(log_probs=())
        self.check_batch(*shape)
        if self._replicas is not None:
            self._replicas.check_context()
        self._build(shape[1])
        if self._trainable != self._frozen_or_not():
            self._compile()  # a layer was frozen, or thawed, since
        length, sequences = self.sequence_length, math.prod(shape) // self.sequence_length
        draws = self.update_rule.draw(
            sequences * self.rollouts.count, length, self.seed, self.iterations
        )
        new = self.objective.with_layer_noise(trajectory, self.seed, self.iterations)
        data = tf.nest.map_structure(tf.convert_to_tensor, (self.rollouts.joined(new), draws))
        tensors, explained_variance, finite, kept = self._compiled(*data)
        metrics = {name: float(tensor) for name, tensor in tensors.items()}
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise NonFiniteError(
                    f"iteration {self.iterations}: {name} became {value}; "
                    "the weights are those from before this update"
                )
        stayed = finite.numpy()
        if not stayed.all():
            name = list(self.named_variables)[int(np.argmin(stayed))]
            raise NonFiniteError(
                f"iteration {self.iterations}: the variable {name} became NaN or infinite; "
                "the weights are those from before this update"
            )
        self.iterations += 1
        if kept:
            self.rollouts.keep(new, *kept)
        # The explained variance of constant targets is undefined.
        explained = float(explained_variance)
        return metrics | {"explained_variance": None if math.isnan(explained) else explained}

    def begin_episodes(self, num_envs: int) -> None:
        """Discards what is carried from one trajectory to the next: memories and running returns.

        To be called when new episodes start in all environments between two updates.
        """
        self._build(num_envs)
        self.memories.empty()
        self.rollouts.forget()
        begin = getattr(self.reward_transformation, "begin_episodes", None)
        if begin is not None:
            begin()

    def _build(self, num_envs: int) -> None:
        """Creates the per-environment variables.

        Raises:
            ValueError: they are there already, for another number of environments.
        """
        carries = self.memories.variables or self.reward_transformation is not None
        if carries and self._num_envs not in (None, num_envs):
            raise ValueError(
                "This learner carries memories or running returns of "
                f"{self._num_envs} environments. Received: num_envs={num_envs}"
            )
        self._num_envs = num_envs
        transformation = self.reward_transformation
        with scope_of(self.strategy):
            if isinstance(transformation, keras.Layer) and not transformation.built:
                transformation.build((None, num_envs))
            self.memories.build(num_envs)

    def _update(
        self, trajectory: Trajectory, draws: Nest
    ) -> tuple[Metrics, Tensor, Tensor, tuple[Tensor, ...]]:
        """Performs the whole update as one graph; see `update`.

        Returns:
            (metrics by name, any of which undoes the update if not finite; explained variance,
            which may be NaN; whether each variable stayed finite, bool [n], likewise; what
            `Rollouts.keep` needs of the newest rollout, empty if it is not kept).
        """
        variables = self.variables
        before = undo.snapshot(variables)
        start = self._prepare(trajectory)
        metrics = self._improve(
            batch=start.batch,
            objective=self.objective,
            variables=[weight for weight in self.trained if weight.trainable],
            optimizer=self.optimizer,
            draws=draws,
            reestimate=plain(lambda: self._prepare.reestimated(start, trajectory)),
            replicas=self._replicas,
        )
        metrics |= self._finish(trajectory, start)
        after = undo.snapshot(variables)
        finite = undo.finite_each(after, before)
        good = undo.all_finite(list(metrics.values())) & tf.reduce_all(finite)
        undo.keep_if(good, variables, after, before)
        return (
            metrics,
            start.explained_variance,
            finite,
            self.rollouts.kept(start.rewards, start.log_probs),
        )

    # AutoGraph is off from here on: its conversions took a third of the tracing time.

    @plain
    def _finish(self, trajectory: Trajectory, start: Start) -> Metrics:
        """Measures the change of the policy, and updates what changes once per update."""
        new_parameters, _ = self.policy.unroll(
            trajectory.observations, start.policy_state, trajectory.starts, trajectory.layer_noise
        )
        old_dist = self.policy.family(**ops.merge_time(start.acted))
        new_dist = self.policy.family(**ops.merge_time(new_parameters))
        actions, valid = ops.merge_time((trajectory.actions, trajectory.valid))
        metrics = diagnostics.policy_change(old_dist, new_dist, actions, valid)
        weights = start.importance_weights
        if not isinstance(weights, tuple):
            metrics["effective_sample_size"] = effective_sample_size(weights, trajectory.valid)
        if hasattr(self.loss, "after_update"):
            self.loss.after_update(metrics.get("kl", metrics["kl_k3"]))
        self.memories.carry_on(start.policy_states, start.critic_states)
        return metrics | {"learning_rate": tf.convert_to_tensor(self.optimizer.learning_rate)}


def _check(*, value_coefficient: float, sequence_length: int, seed: int) -> None:
    for name, value, least in (("sequence_length", sequence_length, 1), ("seed", seed, 0)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}. Received: {name}={value}")
    if not 0 <= value_coefficient < math.inf:
        raise ValueError(
            "value_coefficient must be at least 0 and finite. "
            f"Received: value_coefficient={value_coefficient}"
        )
