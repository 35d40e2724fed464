"""Distribution families over raw actions, and sampling some of them from noise drawn in advance.

A family is a callable from parameters, by name, to a TFP distribution of batch shape [B]: a class
of `tfp.distributions` where one suffices, otherwise a class defined here, which Keras can save.
Parameters are a network's raw outputs, float [B, size]; the family makes them positive or bounded
where they must be. The exceptions are `scale_diag` [B, n], which is already positive, and
`directions` [B, F, n] of `StateDependentExploration`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, TypeVar

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from ppo_tf import ops
from ppo_tf.actions.densities import CentredTruncatedNormal, OpenBeta, Product, TanhNormalDiag
from ppo_tf.support.checks import check_at_least_one
from ppo_tf.types import Distribution, DistributionFamily, Nest, Tensor

tfd = tfp.distributions

DrawNoise = Callable[[np.random.Generator, int, Mapping[str, Any]], Any]
Family = TypeVar("Family", bound="_Family")


@dataclass(frozen=True)
class Noise:
    """A way to sample a family whose randomness can be drawn before the parameters are known.

    Attributes:
        draw: maps a NumPy generator, a number of steps and the parameters (anything with shapes
            [B, ...]) to noise, float32 [steps, B, ...], or {path: noise} for a `Joint`.
        from_noise: maps parameters and the noise of one step [B, ...] to raw actions [B, ...].
    """

    draw: DrawNoise
    from_noise: Callable[[Mapping[str, Any], Any], Nest]


def noise_of(family: DistributionFamily) -> Noise | None:
    """Returns how to sample a family from noise, or None if only TFP can sample it.

    Categorical, Bernoulli and Gaussian families support noise, and so does a `Joint` of them. A
    custom family supports it by a method `noise()`.
    """
    if family is tfd.Categorical:
        # argmax(logits + g), with g standard Gumbel, follows the categorical distribution.
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


def _draw(method: Callable[..., np.ndarray], name: str) -> DrawNoise:
    """Returns a function that draws noise of the named parameter's shape for every step."""

    def draw(
        generator: np.random.Generator, steps: int, parameters: Mapping[str, Any]
    ) -> np.ndarray:
        shape = (steps, *parameters[name].shape)
        return method(generator, size=shape).astype(np.float32)

    return draw


def inverse_softplus(y: float) -> float:
    """Returns the x at which softplus(x) = log(1 + e^x) is y, a positive number."""
    return y if y > 30.0 else math.log(math.expm1(y))  # e^-30 is lost beside 30 in float32


class _Family:
    """Base of the families: a config of plain numbers."""

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        config = asdict(self)  # type: ignore[call-overload]
        return {k: list(v) if isinstance(v, tuple) else v for k, v in config.items()}

    @classmethod
    def from_config(cls: type[Family], config: dict[str, Any]) -> Family:
        """Creates an instance from the result of `get_config`."""
        return cls(**config)


@keras.saving.register_keras_serializable("ppo_tf")
@dataclass(frozen=True)
class MultiCategorical(_Family):
    """Independent categoricals of unequal sizes. Entropy and KL are exact.

    Args:
        sizes: number of categories of each categorical.

    Raises:
        ValueError: sizes is empty, or a size is below 1.
    """

    sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", tuple(int(size) for size in self.sizes))
        if not self.sizes or min(self.sizes) < 1:
            raise ValueError(f"sizes must be positive and not empty. Received: sizes={self.sizes}")

    def __call__(self, logits: Tensor) -> Distribution:
        """Takes logits, float [B, sum of sizes], in order; raw actions are int32 [B, k]."""
        return tfd.Independent(tfd.Categorical(self._padded(logits)), 1)

    def _padded(self, logits: Tensor) -> Tensor:
        """Returns the logits as [B, k, largest size].

        The padding lies below any masked logit: even where all categories of a part are masked, one
        of them is chosen.
        """
        column = np.arange(max(self.sizes))
        real = column < np.array(self.sizes)[:, None]
        first = np.array([0, *itertools.accumulate(self.sizes[:-1])])
        index = np.where(real, first[:, None] + column, 0)
        return tf.where(real, tf.gather(logits, index, axis=-1), 2.0 * ops.MASKED_LOGIT)

    def noise(self) -> Noise:
        """Gumbel noise, as for a single categorical."""
        return Noise(
            _draw(np.random.Generator.gumbel, "logits"),
            lambda p, g: tf.argmax(self._padded(p["logits"] + g), axis=-1, output_type=tf.int32),
        )


@keras.saving.register_keras_serializable("ppo_tf")
@dataclass(frozen=True)
class MultiBernoulli(_Family):
    """Independent Bernoullis. Entropy and KL are exact."""

    def __call__(self, logits: Tensor) -> Distribution:
        """Takes log-odds, float [B, n]; raw actions are int32 [B, n], 0 or 1."""
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
    """A diagonal Gaussian over raw actions x that tanh will squash, with the entropy of tanh(x).

    The Gaussian's own entropy would reward scales that only press actions against the bounds. KL is
    exact; entropy is by quadrature (within 1e-3 nats per element), in nats of actions in (-1, 1).

    Args:
        squashed: whether each of the n elements passes through tanh; the others contribute the
            entropy of their raw action. None: all do.
    """

    squashed: tuple[bool, ...] | None = None

    def __post_init__(self) -> None:
        if self.squashed is not None:
            object.__setattr__(self, "squashed", tuple(bool(s) for s in self.squashed))

    def __call__(self, loc: Tensor, scale_diag: Tensor) -> Distribution:
        """Takes float [B, n] each, scale_diag positive; raw actions are float [B, n]."""
        squashed = tf.ones(loc.shape[-1]) if self.squashed is None else self.squashed
        return TanhNormalDiag(loc, scale_diag, tf.cast(squashed, loc.dtype))

    def noise(self) -> Noise | None:
        """The Gaussian's noise."""
        return noise_of(tfd.MultivariateNormalDiag)


@keras.saving.register_keras_serializable("ppo_tf")
@dataclass(frozen=True)
class UnimodalBeta(_Family):
    """Independent Betas on (0, 1) with concentrations 1 + softplus: one mode, never at both ends.

    Chou et al. 2017, "Improving stochastic policy gradients in continuous control with deep
    reinforcement learning using the Beta distribution". Entropy and KL are exact up to
    cancellation in float32: about 1e-3 nats at concentrations of 300, 0.01 at 10,000.
    """

    def __call__(self, concentration1: Tensor, concentration0: Tensor) -> Distribution:
        """Takes float [B, n] each; raw actions are float [B, n], strictly between 0 and 1."""
        one = 1.0 + tf.nn.softplus(concentration1)
        zero = 1.0 + tf.nn.softplus(concentration0)
        return tfd.Independent(OpenBeta(one, zero), 1)


@keras.saving.register_keras_serializable("ppo_tf")
@dataclass(frozen=True)
class TruncatedGaussian(_Family):
    """Independent Gaussians around tanh(loc), truncated to [-1, 1].

    Entropy is exact; KL is by quadrature (within 1e-4 nats per element, relative above 1).
    """

    def __call__(self, loc: Tensor, scale_diag: Tensor) -> Distribution:
        """Takes float [B, n] each, scale_diag positive; raw actions are float [B, n] in [-1, 1]."""
        return tfd.Independent(CentredTruncatedNormal(tf.tanh(loc), scale_diag, -1.0, 1.0), 1)


@keras.saving.register_keras_serializable("ppo_tf")
@dataclass(frozen=True)
class FullGaussian(_Family):
    """A Gaussian with full covariance L L^T. Entropy and KL are exact.

    Attributes:
        FLOOR: least entry on L's diagonal.
    """

    FLOOR: ClassVar[float] = 1e-3  # keeps the density, which depends on the inverse of L, finite

    def __call__(self, loc: Tensor, scale_tril: Tensor) -> Distribution:
        """Takes float loc [B, n] and scale_tril [B, n (n + 1) / 2]; raw actions float [B, n]."""
        return tfd.MultivariateNormalTriL(loc, self._tril(scale_tril, loc.shape[-1]))

    @staticmethod
    def _tril(raw: Tensor, n: int) -> Tensor:
        """Returns L [B, n, n]: rows from raw, softplus on the diagonal, the identity at raw 0."""
        rows, columns = np.tril_indices(n)
        index = np.zeros((n, n), np.int32)
        index[rows, columns] = np.arange(len(rows))
        square = tf.gather(raw, index, axis=-1)
        floor = FullGaussian.FLOOR
        diagonal = floor + tf.nn.softplus(square + math.log(math.expm1(1.0 - floor)))
        lower = tf.where(np.tri(n, k=-1, dtype=bool), square, 0.0)
        return tf.where(np.eye(n, dtype=bool), diagonal, lower)

    @staticmethod
    def raw_scale(n: int, scale: float) -> np.ndarray:
        """Returns the scale_tril, float [n (n + 1) / 2], at which L is `scale` times the identity.

        Raises:
            ValueError: the scale is not above FLOOR.
        """
        if not scale > FullGaussian.FLOOR:
            raise ValueError(
                f"The scale of a full covariance must exceed {FullGaussian.FLOOR}. "
                f"Received: scale={scale}"
            )
        raw = inverse_softplus(scale - FullGaussian.FLOOR)
        rows, columns = np.tril_indices(n)
        return (rows == columns) * (raw - inverse_softplus(1.0 - FullGaussian.FLOOR))

    def noise(self) -> Noise:
        """loc + L epsilon, epsilon standard normal."""

        def from_noise(p: Mapping[str, Tensor], epsilon: Tensor) -> Tensor:
            tril = self._tril(p["scale_tril"], p["loc"].shape[-1])
            return p["loc"] + tf.reduce_sum(tril * epsilon[..., None, :], -1)

        return Noise(_draw(np.random.Generator.standard_normal, "loc"), from_noise)


@keras.saving.register_keras_serializable("ppo_tf")
@dataclass(frozen=True)
class StateDependentExploration(_Family):
    """Generalised state-dependent exploration: noise that is a function of the state for a while.

    An action is loc + sum_i directions_i epsilon_i with directions_ij = feature_i sigma_ij (Raffin
    et al. 2020, arXiv 2005.05719, eq. 6 to 8). Each environment holds its epsilon [F, n] for
    `period` steps, so actions are as smooth as the states. Given the state alone, the action is
    Gaussian with variance sum_i directions_i^2; this marginal is the distribution here. Entropy and
    KL are exact.

    Only noise drawn in advance (`noise`) is held. TFP's `sample` draws from the marginal anew at
    every step, which is plain independent exploration.

    Args:
        period: number of steps for which epsilon is held, at least 1; a rollout starts a new one.

    Raises:
        ValueError: period is below 1.
    """

    period: int = 4

    def __post_init__(self) -> None:
        check_at_least_one(period=self.period)

    def __call__(self, loc: Tensor, directions: Tensor) -> Distribution:
        """Takes loc, float [B, n], and directions, float [B, F, n]; raw actions float [B, n]."""
        variance = tf.reduce_sum(directions**2, -2)
        # 1e-6 as in Stable-Baselines3: the density stays finite where all features are 0.
        return tfd.MultivariateNormalDiag(loc, tf.sqrt(variance + 1e-6))

    def noise(self) -> Noise:
        """Standard normal noise, float32 [steps, B, F, n], constant within each period."""

        def draw(
            generator: np.random.Generator, steps: int, parameters: Mapping[str, Any]
        ) -> np.ndarray:
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

    Samples, modes and the argument of `log_prob` are {path: raw action}. Log-probability, entropy
    and KL, float [B], are sums over the parts, and as exact as theirs.

    Args:
        families: family of each leaf, by path.
    """

    families: dict[str, DistributionFamily]

    def __call__(self, /, **parameters: dict[str, Tensor]) -> Distribution:
        """Takes {path: {name: parameter [B, ...]}}; raw actions are {path: [B, ...]}."""
        return Product({path: family(**parameters[path]) for path, family in self._sorted()})

    def _sorted(self) -> list[tuple[str, DistributionFamily]]:
        """Returns the parts in an order that survives saving: it decides which noise each gets."""
        return sorted(self.families.items())

    def noise(self) -> Noise | None:
        """Returns the parts' noise by path; None if a part has none."""
        parts = {}
        for path, family in self._sorted():
            part = noise_of(family)
            if part is None:
                return None
            parts[path] = part

        def draw(
            generator: np.random.Generator, steps: int, parameters: Mapping[str, Any]
        ) -> dict[str, Any]:
            return {k: part.draw(generator, steps, parameters[k]) for k, part in parts.items()}

        def from_noise(parameters: Mapping[str, Any], noise: Mapping[str, Any]) -> dict[str, Nest]:
            return {k: part.from_noise(parameters[k], noise[k]) for k, part in parts.items()}

        return Noise(draw, from_noise)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, serialised."""
        return {"families": {k: serialize_family(v) for k, v in self.families.items()}}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Joint:
        """Creates an instance from the result of `get_config`."""
        return cls({k: deserialize_family(v) for k, v in config["families"].items()})


def serialize_family(family: DistributionFamily) -> dict[str, Any]:
    """Serialises a family for JSON: a class of TFP by its name, any other as Keras does."""
    name = getattr(family, "__name__", "")
    if getattr(tfd, name, None) is family:
        return {"tfp": name}
    return keras.saving.serialize_keras_object(family)


def deserialize_family(config: dict[str, Any], custom_objects: Any = None) -> DistributionFamily:
    """Undoes `serialize_family`."""
    if "tfp" in config:
        return getattr(tfd, config["tfp"])
    return keras.saving.deserialize_keras_object(config, custom_objects=custom_objects)
