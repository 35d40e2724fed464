"""From an action space to a distribution, the parameters a network must give it, and the way back.

The agent lives in raw actions, the distribution's own samples; an action map turns them into what
`env.step` takes. Log-probabilities, ratios and KL divergences are those of raw actions: the maps
are fixed, so PPO's ratio and KL do not change under them, and no squashed action ever has to be
inverted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import gymnasium
import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from ppo_tf.types import DistributionFamily, Tensor

tfd = tfp.distributions

Bounds = Literal["clip", "tanh"]


@keras.saving.register_keras_serializable("ppo_tf")
@dataclass(frozen=True)
class DiscreteAction:
    """Category 0..n-1 to the environment's integer start..start+n-1.

    Args:
        start: the space's first action.
        dtype: of the environment's action.
    """

    start: int = 0
    dtype: str = "int64"

    def __call__(self, raw: Tensor) -> Tensor:
        """Maps raw int [B] to dtype [B]."""
        return tf.cast(raw, self.dtype) + tf.constant(self.start, self.dtype)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"start": self.start, "dtype": self.dtype}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> DiscreteAction:
        """The inverse of `get_config`."""
        return cls(**config)


class _BoxAction:
    """What the maps into a Box share: its bounds, shape and dtype, element by element."""

    def __init__(self, low, high, shape, dtype="float32"):
        self.shape, self.dtype = tuple(shape), dtype
        self.low = np.broadcast_to(np.asarray(low, np.float64), self.shape)
        self.high = np.broadcast_to(np.asarray(high, np.float64), self.shape)
        # Some environments write "no bound" as the largest float; its width overflows.
        self.has_low = self.low > -1e30
        self.has_high = self.high < 1e30
        self.two_sided = self.has_low & self.has_high
        low = np.where(self.two_sided, self.low, -1.0)
        high = np.where(self.two_sided, self.high, 1.0)
        self.center, self.half_width = 0.5 * low + 0.5 * high, 0.5 * high - 0.5 * low

    @classmethod
    def from_space(cls, space: gymnasium.spaces.Box):
        """The map into this Box."""
        return cls(space.low, space.high, space.shape, str(space.dtype))

    def _reshape(self, raw: Tensor) -> Tensor:
        return tf.reshape(raw, [-1, *self.shape])

    def _bounded(self, action: Tensor) -> Tensor:
        """Casts and clips: rounding may not carry an action past a bound."""
        info = np.finfo(self.dtype)
        low = np.maximum(self.low, info.min).astype(self.dtype)
        high = np.minimum(self.high, info.max).astype(self.dtype)
        return tf.clip_by_value(tf.cast(action, self.dtype), low, high)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "low": self.low.tolist(),
            "high": self.high.tolist(),
            "shape": list(self.shape),
            "dtype": self.dtype,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]):
        """The inverse of `get_config`."""
        return cls(**config)


@keras.saving.register_keras_serializable("ppo_tf")
class ClipAction(_BoxAction):
    """Raw [-1, 1] to [low, high] by rescaling, everything outside clipped to the bounds.

    Where an element of the Box has no bound on one or both sides, the raw value is the action,
    clipped to the bound there is.

    Args:
        low, high: bounds, broadcast to shape; infinite where there is none.
        shape: of one action.
        dtype: of the environment's action, a float.
    """

    def __call__(self, raw: Tensor) -> Tensor:
        """Maps raw float [B, n] to dtype [B, *shape]."""
        scaled = self._reshape(raw) * tf.constant(self.half_width, raw.dtype)
        return self._bounded(scaled + tf.constant(self.center, raw.dtype))


@keras.saving.register_keras_serializable("ppo_tf")
class TanhAction(_BoxAction):
    """Raw reals to (low, high) by tanh; by softplus where only one side is bounded.

    Args:
        low, high: bounds, broadcast to shape; infinite where there is none.
        shape: of one action.
        dtype: of the environment's action, a float.
    """

    def __call__(self, raw: Tensor) -> Tensor:
        """Maps raw float [B, n] to dtype [B, *shape]."""
        raw = self._reshape(raw)

        def constant(x):
            return tf.constant(np.where(np.abs(x) < 1e30, x, 0.0), raw.dtype)

        squashed = constant(self.center) + constant(self.half_width) * tf.tanh(raw)
        above = constant(self.low) + tf.nn.softplus(raw)
        below = constant(self.high) - tf.nn.softplus(-raw)
        one_sided = tf.where(self.has_low, above, tf.where(self.has_high, below, raw))
        return self._bounded(tf.where(self.two_sided, squashed, one_sided))


# Distributions that can be sampled from noise drawn beforehand: for each, the noise (from a NumPy
# generator and a shape [..., *parameter]) and the raw action from the parameters and that noise.
NOISE: dict[DistributionFamily, tuple[Callable[..., Any], Callable[..., Tensor]]] = {
    # argmax(logits + g), g of the standard Gumbel distribution, follows the categorical.
    tfd.Categorical: (
        lambda generator, shape: generator.gumbel(size=shape).astype(np.float32),
        lambda parameters, noise: tf.argmax(
            parameters["logits"] + noise, axis=-1, output_type=tf.int32
        ),
    ),
    tfd.MultivariateNormalDiag: (
        lambda generator, shape: generator.standard_normal(shape, np.float32),
        lambda parameters, noise: parameters["loc"] + parameters["scale_diag"] * noise,
    ),
}


@dataclass(frozen=True)
class ActionSpec:
    """What it takes to act in a space.

    Attributes:
        family: callable from the distribution's parameters, by name, to the distribution.
        parameters: size of each parameter's last axis, by name.
        action_map: callable from raw actions [B, ...] to what `env.step` takes.
    """

    family: DistributionFamily
    parameters: dict[str, int]
    action_map: Callable[[Tensor], Tensor]


def action_spec(space: gymnasium.Space, *, bounds: Bounds = "clip") -> ActionSpec:
    """Chooses the distribution for an action space.

    Args:
        space: `Discrete` (any start): a categorical over logits [n]. `Box` of floats: a Gaussian
            with diagonal covariance over the flattened action, loc [n] and scale_diag [n].
        bounds: how a Box's bounds are kept: "clip" or "tanh".

    Raises:
        ValueError: another space, or an unknown value of bounds.
    """
    if bounds not in ("clip", "tanh"):
        raise ValueError(f"bounds must be 'clip' or 'tanh'. Received: bounds={bounds!r}")
    if isinstance(space, gymnasium.spaces.Discrete):
        dtype = np.dtype(space.dtype).name
        return ActionSpec(
            tfd.Categorical, {"logits": int(space.n)}, DiscreteAction(int(space.start), dtype)
        )
    if isinstance(space, gymnasium.spaces.Box) and np.issubdtype(space.dtype, np.floating):
        size = int(np.prod(space.shape))
        action_map = {"clip": ClipAction, "tanh": TanhAction}[bounds].from_space(space)
        return ActionSpec(tfd.MultivariateNormalDiag, {"loc": size, "scale_diag": size}, action_map)
    raise ValueError(
        "The action space must be Discrete or a Box of floats. "
        f"Received: {space}; for others, give Policy your own distribution and action map"
    )
