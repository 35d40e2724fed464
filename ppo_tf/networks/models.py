"""Functional Keras models for actors and critics: observations in, named distribution parameters
out.

Every model here is an encoder (observations to features), and a head on its features. `mlp_actor`
and `mlp_critic` join the two in one graph; `encoder`, `actor_head` and `critic_head` give them
apart, to put something between, such as a recurrent cell. Inputs of a composite observation space
are dicts {path: array} with the paths of `spaces.leaves` that the model uses, `model.input`'s keys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import keras

from ppo_tf.actions.specs import ActionSpec, action_spec
from ppo_tf.networks.features import leaf_inputs
from ppo_tf.networks.features import observation_features as observation_features
from ppo_tf.networks.heads import parameter_heads, value_head
from ppo_tf.networks.initialization import HIDDEN_GAIN, POLICY_GAIN, Seeds, dense
from ppo_tf.spaces.masks import MASK_KEY, mask_paths, masked_leaves
from ppo_tf.types import Nest, Tensor

Environment = gymnasium.vector.VectorEnv | gymnasium.Env | gymnasium.Space


def observation_space(envs: Environment) -> gymnasium.Space:
    """The observation space of one environment; a space is its own."""
    if isinstance(envs, gymnasium.Space):
        return envs
    space = getattr(envs, "single_observation_space", None)
    return envs.observation_space if space is None else space


def action_space(envs: Environment) -> gymnasium.Space:
    """The action space of one environment.

    Raises:
        ValueError: a bare space, of which nobody can tell what acts in it.
    """
    if isinstance(envs, gymnasium.Space):
        raise ValueError(f"An action space needs an environment or an ActionSpec. Received: {envs}")
    space = getattr(envs, "single_action_space", None)
    return envs.action_space if space is None else space


def has_convolutions(model: Any) -> bool:
    """Whether a Keras model or layer has a two-dimensional convolution in it."""
    parts = getattr(model, "layers", ())
    return any(isinstance(p, keras.layers.Conv2D) or has_convolutions(p) for p in parts)


def joint_model(actor: Any, critic: Any) -> keras.Model | None:
    """Both in one model, if they share layers from the same inputs on; else None.

    Separately, they would compute what they share twice: TensorFlow does not see that two readings
    of a variable are the same.

    Returns:
        keras.Model from the actor's inputs to (the actor's outputs, the critic's).
    """
    if not getattr(actor, "inputs", None) or not getattr(critic, "inputs", None):
        return None
    shared = {id(v) for v in actor.trainable_variables} & {
        id(v) for v in critic.trainable_variables
    }
    if not shared or not {id(x) for x in critic.inputs} <= {id(x) for x in actor.inputs}:
        return None
    return keras.Model(actor.input, (actor.output, critic.output))


def encoder(envs: Environment, *, seed: int | None = None, **options: Any) -> keras.Model:
    """Observations to features: the network of `mlp_actor` and `mlp_critic` without their heads.

    Args:
        envs: an environment, a vector of them, or a space of observations.
        seed: of the initialisation; None draws one.
        options: hidden_sizes, units of the hidden layers, (64, 64) by default and () for none;
            activation of the hidden layers, a Keras name, "tanh" by default; and
            normalize, exclude, mask_key, image_network and image_channels of
            `features.observation_features`.

    Returns:
        keras.Model from observations [B, ...] to features float [B, F].

    Raises:
        ValueError: a space or an option that is not supported.
    """
    inputs, features = _encode(envs, Seeds(seed), **options)
    return keras.Model(inputs, features, name="encoder")


def actor_head(
    envs: Environment,
    feature_size: int,
    spec: ActionSpec | None = None,
    *,
    mask_key: str | None = MASK_KEY,
    initial_scale: float = 1.0,
    state_dependent_scale: bool = False,
    seed: int | None = None,
) -> keras.Model:
    """Features to distribution parameters: the head of `mlp_actor`, masks included.

    Args:
        envs: an environment, a vector of them, or a space of observations without masks.
        feature_size: of the features, F.
        spec, mask_key, initial_scale, state_dependent_scale: as in `mlp_actor`.
        seed: of the initialisation, another one than the encoder's; None draws one.

    Returns:
        keras.Model from {"features": float [B, F]}, and the masks by their paths in the
        observation, to the distribution's parameters, nested as `spec.parameters`.
    """
    features = keras.Input((feature_size,), name="features")
    return _actor(
        "actor_head",
        {"features": features},
        features,
        Seeds(seed),
        envs,
        spec,
        mask_key,
        initial_scale,
        state_dependent_scale,
    )


def critic_head(feature_size: int, *, seed: int | None = None) -> keras.Model:
    """Features to values: the head of `mlp_critic`.

    Args:
        feature_size: of the features, F.
        seed: of the initialisation, another one than the encoder's; None draws one.

    Returns:
        keras.Model from features float [B, F] to values float [B].
    """
    features = keras.Input((feature_size,), name="features")
    return keras.Model(features, value_head(features, Seeds(seed)), name="critic_head")


def mlp(
    envs: Environment,
    outputs: Mapping[str, int],
    *,
    gain: float = POLICY_GAIN,
    seed: int | None = None,
    name: str = "mlp",
    **options: Any,
) -> keras.Model:
    """A multilayer perceptron with one linear output per name: the actor of any distribution.

    Args:
        envs: an environment, a vector of them, or a space of observations.
        outputs: size of each output's last axis by name, for instance {"logits": 4}.
        gain: of the outputs' orthogonal initialisation; small, so that training starts from the
            distribution's default whatever the state.
        seed: of the initialisation; None draws one.
        name: of the model.
        options: of `encoder`, for instance hidden_sizes, activation, normalize, exclude.

    Returns:
        keras.Model from observations [B, ...] to {name: float [B, size]}. It applies no
        invalid-action masks.
    """
    seeds = Seeds(seed)
    inputs, features = _encode(envs, seeds, **options)
    heads = {key: dense(size, gain, seeds, name=key)(features) for key, size in outputs.items()}
    return keras.Model(inputs, heads, name=name)


def mlp_actor(
    envs: Environment,
    spec: ActionSpec | None = None,
    *,
    mask_key: str | None = MASK_KEY,
    initial_scale: float = 1.0,
    state_dependent_scale: bool = False,
    seed: int | None = None,
    **options: Any,
) -> keras.Model:
    """An actor for the distribution that `action_spec` chose: an `encoder` with the proper head.

    Where the observation has invalid-action masks, they are no features but set the logits of
    invalid categories to `ops.MASKED_LOGIT`; see `ppo_tf.masks`.

    Args:
        envs: an environment, a vector of them, or a space of observations without masks.
        spec: what the action space asks for; by default `action_spec` of the environment's.
        mask_key: key of the invalid-action masks in the observation; None: there are none.
        initial_scale: first standard deviation of a Gaussian, in raw action units.
        state_dependent_scale: whether the standard deviation is a function of the state (softplus
            of an output) instead of a weight of its own.
        seed: of the initialisation; None draws one.
        options: of `encoder`, for instance hidden_sizes, activation, normalize, exclude.

    Returns:
        keras.Model from observations [B, ...] to the distribution's parameters, nested as
        `spec.parameters`: by name, or by action path and name.

    Raises:
        ValueError: a space, a mask or an option that is not supported.
    """
    seeds = Seeds(seed)
    inputs, features = _encode(envs, seeds, mask_key=mask_key, **options)
    return _actor(
        "actor", inputs, features, seeds, envs, spec, mask_key, initial_scale, state_dependent_scale
    )


def mlp_critic(envs: Environment, *, seed: int | None = None, **options: Any) -> keras.Model:
    """A value function: an `encoder` with one output.

    Args:
        envs: an environment, a vector of them, or a space of observations.
        seed: of the initialisation; None draws one.
        options: of `encoder`, for instance hidden_sizes, activation, normalize, exclude.

    Returns:
        keras.Model from observations [B, ...] to values float [B].
    """
    seeds = Seeds(seed)
    inputs, features = _encode(envs, seeds, **options)
    return keras.Model(inputs, value_head(features, seeds), name="critic")


def shared_actor_critic(
    envs: Environment,
    spec: ActionSpec | None = None,
    *,
    mask_key: str | None = MASK_KEY,
    initial_scale: float = 1.0,
    state_dependent_scale: bool = False,
    seed: int | None = None,
    **options: Any,
) -> tuple[keras.Model, keras.Model]:
    """`mlp_actor` and `mlp_critic` with one encoder: the same layers up to the heads.

    Of use where features are costly to learn and to compute, as those of images (Mnih et al. 2016,
    A3C, section 5). What is excluded is excluded for both.

    Args:
        envs: an environment, a vector of them, or a space of observations without masks.
        spec, mask_key, initial_scale, state_dependent_scale, seed, options: as in `mlp_actor`.

    Returns:
        (actor, critic): as of `mlp_actor` and `mlp_critic`.
    """
    seeds = Seeds(seed)
    inputs, features = _encode(envs, seeds, mask_key=mask_key, **options)
    actor = _actor(
        "actor", inputs, features, seeds, envs, spec, mask_key, initial_scale, state_dependent_scale
    )
    return actor, keras.Model(inputs, value_head(features, seeds), name="critic")


def _encode(
    envs: Environment,
    seeds: Seeds,
    *,
    hidden_sizes: Sequence[int] = (64, 64),
    activation: str = "tanh",
    **options: Any,
) -> tuple[Nest, Tensor]:
    """Inputs and features after the hidden layers; options of `observation_features`."""
    inputs, features = observation_features(observation_space(envs), seed=seeds, **options)
    for size in hidden_sizes:
        if size < 1:
            raise ValueError(
                f"hidden_sizes must be positive. Received: hidden_sizes={tuple(hidden_sizes)}"
            )
        features = dense(size, HIDDEN_GAIN, seeds, activation=activation)(features)
    return inputs, features


def _mask_inputs(envs: Environment, mask_key: str | None) -> dict[str, tuple[str, Tensor]]:
    """{path in the observation: (path of the action, input [B, n])} of every mask."""
    space = observation_space(envs)
    paths = mask_paths(space, mask_key)
    if not paths:
        return {}
    if isinstance(envs, gymnasium.Space):
        raise ValueError(
            "Invalid-action masks need an environment, which knows its action space; with "
            f"mask_key=None they are features. Received: the space {space} with {paths}"
        )
    found = masked_leaves(space, action_space(envs), mask_key)
    inputs = leaf_inputs(space, paths)
    return {path: (action, inputs[path]) for action, path in found.items()}


def _actor(
    name: str,
    inputs: Nest,
    features: Tensor,
    seeds: Seeds,
    envs: Environment,
    spec: ActionSpec | None,
    mask_key: str | None,
    initial_scale: float,
    state_dependent_scale: bool,
) -> keras.Model:
    """From inputs, and masks as further ones, to the distribution's parameters."""
    masks = _mask_inputs(envs, mask_key)
    spec = action_spec(action_space(envs)) if spec is None else spec
    outputs = parameter_heads(
        features,
        spec.parameters,
        masks=dict(masks.values()),
        initial_scale=initial_scale,
        state_dependent_scale=state_dependent_scale,
        seeds=seeds,
    )
    if masks:  # the observation is a Dict then
        inputs = {**inputs, **{path: mask for path, (_, mask) in masks.items()}}
    return keras.Model(inputs, outputs, name=name)
