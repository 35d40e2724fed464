"""Orthogonal initialisation, each layer from a seed of its own."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

# Gains of the orthogonal initialisation: "The 37 implementation details of PPO", detail 2.
HIDDEN_GAIN, POLICY_GAIN, VALUE_GAIN = math.sqrt(2.0), 0.01, 1.0


class Seeds:
    """A new seed for every initializer, from one seed; with None, Keras draws them.

    Args:
        seed: of the whole chain.
    """

    def __init__(self, seed: int | None = None):
        self._generator = None if seed is None else np.random.default_rng(seed)

    def next(self) -> int | None:
        """The next seed of the chain."""
        return None if self._generator is None else int(self._generator.integers(2**31))


def dense(size: int, gain: float, seeds: Seeds, **options: Any) -> keras.layers.Dense:
    """A dense layer of `size` units, its kernel orthogonal times `gain`, its bias 0.

    Args:
        size: units.
        gain: factor of the orthogonal kernel.
        seeds: gives the kernel's seed.
        options: of `keras.layers.Dense`.
    """
    initializer = keras.initializers.Orthogonal(gain, seed=seeds.next())
    return keras.layers.Dense(size, kernel_initializer=initializer, **options)
