"""Orthogonal initialisation, with a separate seed for each layer."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

# Gains of the orthogonal initialisation: "The 37 implementation details of PPO", detail 2.
HIDDEN_GAIN, POLICY_GAIN, VALUE_GAIN = math.sqrt(2.0), 0.01, 1.0


class Seeds:
    """A chain of initializer seeds derived from one seed.

    Args:
        seed: seed of the whole chain; with None, Keras draws its own.
    """

    def __init__(self, seed: int | None = None):
        self._generator = None if seed is None else np.random.default_rng(seed)

    def next(self) -> int | None:
        """Returns the next seed, or None if Keras is to draw it."""
        return None if self._generator is None else int(self._generator.integers(2**31))


def dense(size: int, gain: float, seeds: Seeds, **options: Any) -> keras.layers.Dense:
    """Creates a dense layer with an orthogonal kernel scaled by `gain` and a bias of 0.

    Args:
        size: number of units.
        gain: scale of the orthogonal kernel.
        seeds: source of the kernel's seed.
        options: further arguments of `keras.layers.Dense`.
    """
    initializer = keras.initializers.Orthogonal(gain, seed=seeds.next())
    return keras.layers.Dense(size, kernel_initializer=initializer, **options)
