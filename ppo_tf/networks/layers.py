"""Keras layers for reinforcement learning: running statistics, exploration scales, masked logits
and inputs for composite observations."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from ppo_tf import ops
from ppo_tf.types import Tensor


class _Scope:
    """What happened in a scope of `learn_statistics`."""

    def __init__(self, weights: Tensor):
        self.weights = weights
        self.current: object | None = None  # the open `whole_pass`
        self._learned: dict[int, object | None] = {}  # by layer, the pass in which it learned

    def lets_learn(self, layer: keras.layers.Layer) -> bool:
        """Whether a layer learns from this call: its first, or another in the pass of its first."""
        if id(layer) not in self._learned:
            self._learned[id(layer)] = self.current
            return True
        return self.current is not None and self._learned[id(layer)] is self.current


_learning: list[_Scope] = []  # open scopes of `learn_statistics`, innermost last


@contextlib.contextmanager
def learn_statistics(weights: Tensor) -> Iterator[None]:
    """Lets forward passes inside the scope update the statistics of `RunningNormalization` layers.

    A layer learns at most once per scope, however many models share it; a model that applies it
    several times needs a `whole_pass`. Outside, statistics are frozen, so that they stay the same
    while a policy acts. Those of a layer with trainable=False never change.

    Args:
        weights: float [n], 1 for the rows of the batch that count, 0 for those that do not.
    """
    _learning.append(_Scope(weights))
    try:
        yield
    finally:
        _learning.pop()


@contextlib.contextmanager
def whole_pass() -> Iterator[None]:
    """Lets a layer learn from each of its calls in one forward pass of a model, such as those for
    two leaves of an observation, unless it learned before in the scope of `learn_statistics`."""
    scope = _learning[-1]
    scope.current = object()
    try:
        yield
    finally:
        scope.current = None


def normalizations(model: keras.layers.Layer) -> list[RunningNormalization]:
    """Returns the `RunningNormalization` layers in a model, at any depth."""
    return [x for x in model._flatten_layers() if isinstance(x, RunningNormalization)]


@keras.saving.register_keras_serializable("ppo_tf")
class RunningNormalization(keras.layers.Layer):
    """(x - mean) / std with the moments of everything seen so far, clipped to +-clip.

    The statistics are weights: they are saved, exported and checkpointed with the model. They
    change only in a forward pass inside `learn_statistics`, which the learner runs once per update.
    Before the first such pass the layer only clips. Outliers are bounded before they enter the
    moments, see `ops.without_outliers`.

    Args:
        clip: bound of the normalised values; 10 as in Baselines' VecNormalize.
        epsilon: number added to the variance; 1e-8 as in VecNormalize.
    """

    def __init__(self, clip: float = 10.0, epsilon: float = 1e-8, **kwargs: Any):
        super().__init__(**kwargs)
        self.autocast = False  # bfloat16 would lose digits of what is about to be centred
        self.clip = clip
        self.epsilon = epsilon

    def build(self, input_shape: tuple[Any, ...]) -> None:
        """Creates the statistics: one mean and one variance per input element."""
        options = {"trainable": False, "autocast": False, "dtype": "float32"}
        shape = input_shape[1:]
        self.mean = self.add_weight(name="mean", shape=shape, initializer="zeros", **options)
        self.variance = self.add_weight(name="variance", shape=shape, initializer="ones", **options)
        self.count = self.add_weight(name="count", shape=(), initializer="zeros", **options)

    def call(self, inputs: Tensor) -> Tensor:
        """Normalises inputs float [B, ...]; returns float of the same shape."""
        inputs = keras.ops.cast(inputs, "float32")
        if _learning and self.trainable and _learning[-1].lets_learn(self):
            weights = tf.cast(_learning[-1].weights, tf.float32)
            known = (self.count.value, self.mean.value, self.variance.value)
            bounded = ops.without_outliers(*known, inputs, weights)
            moments = ops.merge_moments(*known, bounded, weights)
            for weight, value in zip((self.count, self.mean, self.variance), moments, strict=True):
                weight.assign(value)
        normalized = (inputs - self.mean) * keras.ops.rsqrt(self.variance + self.epsilon)
        clipped = keras.ops.clip(normalized, -self.clip, self.clip)
        return keras.ops.cast(clipped, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "clip": self.clip, "epsilon": self.epsilon}


@keras.saving.register_keras_serializable("ppo_tf")
class StateIndependentScale(keras.layers.Layer):
    """exp(log_scale), one learned number per action element, the same in every state.

    Args:
        initial: initial value of every scale, positive, in raw action units.
    """

    def __init__(self, initial: float = 1.0, **kwargs: Any):
        super().__init__(**kwargs)
        if not initial > 0:
            raise ValueError(f"initial must be positive. Received: initial={initial}")
        self.initial = initial

    def build(self, input_shape: tuple[Any, ...]) -> None:
        """Creates the log-scales."""
        initializer = keras.initializers.Constant(math.log(self.initial))
        self.log_scale = self.add_weight(
            name="log_scale", shape=(input_shape[-1],), initializer=initializer
        )

    def call(self, loc: Tensor) -> Tensor:
        """Returns the scales, float [B, n], for the locations loc [B, n]."""
        return keras.ops.broadcast_to(keras.ops.exp(self.log_scale), keras.ops.shape(loc))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "initial": self.initial}


@keras.saving.register_keras_serializable("ppo_tf")
class ExplorationDirections(keras.layers.Layer):
    """stop_gradient(x_i) exp(log_scale_ij): how feature i spreads action element j (gSDE).

    The noise of action element j is sum_i x_i W_ij with W_ij ~ N(0, exp(log_scale_ij)^2), whose
    standard deviation is sqrt(sum_i directions_ij^2): a function of the state, smooth in time as
    long as W stays the same (Raffin et al. 2020, arXiv 2005.05719, eq. 3 and 7). No gradient
    reaches the features, as in the authors' code.

    Every scale starts at initial / (0.5 sqrt(F)), so that the standard deviation is `initial` for
    features with a root mean square of 0.5, which is typical of tanh units.

    Args:
        size: number of action elements, n.
        initial: initial standard deviation for such features, positive, in raw action units.
    """

    def __init__(self, size: int, initial: float = 1.0, **kwargs: Any):
        super().__init__(**kwargs)
        if size < 1:
            raise ValueError(f"size must be positive. Received: size={size}")
        if not initial > 0:
            raise ValueError(f"initial must be positive. Received: initial={initial}")
        self.size = size
        self.initial = initial

    def build(self, input_shape: tuple[Any, ...]) -> None:
        """Creates the log-scales, one per feature and action element."""
        start = math.log(self.initial / (0.5 * math.sqrt(input_shape[-1])))
        self.log_scale = self.add_weight(
            name="log_scale",
            shape=(input_shape[-1], self.size),
            initializer=keras.initializers.Constant(start),
        )

    def call(self, features: Tensor) -> Tensor:
        """Returns the directions, float [B, F, n], for features [B, F]."""
        features = keras.ops.stop_gradient(features)
        return keras.ops.expand_dims(features, -1) * keras.ops.exp(self.log_scale)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "size": self.size, "initial": self.initial}


@keras.saving.register_keras_serializable("ppo_tf")
class MaskLogits(keras.layers.Layer):
    """Replaces the logits of invalid categories by `ops.MASKED_LOGIT`, so their probability is 0.

    In a row without a valid category all are equally likely. Source: Huang and Ontañón 2022, "A
    closer look at invalid action masking in policy gradient algorithms".
    """

    # Keras gives an argument named "mask" a meaning of its own.
    def call(self, logits: Tensor, valid: Tensor) -> Tensor:
        """Masks logits float [B, n] by valid, int or bool [B, n]; returns float [B, n]."""
        if logits.shape[-1] != valid.shape[-1]:  # would broadcast where one of them is 1
            raise ValueError(
                "logits and mask must have the same last axis. "
                f"Received: logits {logits.shape}, mask {valid.shape}"
            )
        return keras.ops.where(keras.ops.cast(valid, "bool"), logits, ops.MASKED_LOGIT)


@keras.saving.register_keras_serializable("ppo_tf")
class LeafInput(keras.layers.InputLayer):
    """An input for one leaf of a composite observation; the tensor, `.output`, is named by path.

    A layer's name can't contain "/", and Keras warns if an input's key in a dict is not the
    tensor's name. Here the tensor is named by the leaf's path, and the layer may have any name.

    Args:
        leaf_path: path of the leaf; the tensor's name.
        shape: shape of one observation.
        dtype: dtype of the observations.
        name: name of the layer.
    """

    def __init__(self, leaf_path: str, shape: Sequence[int], dtype: str, name: str):
        tensor = keras.KerasTensor((None, *shape), dtype, name=leaf_path)
        super().__init__(input_tensor=tensor, name=name)
        self.leaf_path = leaf_path

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        shape = list(self.batch_shape[1:])
        return {"leaf_path": self.leaf_path, "shape": shape, "dtype": self.dtype, "name": self.name}
