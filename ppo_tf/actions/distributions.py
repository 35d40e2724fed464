"""Distribution families over raw actions, and how some are sampled from noise drawn beforehand.

A family is a callable from parameters, by name, to a TFP distribution of batch shape [B]: a class
of `tfp.distributions` where that does, else one of the below, which Keras can save. Parameters are
a network's raw outputs, float [B, size]: what must be positive or bounded is made so in here. The
exceptions are `scale_diag` [B, n], which is positive already, and `directions` [B, F, n] of
`StateDependentExploration`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from ppo_tf import ops
from ppo_tf.actions.densities import CentredTruncatedNormal, OpenBeta, Product, TanhNormalDiag
from ppo_tf.types import Distribution, DistributionFamily, Nest, Tensor

tfd = tfp.distributions


@dataclass(frozen=True)
class Noise:
    """A way to sample a family whose randomness can be drawn before the parameters are known.

    Attributes:
        draw: from a NumPy generator, a number of steps and the parameters (anything with shapes
            [B, ...]), to the noise, float32 [steps, B, ...] or {path: such} for a `Joint`.
        from_noise: from parameters and the noise of one step [B, ...] to raw actions [B, ...].
    """

    draw: Callable[[np.random.Generator, int, Nest], Nest]
    from_noise: Callable[[Nest, Nest], Nest]


def noise_of(family: DistributionFamily) -> Noise | None:
    """How to sample a family from noise, or None where only TFP can.

    Categorical, Bernoulli and Gaussian families can, and a `Joint` of such. A family of one's own
    can, too, if it has a method `noise()`.
    """
    if family is tfd.Categorical:
        # argmax(logits + g), g of the standard Gumbel distribution, follows the categorical.
        return Noise(
            _draw(np.random.Generator.gumbel, "logits"),
            lambda p, g: tf.argmax(p["logits"] + g, axis=-1, output_type=tf.int32),
        )
    if family is tfd.MultivariateNormalDiag:
        return Noise(
            _draw(np.random.Generator.standard_normal, "loc"),
            lambda p, epsilon: p["loc"] + p["scale_diag"] * epsilon,
        )
    noise = getattr(family, "noise", None)
    return None if noise is None else noise()


def _draw(method: Callable[..., np.ndarray], name: str):
    """Noise by a generator's method, as many numbers per step as the named parameter has."""

    def draw(generator, steps, parameters):
        shape = (steps, *parameters[name].shape)
        return method(generator, size=shape).astype(np.float32)

    return draw


class _Family:
    """What the families share: a config of plain numbers."""

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        config = asdict(self)  # type: ignore[call-overload]
        return {k: list(v) if isinstance(v, tuple) else v for k, v in config.items()}

    @classmethod
    def from_config(cls, config: dict[str, Any]):
        """The inverse of `get_config`."""
        return cls(**config)


@keras.saving.register_keras_serializable("ppo_tf")
@dataclass(frozen=True)
class MultiCategorical(_Family):
    """Independent categoricals of unequal sizes. Entropy and KL are exact.

    Args:
        sizes: number of categories of each.

    Raises:
        ValueError: no sizes, or one below 1.
    """

    sizes: tuple[int, ...]

    def __post_init__(self):
        object.__setattr__(self, "sizes", tuple(int(size) for size in self.sizes))
        if not self.sizes or min(self.sizes) < 1:
            raise ValueError(
                f"sizes must be at least one, and positive. Received: sizes={self.sizes}"
            )

    def __call__(self, logits: Tensor) -> Distribution:
        """Of logits float [B, sum of sizes], one categorical after the other; raw int32 [B, k]."""
        return tfd.Independent(tfd.Categorical(self._padded(logits)), 1)

    def _padded(self, logits: Tensor) -> Tensor:
        """The logits as [B, k, largest size].

        The padding lies below any masked logit: where all of a part's categories are masked, one
        of them is chosen all the same.
        """
        column = np.arange(max(self.sizes))
        real = column < np.array(self.sizes)[:, None]
        first = np.array([0, *itertools.accumulate(self.sizes[:-1])])
        index = np.where(real, first[:, None] + column, 0)
        return tf.where(real, tf.gather(logits, index, axis=-1), 2.0 * ops.MASKED_LOGIT)

    def noise(self) -> Noise:
        """Gumbel noise, as of one categorical."""
        return Noise(
            _draw(np.random.Generator.gumbel, "logits"),
            lambda p, g: tf.argmax(self._padded(p["logits"] + g), axis=-1, output_type=tf.int32),
        )


@keras.saving.register_keras_serializable("ppo_tf")
@dataclass(frozen=True)
class MultiBernoulli(_Family):
    """Independent Bernoullis. Entropy and KL are exact."""

    def __call__(self, logits: Tensor) -> Distribution:
        """Of log-odds float [B, n]; raw int32 [B, n], 0 or 1."""
        return tfd.Independent(tfd.Bernoulli(logits=logits), 1)

    def noise(self) -> Noise:
        """P(logit + g > 0) = sigmoid(logit) for g of the standard logistic distribution."""
        return Noise(
            _draw(np.random.Generator.logistic, "logits"),
            lambda p, g: tf.cast(p["logits"] + g > 0.0, tf.int32),
        )


@keras.saving.register_keras_serializable("ppo_tf")
@dataclass(frozen=True)
class TanhGaussian(_Family):
    """A Gaussian with diagonal covariance over what tanh will squash, with the entropy of tanh(x).

    The Gaussian's own entropy would reward scales that only press actions against the bounds. KL is
    exact, entropy by quadrature (within 1e-3 nats per element), in nats of actions in (-1, 1).

    Args:
        squashed: whether each of n elements passes through tanh; the others count with the raw
            action's entropy. None: all.
    """

    squashed: tuple[bool, ...] | None = None

    def __post_init__(self):
        if self.squashed is not None:
            object.__setattr__(self, "squashed", tuple(bool(s) for s in self.squashed))

    def __call__(self, loc: Tensor, scale_diag: Tensor) -> Distribution:
        """Of float [B, n] each, scale_diag positive; raw float [B, n]."""
        squashed = tf.ones(loc.shape[-1]) if self.squashed is None else self.squashed
        return TanhNormalDiag(loc, scale_diag, tf.cast(squashed, loc.dtype))

    def noise(self) -> Noise | None:
        """As of the Gaussian."""
        return noise_of(tfd.MultivariateNormalDiag)


@keras.saving.register_keras_serializable("ppo_tf")
@dataclass(frozen=True)
class UnimodalBeta(_Family):
    """Independent Betas on (0, 1) with concentrations 1 + softplus: one mode, never at both ends.

    Chou et al. 2017, "Improving stochastic policy gradients in continuous control with deep
    reinforcement learning using the Beta distribution". Entropy and KL are exact but for the digits
    that cancel in float32: about 1e-3 nats at concentrations of 300, 0.01 at 10,000.
    """

    def __call__(self, concentration1: Tensor, concentration0: Tensor) -> Distribution:
        """Of raw float [B, n] each; raw actions float [B, n], strictly between 0 and 1."""
        one = 1.0 + tf.nn.softplus(concentration1)
        zero = 1.0 + tf.nn.softplus(concentration0)
        return tfd.Independent(OpenBeta(one, zero), 1)


@keras.saving.register_keras_serializable("ppo_tf")
@dataclass(frozen=True)
class TruncatedGaussian(_Family):
    """Independent Gaussians around tanh(loc), truncated to [-1, 1].

    Entropy is exact, KL by quadrature (within 1e-4 nats per element, relative above 1).
    """

    def __call__(self, loc: Tensor, scale_diag: Tensor) -> Distribution:
        """Of float [B, n] each, scale_diag positive; raw actions float [B, n] in [-1, 1]."""
        return tfd.Independent(CentredTruncatedNormal(tf.tanh(loc), scale_diag, -1.0, 1.0), 1)


@keras.saving.register_keras_serializable("ppo_tf")
@dataclass(frozen=True)
class FullGaussian(_Family):
    """A Gaussian with full covariance L L^T. Entropy and KL are exact."""

    def __call__(self, loc: Tensor, scale_tril: Tensor) -> Distribution:
        """Of loc float [B, n] and raw scale_tril float [B, n (n + 1) / 2]; raw float [B, n]."""
        return tfd.MultivariateNormalTriL(loc, self._tril(scale_tril, loc.shape[-1]))

    @staticmethod
    def _tril(raw: Tensor, n: int) -> Tensor:
        """L [B, n, n], its rows from raw, its diagonal softplus and so the identity at raw 0."""
        rows, columns = np.tril_indices(n)
        index = np.zeros((n, n), np.int32)
        index[rows, columns] = np.arange(len(rows))
        square = tf.gather(raw, index, axis=-1)
        floor = 1e-3  # keeps the density finite: it goes with the inverse of L
        diagonal = floor + tf.nn.softplus(square + math.log(math.expm1(1.0 - floor)))
        lower = tf.where(np.tri(n, k=-1, dtype=bool), square, 0.0)
        return tf.where(np.eye(n, dtype=bool), diagonal, lower)

    def noise(self) -> Noise:
        """loc + L epsilon, epsilon standard normal."""

        def from_noise(p, epsilon):
            tril = self._tril(p["scale_tril"], p["loc"].shape[-1])
            return p["loc"] + tf.reduce_sum(tril * epsilon[..., None, :], -1)

        return Noise(_draw(np.random.Generator.standard_normal, "loc"), from_noise)


@keras.saving.register_keras_serializable("ppo_tf")
@dataclass(frozen=True)
class StateDependentExploration(_Family):
    """Generalised state-dependent exploration: noise that is a function of the state for a while.

    An action is loc + sum_i directions_i epsilon_i with directions_ij = feature_i sigma_ij, the
    epsilon [F, n] of every environment held for `period` steps: smooth where the state is. Raffin
    et al. 2020 (arXiv 2005.05719), eq. 6 to 8. Given the state alone, the action is a Gaussian of
    variance sum_i directions_i^2; that marginal is the distribution here. Entropy and KL are exact.

    Only noise drawn beforehand (`noise`) is held. TFP's `sample` draws afresh from the marginal at
    every step, which is plain independent exploration.

    Args:
        period: steps after which epsilon is drawn anew, at least 1; a rollout starts a new one.

    Raises:
        ValueError: a period below 1.
    """

    period: int = 4

    def __post_init__(self):
        if self.period < 1:
            raise ValueError(f"period must be at least 1. Received: period={self.period}")

    def __call__(self, loc: Tensor, directions: Tensor) -> Distribution:
        """Of loc float [B, n] and directions float [B, F, n]; raw float [B, n]."""
        variance = tf.reduce_sum(directions**2, -2)
        # 1e-6 as in Stable-Baselines3: the density stays finite where all features are 0.
        return tfd.MultivariateNormalDiag(loc, tf.sqrt(variance + 1e-6))

    def noise(self) -> Noise:
        """Standard normal [steps, B, F, n], repeated over each period."""

        def draw(generator, steps, parameters):
            draws = -(-steps // self.period)
            shape = (draws, *parameters["directions"].shape)
            epsilon = generator.standard_normal(shape, np.float32)
            return np.repeat(epsilon, self.period, axis=0)[:steps]

        return Noise(
            draw, lambda p, epsilon: p["loc"] + tf.reduce_sum(p["directions"] * epsilon, -2)
        )


@keras.saving.register_keras_serializable("ppo_tf")
@dataclass(frozen=True)
class Joint:
    """Independent parts by path: the distribution of a composite space.

    Samples, modes and the argument of `log_prob` are {path: raw action}; log-probability, entropy
    and KL are float [B], sums over the parts, and as exact as these.

    Args:
        families: the family of each leaf by path.
    """

    families: dict[str, DistributionFamily]

    def __call__(self, **parameters: dict[str, Tensor]) -> Distribution:
        """Of {path: {name: parameter [B, ...]}}; raw actions {path: [B, ...]}."""
        return Product({path: family(**parameters[path]) for path, family in self._sorted()})

    def _sorted(self):
        """The parts in an order that survives saving: it decides who gets which random numbers."""
        return sorted(self.families.items())

    def noise(self) -> Noise | None:
        """The parts' noise by path; None if a part has none."""
        parts = {}
        for path, family in self._sorted():
            part = noise_of(family)
            if part is None:
                return None
            parts[path] = part

        def draw(generator, steps, parameters):
            return {k: part.draw(generator, steps, parameters[k]) for k, part in parts.items()}

        def from_noise(parameters, noise):
            return {k: part.from_noise(parameters[k], noise[k]) for k, part in parts.items()}

        return Noise(draw, from_noise)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, serialised."""
        return {"families": {k: serialize_family(v) for k, v in self.families.items()}}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Joint:
        """The inverse of `get_config`."""
        return cls({k: deserialize_family(v) for k, v in config["families"].items()})


def serialize_family(family: DistributionFamily) -> dict[str, Any]:
    """A family as a config for JSON: a class of TFP by its name, any other as Keras does it."""
    name = getattr(family, "__name__", "")
    if getattr(tfd, name, None) is family:
        return {"tfp": name}
    return keras.saving.serialize_keras_object(family)


def deserialize_family(config: dict[str, Any], custom_objects: Any = None) -> DistributionFamily:
    """The inverse of `serialize_family`."""
    if "tfp" in config:
        return getattr(tfd, config["tfp"])
    return keras.saving.deserialize_keras_object(config, custom_objects=custom_objects)
