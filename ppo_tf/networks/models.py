"""Functional Keras models for actors and critics: observations in, named distribution parameters
out.

Every model here is an encoder (observations to features) with a head on top. `mlp_actor` and
`mlp_critic` join the two in one graph; `encoder`, `actor_head` and `critic_head` return them
separately, so that something can go in between, such as a recurrent cell. For a composite
observation space, the input is a dict {path: array} of the leaves that the model uses: the keys of
`model.input`, named as in `spaces.leaves`.
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
from ppo_tf.networks.residual import residual_network
from ppo_tf.spaces.masks import MASK_KEY, mask_paths, masked_leaves
from ppo_tf.types import Nest, Tensor

Environment = gymnasium.vector.VectorEnv | gymnasium.Env | gymnasium.Space[Any]


def observation_space(envs: Environment) -> gymnasium.Space[Any]:
    """Returns the observation space of one environment; a space is returned as is."""
    if isinstance(envs, gymnasium.Space):
        return envs
    space = getattr(envs, "single_observation_space", None)
    return envs.observation_space if space is None else space


def action_space(envs: Environment) -> gymnasium.Space[Any]:
    """Returns the action space of one environment.

    Raises:
        ValueError: envs is a bare observation space, which has no action space.
    """
    if isinstance(envs, gymnasium.Space):
        raise ValueError(f"An action space needs an environment or an ActionSpec. Received: {envs}")
    space = getattr(envs, "single_action_space", None)
    return envs.action_space if space is None else space


def has_convolutions(model: keras.layers.Layer) -> bool:
    """Whether a Keras model or layer contains a two-dimensional convolution."""
    parts = getattr(model, "layers", ())
    return any(isinstance(p, keras.layers.Conv2D) or has_convolutions(p) for p in parts)


def joint_model(actor: keras.Model, critic: keras.Model | None) -> keras.Model | None:
    """Joins an actor and a critic that share layers and inputs; otherwise returns None.

    Run separately, they would compute the shared layers twice: TensorFlow does not see that two
    reads of a variable give the same value.

    Returns:
        keras.Model from the actor's inputs to (the actor's outputs, the critic's output).
    """
    if critic is None or not (getattr(actor, "inputs", None) and getattr(critic, "inputs", None)):
        return None
    shared = {id(v) for v in actor.trainable_variables} & {
        id(v) for v in critic.trainable_variables
    }
    if not shared or not {id(x) for x in critic.inputs} <= {id(x) for x in actor.inputs}:
        return None
    return keras.Model(actor.input, (actor.output, critic.output))


def encoder(envs: Environment, *, seed: int | None = None, **options: Any) -> keras.Model:
    """Creates the network of `mlp_actor` and `mlp_critic` without a head.

    Args:
        envs: an environment, a vector of environments, or an observation space.
        seed: seed of the initialisation; None draws one.
        options: network, "mlp" by default, with hidden_sizes, the units of its layers, (64, 64) by
            default, () for none, and their activation, a Keras name, "tanh" by default; or
            "residual", with residual_width and residual_blocks, see `residual.residual_network`;
            and normalize, exclude, mask_key, image_network and image_channels of
            `features.observation_features`.

    Returns:
        keras.Model from observations [B, ...] to features float [B, F].

    Raises:
        ValueError: a space or an option is not supported.
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
    """Creates the head of `mlp_actor`, masks included.

    Args:
        envs: an environment, a vector of environments, or an observation space without masks.
        feature_size: number of features, F.
        spec, mask_key, initial_scale, state_dependent_scale: as in `mlp_actor`.
        seed: seed of the initialisation, different from the encoder's; None draws one.

    Returns:
        keras.Model from {"features": float [B, F]}, and the masks by their paths in the
        observation, to the distribution's parameters, nested like `spec.parameters`.
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
    """Creates the head of `mlp_critic`.

    Args:
        feature_size: number of features, F.
        seed: seed of the initialisation, different from the encoder's; None draws one.

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
    """Creates a multilayer perceptron with one linear output per name, for any distribution.

    Args:
        envs: an environment, a vector of environments, or an observation space.
        outputs: size of each output's last axis by name, for instance {"logits": 4}.
        gain: scale of the outputs' orthogonal initialisation; small, so that in every state
            training starts from the distribution's default.
        seed: seed of the initialisation; None draws one.
        name: name of the model.
        options: options of `encoder`, for instance hidden_sizes, activation, normalize, exclude.

    Returns:
        keras.Model from observations [B, ...] to {name: float [B, size]}. It applies no
        invalid-action masks.
    """
    seeds = Seeds(seed)
    inputs, features = _encode(envs, seeds, **options)
    heads = {
        key: dense(size, gain, seeds, name=key, dtype="float32")(features)
        for key, size in outputs.items()
    }
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
    """Creates an actor for the distribution that `action_spec` chose: an `encoder` and a head.

    Invalid-action masks in the observation are not features; they set the logits of invalid
    categories to `ops.MASKED_LOGIT`. See `ppo_tf.masks`.

    Args:
        envs: an environment, a vector of environments, or an observation space without masks.
        spec: the distribution and its parameters; by default `action_spec` of the action space.
        mask_key: key of the invalid-action masks in the observation; None if there are none.
        initial_scale: initial standard deviation of a Gaussian, in raw action units.
        state_dependent_scale: whether the standard deviation is a function of the state (softplus
            of an output) instead of a separate weight.
        seed: seed of the initialisation; None draws one.
        options: options of `encoder`, for instance hidden_sizes, activation, normalize, exclude.

    Returns:
        keras.Model from observations [B, ...] to the distribution's parameters, nested like
        `spec.parameters`: by name, or by action path and name.

    Raises:
        ValueError: a space, a mask or an option is not supported.
    """
    seeds = Seeds(seed)
    inputs, features = _encode(envs, seeds, mask_key=mask_key, **options)
    return _actor(
        "actor", inputs, features, seeds, envs, spec, mask_key, initial_scale, state_dependent_scale
    )


def mlp_critic(envs: Environment, *, seed: int | None = None, **options: Any) -> keras.Model:
    """Creates a value function: an `encoder` with one output.

    Args:
        envs: an environment, a vector of environments, or an observation space.
        seed: seed of the initialisation; None draws one.
        options: options of `encoder`, for instance hidden_sizes, activation, normalize, exclude.

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
    """Creates `mlp_actor` and `mlp_critic` with a shared encoder: the same layers up to the heads.

    Useful where features are expensive to learn and to compute, such as those of images (Mnih et
    al. 2016, A3C, section 5). `exclude` applies to both.

    Args:
        envs: an environment, a vector of environments, or an observation space without masks.
        spec, mask_key, initial_scale, state_dependent_scale, seed, options: as in `mlp_actor`.

    Returns:
        (actor, critic), as returned by `mlp_actor` and `mlp_critic`.
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
    network: str = "mlp",
    hidden_sizes: Sequence[int] = (64, 64),
    activation: str = "tanh",
    residual_width: int = 256,
    residual_blocks: int = 2,
    **options: Any,
) -> tuple[Nest, Tensor]:
    """Inputs, and the features after the hidden layers; options of `observation_features`."""
    if network not in ("mlp", "residual"):
        raise ValueError(f"network must be 'mlp' or 'residual'. Received: network={network!r}")
    inputs, features = observation_features(observation_space(envs), seed=seeds, **options)
    if network == "residual":
        return inputs, residual_network(features, residual_width, residual_blocks, seeds)
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
            "Invalid-action masks need an environment, for its action space; with "
            f"mask_key=None they become features. Received: the space {space} with {paths}"
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
    """The model from inputs, with masks as further inputs, to the distribution's parameters."""
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
    if masks:
        assert isinstance(inputs, dict)  # masks are parts of a Dict
        inputs = {**inputs, **{path: mask for path, (_, mask) in masks.items()}}
    return keras.Model(inputs, outputs, name=name)
