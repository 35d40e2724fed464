"""Maps from raw actions, the distribution's own samples, to what `env.step` takes.

Log-probabilities, ratios and KL divergences are those of raw actions: the maps are fixed, so PPO's
ratio and KL do not change under them, and no squashed action ever has to be inverted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import gymnasium
import keras
import numpy as np
import tensorflow as tf

from ppo_tf.types import ActionMap, Nest, Tensor

Bounds = float | Sequence[Any] | np.ndarray
BoxAction = TypeVar("BoxAction", bound="_BoxAction")

NEAR_BOUND = 0.01  # of a Box's range: this close to a bound, an action counts as saturated


@keras.saving.register_keras_serializable("ppo_tf")
@dataclass(frozen=True)
class DiscreteAction:
    """Maps categories 0..n-1 to the environment's integers start..start+n-1, element by element.

    For `Discrete`, `MultiDiscrete` and `MultiBinary`.

    Args:
        start: the space's first action; one number for all elements, or nested like the array.
        dtype: integer dtype of the environment's action.
        shape: shape of one action; () for a single number.
    """

    start: Any = 0
    dtype: str = "int64"
    shape: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        # Plain Python numbers and tuples: comparable, and unchanged by a round trip through JSON.
        object.__setattr__(self, "start", _tuples(np.asarray(self.start).tolist()))
        object.__setattr__(self, "shape", tuple(self.shape))

    @classmethod
    def from_space(cls, space: gymnasium.Space[Any]) -> DiscreteAction:
        """Creates the map into a Discrete, MultiDiscrete or MultiBinary space."""
        return cls(getattr(space, "start", 0), np.dtype(space.dtype).name, space.shape or ())

    def __call__(self, raw: Tensor) -> Tensor:
        """Maps raw int [B] or [B, n] to dtype [B, *shape]."""
        raw = tf.reshape(raw, [-1, *self.shape])
        # Added in int64: a category may not fit the action's type before it is shifted.
        return tf.cast(tf.cast(raw, tf.int64) + tf.constant(self.start, tf.int64), self.dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        start = np.asarray(self.start).tolist()
        return {"start": start, "dtype": self.dtype, "shape": list(self.shape)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> DiscreteAction:
        """Creates an instance from the result of `get_config`."""
        return cls(**config)


class _BoxAction:
    """Base of the maps into a Box: its bounds by element, its shape and dtype."""

    def __init__(self, low: Bounds, high: Bounds, shape: Sequence[int], dtype: str = "float32"):
        self.shape, self.dtype = tuple(shape), dtype
        self.low = np.broadcast_to(np.asarray(low, np.float64), self.shape)
        self.high = np.broadcast_to(np.asarray(high, np.float64), self.shape)
        # Some environments write "no bound" as the largest float; the width would overflow.
        self.has_low = self.low > -1e30
        self.has_high = self.high < 1e30
        self.two_sided = self.has_low & self.has_high
        low = np.where(self.two_sided, self.low, -1.0)
        high = np.where(self.two_sided, self.high, 1.0)
        self.center, self.half_width = 0.5 * low + 0.5 * high, 0.5 * high - 0.5 * low

    @classmethod
    def from_space(cls: type[BoxAction], space: gymnasium.spaces.Box) -> BoxAction:
        """Creates the map into this Box."""
        return cls(space.low, space.high, space.shape, str(space.dtype))

    def raw_limits(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns (low, high), float [n] each: the raw values at which actions saturate.

        At or beyond them, an action is within 1% of the range of a bound, or on the bound of an
        element that has only one. Infinite where there is no such value.
        """
        low, high = self._raw_limits()
        return low.ravel(), high.ravel()

    def _raw_limits(self) -> tuple[np.ndarray, np.ndarray]:
        raise NotImplementedError

    def _reshape(self, raw: Tensor) -> Tensor:
        return tf.reshape(raw, [-1, *self.shape])

    def _bounded(self, action: Tensor) -> Tensor:
        """Clips and casts: rounding must not carry an action past a bound."""
        low, high = _float32_within(self.low, self.high, self.dtype)
        if (low > high).any():  # so narrow a Box that no float32 is in it
            low, high = self.low.astype(self.dtype), self.high.astype(self.dtype)
            action = tf.cast(action, self.dtype)
        return tf.cast(tf.clip_by_value(action, low, high), self.dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            "low": self.low.tolist(),
            "high": self.high.tolist(),
            "shape": list(self.shape),
            "dtype": self.dtype,
        }

    @classmethod
    def from_config(cls: type[BoxAction], config: dict[str, Any]) -> BoxAction:
        """Creates an instance from the result of `get_config`."""
        return cls(**config)


@keras.saving.register_keras_serializable("ppo_tf")
class ClipAction(_BoxAction):
    """Rescales raw [-1, 1] to [low, high], and clips everything outside to the bounds.

    Where an element of the Box lacks a bound on one or both sides, the raw value is the action,
    clipped to the other bound if there is one.

    Args:
        low, high: bounds, broadcast to shape; infinite where there is none.
        shape: shape of one action.
        dtype: float dtype of the environment's action.
    """

    def __call__(self, raw: Tensor) -> Tensor:
        """Maps raw float [B, n] to dtype [B, *shape]."""
        scaled = self._reshape(raw) * tf.constant(self.half_width, raw.dtype)
        return self._bounded(scaled + tf.constant(self.center, raw.dtype))

    def _raw_limits(self) -> tuple[np.ndarray, np.ndarray]:
        inner = 1.0 - 2.0 * NEAR_BOUND  # [-1, 1] is two wide
        one_sided_low = np.where(self.has_low, self.low, -np.inf)
        one_sided_high = np.where(self.has_high, self.high, np.inf)
        return (
            np.where(self.two_sided, -inner, one_sided_low),
            np.where(self.two_sided, inner, one_sided_high),
        )


@keras.saving.register_keras_serializable("ppo_tf")
class TanhAction(_BoxAction):
    """Squashes raw reals to (low, high) by tanh, or by softplus where only one side is bounded.

    Args:
        low, high: bounds, broadcast to shape; infinite where there is none.
        shape: shape of one action.
        dtype: float dtype of the environment's action.
    """

    def __call__(self, raw: Tensor) -> Tensor:
        """Maps raw float [B, n] to dtype [B, *shape]."""
        raw = self._reshape(raw)

        def constant(x: np.ndarray) -> Tensor:
            return tf.constant(np.where(np.abs(x) < 1e30, x, 0.0), raw.dtype)

        squashed = constant(self.center) + constant(self.half_width) * tf.tanh(raw)
        above = constant(self.low) + tf.nn.softplus(raw)
        below = constant(self.high) - tf.nn.softplus(-raw)
        one_sided = tf.where(self.has_low, above, tf.where(self.has_high, below, raw))
        return self._bounded(tf.where(self.two_sided, squashed, one_sided))

    def _raw_limits(self) -> tuple[np.ndarray, np.ndarray]:
        # Softplus approaches its one bound gradually: no raw value counts as saturated.
        limit = np.where(self.two_sided, np.arctanh(1.0 - 2.0 * NEAR_BOUND), np.inf)
        return -limit, limit


@keras.saving.register_keras_serializable("ppo_tf")
class UnitAction(_BoxAction):
    """Rescales raw [0, 1] to [low, high], for distributions over the unit interval.

    Args:
        low, high: finite bounds, broadcast to shape.
        shape: shape of one action.
        dtype: float dtype of the environment's action.

    Raises:
        ValueError: an element is not bounded on both sides.
    """

    def __init__(self, low: Bounds, high: Bounds, shape: Sequence[int], dtype: str = "float32"):
        super().__init__(low, high, shape, dtype)
        if not self.two_sided.all():
            raise ValueError(f"UnitAction needs finite bounds. Received: low={low}, high={high}")

    def __call__(self, raw: Tensor) -> Tensor:
        """Maps raw float [B, n] to dtype [B, *shape]."""
        scaled = (2.0 * self._reshape(raw) - 1.0) * tf.constant(self.half_width, raw.dtype)
        return self._bounded(scaled + tf.constant(self.center, raw.dtype))

    def _raw_limits(self) -> tuple[np.ndarray, np.ndarray]:
        return np.full(self.shape, NEAR_BOUND), np.full(self.shape, 1.0 - NEAR_BOUND)


@keras.saving.register_keras_serializable("ppo_tf")
class BinAction(UnitAction):
    """Maps categories 0..bins-1 to evenly spaced values of each element, bounds included.

    Args:
        low, high: finite bounds, broadcast to shape.
        shape: shape of one action.
        dtype: float dtype of the environment's action.
        bins: number of values per element, at least 2.

    Raises:
        ValueError: there are fewer than two bins, or an element is not bounded on both sides.
    """

    def __init__(
        self,
        low: Bounds,
        high: Bounds,
        shape: Sequence[int],
        dtype: str = "float32",
        bins: int = 41,
    ):
        if bins < 2:
            raise ValueError(f"bins must be at least 2. Received: bins={bins}")
        super().__init__(low, high, shape, dtype)
        self.bins = bins

    def __call__(self, raw: Tensor) -> Tensor:
        """Maps raw int [B, n] to dtype [B, *shape]."""
        return super().__call__(tf.cast(raw, tf.float32) / (self.bins - 1.0))

    def _raw_limits(self) -> tuple[np.ndarray, np.ndarray]:
        low, high = super()._raw_limits()
        return low * (self.bins - 1), high * (self.bins - 1)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "bins": self.bins}


@keras.saving.register_keras_serializable("ppo_tf")
@dataclass(frozen=True)
class JointAction:
    """Applies the action map of each leaf of a composite space.

    Args:
        maps: action map of each leaf, by path.
    """

    maps: dict[str, ActionMap]

    def __call__(self, raw: Mapping[str, Nest]) -> dict[str, Nest]:
        """Maps {path: raw [B, ...]} to {path: the leaf's action [B, ...]}."""
        return {path: action_map(raw[path]) for path, action_map in self.maps.items()}

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, serialised."""
        serialize = keras.saving.serialize_keras_object
        return {"maps": {path: serialize(action_map) for path, action_map in self.maps.items()}}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> JointAction:
        """Creates an instance from the result of `get_config`."""
        deserialize = keras.saving.deserialize_keras_object
        return cls({path: deserialize(value) for path, value in config["maps"].items()})


def _float32_within(low: np.ndarray, high: np.ndarray, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """The outermost float32 numbers that are within bounds of a dtype.

    Clipping comes before the cast to float64 or float16, in which LiteRT has no arithmetic.
    """
    most = min(np.finfo(dtype).max, np.finfo(np.float32).max)
    low, high = np.clip(low, -most, most), np.clip(high, -most, most)
    low32, high32 = low.astype(np.float32), high.astype(np.float32)
    if dtype == "float64":  # elsewhere, the nearest is the bound itself
        low32 = np.where(low32 < low, np.nextafter(low32, np.float32(np.inf)), low32)
        high32 = np.where(high32 > high, np.nextafter(high32, np.float32(-np.inf)), high32)
    return low32, high32


def _tuples(value: Any) -> Any:
    return tuple(_tuples(part) for part in value) if isinstance(value, list) else value
