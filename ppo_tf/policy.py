"""`Policy`: an actor, a distribution over raw actions and the map to the environment's action."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from ppo_tf.action_specs import Continuous, action_spec
from ppo_tf.models import Environment, action_space, mlp_actor
from ppo_tf.types import Distribution, DistributionFamily, Nest, Tensor


def _check_outputs(outputs: Any, family: DistributionFamily) -> None:
    """The actor's outputs must be arguments of the distribution; says both sides if not."""
    if not isinstance(outputs, dict):
        raise ValueError(
            "The actor must return a dict from the distribution's parameter names to tensors. "
            f"Received: {outputs}"
        )
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
            + (f", of which {required} must be given" if required else "")
        )


@keras.saving.register_keras_serializable("ppo_tf")
class Policy(keras.Model):
    """What acts: `policy(observations)` is the deterministic action, ready for `env.step`.

    Saves and loads as any Keras model: `policy.save("policy.keras")`.

    Args:
        actor: keras.Model from observations [B, ...] to {parameter name: [B, ...]}; the names are
            the distribution's arguments, for instance {"loc", "scale_diag"}.
        family: a class of `tfp.distributions`, or any callable from those parameters to a TFP
            distribution of batch shape [B] (registered with Keras if the policy is to be saved).
        action_map: callable from raw actions [B, ...] to the environment's actions (likewise).

    Raises:
        ValueError: the actor's outputs do not fit the distribution's arguments, or it is not built.
    """

    def __init__(
        self,
        actor: keras.Model,
        family: DistributionFamily,
        action_map: Callable[[Tensor], Tensor],
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if not actor.built:
            raise ValueError(
                "The actor must be built: start it with a keras.Input, or call it once. "
                f"Received: {actor}"
            )
        if getattr(actor, "outputs", None):  # a subclassed model shows its outputs when called
            _check_outputs(actor.output, family)
        self.actor = actor
        self.family = family
        self.action_map = action_map
        self.built = True  # the actor holds all weights and is built

    def distribution(self, observations: Nest) -> Distribution:
        """The distribution over raw actions in each state: a TFP distribution of batch shape
        [B]."""
        return self.family(**self.parameters(observations))

    def parameters(self, observations: Nest) -> dict[str, Tensor]:
        """The distribution's parameters by name, as the actor gives them."""
        parameters = self.actor(observations, training=False)
        _check_outputs(parameters, self.family)
        return parameters

    def sample(self, observations: Nest, seed: Tensor) -> Tensor:
        """Raw actions [B, ...] drawn with a stateless seed, int32 [2]."""
        return self.distribution(observations).sample(seed=seed)

    def mode(self, observations: Nest) -> Tensor:
        """The most likely raw actions [B, ...]; the means where the distribution has no mode.

        TFP gives NaN for a mode that does not exist, as for a Beta with a concentration of 1.
        """
        distribution = self.distribution(observations)
        try:
            mode = distribution.mode()
        except NotImplementedError:
            return distribution.mean()
        if not mode.dtype.is_floating:
            return mode
        try:
            return tf.where(tf.math.is_nan(mode), distribution.mean(), mode)
        except NotImplementedError:
            return mode

    def call(self, observations):
        """Deterministic actions of the environment for observations [B, ...]."""
        return self.action_map(self.mode(observations))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, serialised."""
        name = getattr(self.family, "__name__", "")
        from_tfp = getattr(tfp.distributions, name, None) is self.family
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "actor": serialize(self.actor),
            "family": {"tfp": name} if from_tfp else serialize(self.family),
            "action_map": serialize(self.action_map),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """The inverse of `get_config`."""

        def deserialize(value):
            return keras.saving.deserialize_keras_object(value, custom_objects=custom_objects)

        config = dict(config)
        family = config.pop("family")
        if "tfp" in family:
            family = getattr(tfp.distributions, family["tfp"])
        else:
            family = deserialize(family)
        actor, action_map = deserialize(config.pop("actor")), deserialize(config.pop("action_map"))
        return cls(actor, family, action_map, **config)


def mlp_policy(
    envs: Environment, *, continuous: Continuous = "clipped_gaussian", **options: Any
) -> Policy:
    """A policy for an environment's spaces: `mlp_actor` with the distribution of `action_spec`.

    Args:
        envs: the environment.
        continuous: the distribution for Boxes, as in `action_spec`.
        options: of `mlp_actor`.

    Raises:
        ValueError: a space that is not supported.
    """
    spec = action_spec(action_space(envs), continuous=continuous)
    return Policy(mlp_actor(envs, spec, **options), spec.family, spec.action_map)
