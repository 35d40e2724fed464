"""Functional Keras models for actors and critics: observations in, named distribution parameters
out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import gymnasium
import keras
import numpy as np

from ppo_tf.action_specs import ActionSpec, action_spec
from ppo_tf.layers import RunningNormalization, StateIndependentScale

# Gains of the orthogonal initialisation: "The 37 implementation details of PPO", detail 2.
HIDDEN_GAIN, POLICY_GAIN, VALUE_GAIN = math.sqrt(2.0), 0.01, 1.0


Environment = gymnasium.vector.VectorEnv | gymnasium.Env | gymnasium.Space


def observation_space(envs: Environment) -> gymnasium.Space:
    """The observation space of one environment; a space is its own."""
    if isinstance(envs, gymnasium.Space):
        return envs
    return getattr(envs, "single_observation_space", None) or envs.observation_space


def action_space(envs: Environment) -> gymnasium.Space:
    """The action space of one environment.

    Raises:
        ValueError: a bare space, of which nobody can tell what acts in it.
    """
    if isinstance(envs, gymnasium.Space):
        raise ValueError(f"An action space needs an environment or an ActionSpec. Received: {envs}")
    return getattr(envs, "single_action_space", None) or envs.action_space


class _Seeds:
    """A new seed for every initializer, from one seed; with None, Keras draws them."""

    def __init__(self, seed: int | None):
        self._generator = None if seed is None else np.random.default_rng(seed)

    def next(self) -> int | None:
        return None if self._generator is None else int(self._generator.integers(2**31))


def _dense(size, gain, seeds, **kwargs):
    initializer = keras.initializers.Orthogonal(gain, seed=seeds.next())
    return keras.layers.Dense(size, kernel_initializer=initializer, **kwargs)


def observation_features(space: gymnasium.Space, *, normalize: bool = True):
    """An input for observations of a space, and the flat float features made of it.

    Args:
        space: `Box` of any rank and dtype (flattened), or `Discrete` of any start (one-hot).
        normalize: whether Box features pass through a `RunningNormalization`.

    Returns:
        (keras.Input named "observation", Keras tensor [B, n]).

    Raises:
        ValueError: another space.
    """
    if isinstance(space, gymnasium.spaces.Discrete):
        inputs = keras.Input(shape=(), dtype=np.dtype(space.dtype).name, name="observation")
        return inputs, keras.ops.one_hot(inputs - int(space.start), int(space.n), dtype="float32")
    if isinstance(space, gymnasium.spaces.Box):
        inputs = keras.Input(
            shape=space.shape, dtype=np.dtype(space.dtype).name, name="observation"
        )
        features = keras.ops.reshape(
            keras.ops.cast(inputs, "float32"), (-1, math.prod(space.shape))
        )
        return inputs, RunningNormalization(name="normalization")(
            features
        ) if normalize else features
    raise ValueError(
        "The observation space must be Box or Discrete. "
        f"Received: {space}; for others, give Policy and Learner your own Keras models"
    )


def _hidden(features, hidden_sizes, activation, seeds):
    for size in hidden_sizes:
        if size < 1:
            raise ValueError(
                f"hidden_sizes must be positive. Received: hidden_sizes={tuple(hidden_sizes)}"
            )
        features = _dense(size, HIDDEN_GAIN, seeds, activation=activation)(features)
    return features


def mlp(
    envs: Environment,
    outputs: Mapping[str, int],
    *,
    hidden_sizes: Sequence[int] = (64, 64),
    activation: str = "tanh",
    normalize: bool = True,
    gain: float = POLICY_GAIN,
    seed: int | None = None,
    name: str = "mlp",
) -> keras.Model:
    """A multilayer perceptron with one linear output per name: the actor of any distribution.

    Args:
        envs: an environment, a vector of them, or a space of observations.
        outputs: size of each output's last axis by name, for instance {"logits": 4}.
        hidden_sizes: units of the hidden layers.
        activation: of the hidden layers, a Keras name.
        normalize: whether observations are normalised by running statistics.
        gain: of the outputs' orthogonal initialisation; small, so that training starts from the
            distribution's default whatever the state.
        seed: of the initialisation; None draws one.
        name: of the model.

    Returns:
        keras.Model from observations [B, ...] to {name: float [B, size]}.
    """
    seeds = _Seeds(seed)
    inputs, features = observation_features(observation_space(envs), normalize=normalize)
    features = _hidden(features, hidden_sizes, activation, seeds)
    heads = {key: _dense(size, gain, seeds, name=key)(features) for key, size in outputs.items()}
    return keras.Model(inputs, heads, name=name)


def mlp_actor(
    envs: Environment,
    spec: ActionSpec | None = None,
    *,
    hidden_sizes: Sequence[int] = (64, 64),
    activation: str = "tanh",
    normalize: bool = True,
    initial_scale: float = 1.0,
    state_dependent_scale: bool = False,
    seed: int | None = None,
) -> keras.Model:
    """An actor for the distribution that `action_spec` chose: `mlp` with a proper scale.

    Args:
        envs: an environment, a vector of them, or a space of observations.
        spec: what the action space asks for; by default `action_spec` of the environment's.
        hidden_sizes, activation, normalize, seed: as in `mlp`.
        initial_scale: first standard deviation of a Gaussian, in raw action units.
        state_dependent_scale: whether the standard deviation is a function of the state (softplus
            of an output) instead of a weight of its own.

    Returns:
        keras.Model from observations [B, ...] to the distribution's parameters by name.
    """
    spec = action_spec(action_space(envs)) if spec is None else spec
    if not initial_scale > 0:
        raise ValueError(f"initial_scale must be positive. Received: initial_scale={initial_scale}")
    seeds = _Seeds(seed)
    inputs, features = observation_features(observation_space(envs), normalize=normalize)
    features = _hidden(features, hidden_sizes, activation, seeds)
    outputs = {}
    for key, size in spec.parameters.items():
        if key != "scale_diag":
            outputs[key] = _dense(size, POLICY_GAIN, seeds, name=key)(features)
        elif state_dependent_scale:
            # softplus(x + shift) is initial_scale at x = 0; the floor keeps the density finite.
            shift = math.log(math.expm1(initial_scale))
            raw = _dense(size, POLICY_GAIN, seeds, name=key)(features)
            outputs[key] = keras.ops.softplus(raw + shift) + 1e-5
        else:
            outputs[key] = StateIndependentScale(initial_scale, name=key)(outputs["loc"])
    return keras.Model(inputs, outputs, name="actor")


def mlp_critic(
    envs: Environment,
    *,
    hidden_sizes: Sequence[int] = (64, 64),
    activation: str = "tanh",
    normalize: bool = True,
    seed: int | None = None,
) -> keras.Model:
    """A value function: `mlp` with one output.

    Args:
        envs: an environment, a vector of them, or a space of observations.
        hidden_sizes, activation, normalize, seed: as in `mlp`.

    Returns:
        keras.Model from observations [B, ...] to values float [B].
    """
    seeds = _Seeds(seed)
    inputs, features = observation_features(observation_space(envs), normalize=normalize)
    features = _hidden(features, hidden_sizes, activation, seeds)
    value = _dense(1, VALUE_GAIN, seeds, name="value")(features)
    return keras.Model(inputs, keras.ops.squeeze(value, -1), name="critic")
