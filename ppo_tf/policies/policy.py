"""`Policy`: an actor, a distribution over raw actions and the map to the environment's action."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from ppo_tf import ops
from ppo_tf.actions.distributions import Joint, deserialize_family, serialize_family
from ppo_tf.actions.specs import Continuous, action_spec
from ppo_tf.networks import recurrent
from ppo_tf.networks.models import Environment, action_space, mlp_actor
from ppo_tf.networks.noise import LayerNoise, find_noise
from ppo_tf.networks.precision import check_precision
from ppo_tf.types import ActionMap, Distribution, DistributionFamily, Nest, Tensor


def _check_outputs(outputs: Any, family: DistributionFamily) -> None:
    """Checks that the actor's outputs are the distribution's arguments; the error names both."""
    if not isinstance(outputs, dict):
        raise ValueError(
            "The actor must return a dict from the distribution's parameter names to tensors. "
            f"Received: {outputs}"
        )
    if isinstance(family, Joint):
        if outputs.keys() != family.families.keys():
            raise ValueError(
                "The actor's outputs must match the Joint's parts, {path: {name: tensor}}. "
                f"Received: outputs={sorted(outputs)}, Joint of {sorted(family.families)}"
            )
        for path, part in family.families.items():
            _check_outputs(outputs[path], part)
        return
    parameters = inspect.signature(family).parameters.values()
    accepted = [p.name for p in parameters]
    required = [p.name for p in parameters if p.default is p.empty and p.kind != p.VAR_KEYWORD]
    anything = any(p.kind == p.VAR_KEYWORD for p in parameters)
    unknown = set() if anything else outputs.keys() - set(accepted)
    missing = set(required) - outputs.keys()
    if unknown or missing:
        name = getattr(family, "__name__", family)
        raise ValueError(
            "The actor's output names must be the distribution's argument names. "
            f"Received: outputs={sorted(outputs)}, {name} takes {accepted}"
            + (f", of which {required} are required" if required else "")
        )


def _mean(distribution: Distribution) -> Nest:
    try:
        return distribution.mean()
    except NotImplementedError as error:
        raise ValueError(
            "The distribution must have a mode or a mean, which deterministic actions need. "
            f"Received: {distribution}"
        ) from error


def _mode(distribution: Distribution) -> Nest:
    try:
        mode = distribution.mode()
    except NotImplementedError:
        return _mean(distribution)
    if not any(part.dtype.is_floating for part in tf.nest.flatten(mode)):
        return mode
    try:
        mean = distribution.mean()
    except NotImplementedError:
        return mode
    return tf.nest.map_structure(
        lambda m, average: tf.where(tf.math.is_nan(m), average, m) if m.dtype.is_floating else m,
        mode,
        mean,
    )


@keras.saving.register_keras_serializable("ppo_tf")
class Policy(keras.Model):
    """An agent: `policy(observations)` is the deterministic action, ready for `env.step`.

    Saves and loads like any Keras model: `policy.save("policy.keras")`. Dropout and other noise in
    the actor acts where it is given, see `networks.noise`: collecting and learning, not evaluating.

    Args:
        actor: keras.Model from observations [B, ...] to {parameter name: [B, ...]}; the names are
            the distribution's arguments, for instance {"loc", "scale_diag"}. A recurrent actor is a
            `recurrent.Recurrent`.
        family: a class of `tfp.distributions`, or any callable from those parameters to a TFP
            distribution of batch shape [B]. To save the policy, register the callable with Keras.
        action_map: callable from raw actions [B, ...] to the environment's actions; also to be
            registered with Keras if the policy is saved.

    Raises:
        ValueError: the actor is not built, computes neither in float32 nor in mixed_bfloat16, its
            outputs are not the distribution's arguments, or the distribution has neither mode nor
            mean. Of a subclassed actor, whose outputs are not known yet, a collector checks the
            last two.
    """

    def __init__(
        self,
        actor: keras.Model,
        family: DistributionFamily,
        action_map: ActionMap,
        **kwargs: Any,
    ):
        super().__init__(**{"dtype": "float32", **kwargs})
        if not actor.built:
            raise ValueError(
                "The actor must be built: start it with a keras.Input, or call it once. "
                f"Received: {actor}"
            )
        check_precision(actor, "actor")
        shown = actor.head if isinstance(actor, recurrent.Recurrent) else actor
        if getattr(shown, "outputs", None):  # a subclassed model's are known when it is called
            _check_outputs(shown.output, family)
        self.actor = actor
        self.family = family
        self.action_map = action_map
        self.built = True  # the actor holds all weights and is built
        if type(self).draw is Policy.draw:
            self._check_mode()

    def _check_mode(self) -> None:
        """Raises ValueError unless the distribution for observations of 0 has a mode or mean."""
        zeros = recurrent.zero_observations(self.actor, 1)
        if zeros is not None:  # otherwise `agreement.check_actions` has observations
            self.draw(self.step(zeros, self.initial_state(1))[0], None)

    @property
    def recurrent(self) -> bool:
        """Whether the actor has a memory.

        If so, `parameters`, `distribution`, `sample`, `mode` and the policy itself also take the
        state, and return a pair of their usual result and the new state.
        """
        return recurrent.is_recurrent(self.actor)

    def initial_state(self, batch_size: int) -> list[Tensor]:
        """Returns the state before an episode, each [batch_size, units]; empty without a memory."""
        return recurrent.initial_state(self.actor, batch_size)

    @functools.cached_property
    def layer_noise(self) -> LayerNoise:
        """What the actor's layers with noise draw when the policy acts and learns."""
        return find_noise(self.actor)

    def step(
        self, observations: Nest, state: Sequence[Tensor], layer_noise: Sequence[Tensor] = ()
    ) -> tuple[Mapping[str, Nest], list[Tensor]]:
        """Runs one step; returns (the distribution's parameters by name [B, ...], new state).

        With draws for the actor's layers with noise, [B, ...] each, they compute with these.
        """
        with self.layer_noise.given(layer_noise):
            parameters, state = recurrent.step(self.actor, observations, list(state))
        _check_outputs(parameters, self.family)
        return parameters, state

    def unroll(
        self,
        observations: Nest,
        state: Sequence[Tensor],
        starts: Tensor,
        layer_noise: Sequence[Tensor] = (),
    ) -> tuple[Mapping[str, Nest], list[Tensor]]:
        """Runs whole sequences; returns (parameters [T, B, ...], states after each step).

        See `recurrent.Recurrent.unroll`; layer_noise as in `step`, [T, B, ...] each.
        """
        with self.layer_noise.given(ops.merge_time(tuple(layer_noise))):
            parameters, states = recurrent.unroll(self.actor, observations, list(state), starts)
        _check_outputs(parameters, self.family)
        return parameters, states

    def draw(self, parameters: Mapping[str, Nest], seed: Tensor | None) -> Nest:
        """Draws raw actions [B, ...] from the distribution; without a seed, returns its mode."""
        distribution = self.family(**parameters)
        return _mode(distribution) if seed is None else distribution.sample(seed=seed)

    def parameters(self, observations: Nest, state: Sequence[Tensor] = ()) -> Any:
        """Returns the distribution's parameters by name, as the actor outputs them."""
        return self._result(*self.step(observations, state))

    def distribution(self, observations: Nest, state: Sequence[Tensor] = ()) -> Any:
        """Returns the distribution over raw actions: a TFP distribution of batch shape [B]."""
        parameters, state = self.step(observations, state)
        return self._result(self.family(**parameters), state)

    def sample(self, observations: Nest, seed: Tensor, state: Sequence[Tensor] = ()) -> Any:
        """Draws raw actions [B, ...] with a stateless seed, int32 [2]."""
        parameters, state = self.step(observations, state)
        return self._result(self.draw(parameters, seed), state)

    def mode(self, observations: Nest, state: Sequence[Tensor] = ()) -> Any:
        """Returns the most likely raw actions [B, ...], or the means where there is no mode.

        TFP returns NaN for a mode that does not exist, as for a Beta with a concentration of 1.
        """
        parameters, state = self.step(observations, state)
        return self._result(self.draw(parameters, None), state)

    def call(self, observations: Nest, state: Sequence[Tensor] = ()) -> Any:
        """Returns deterministic actions for the environment, for observations [B, ...]."""
        parameters, state = self.step(observations, state)
        return self._result(self.action_map(self.draw(parameters, None)), state)

    def _result(self, value: Any, state: list[Tensor]) -> Any:
        return (value, state) if self.recurrent else value

    def __dir__(self) -> list[str]:
        # Keras saves what it finds here. The optimizer that callbacks see while `fit` runs is the
        # learner's and also holds the critic's moments: it does not belong in a policy's file.
        return [name for name in super().__dir__() if name != "optimizer"]

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, serialised."""
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "actor": serialize(self.actor),
            "family": serialize_family(self.family),
            "action_map": serialize(self.action_map),
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> Policy:
        """The inverse of `get_config`."""

        def deserialize(value: Any) -> Any:
            return keras.saving.deserialize_keras_object(value, custom_objects=custom_objects)

        config = dict(config)
        family = deserialize_family(config.pop("family"), custom_objects)
        actor, action_map = deserialize(config.pop("actor")), deserialize(config.pop("action_map"))
        return cls(actor, family, action_map, **config)


def mlp_policy(
    envs: Environment,
    *,
    continuous: Continuous = "clipped_gaussian",
    sde_period: int = 4,
    bins: int = 41,
    **options: Any,
) -> Policy:
    """Creates a policy for an environment: `mlp_actor` with the distribution of `action_spec`.

    Args:
        envs: the environment, or a vector of environments.
        continuous, sde_period, bins: as in `action_spec`.
        options: options of `mlp_actor`.

    Raises:
        ValueError: a space is not supported.
    """
    spec = action_spec(action_space(envs), continuous=continuous, sde_period=sde_period, bins=bins)
    return Policy(mlp_actor(envs, spec, **options), spec.family, spec.action_map)


def recurrent_policy(
    envs: Environment,
    *,
    continuous: Continuous = "clipped_gaussian",
    sde_period: int = 4,
    bins: int = 41,
    **options: Any,
) -> Policy:
    """Creates `mlp_policy` with a memory: the actor is a `recurrent_actor`, which takes options."""
    spec = action_spec(action_space(envs), continuous=continuous, sde_period=sde_period, bins=bins)
    actor = recurrent.recurrent_actor(envs, spec, **options)
    return Policy(actor, spec.family, spec.action_map)
