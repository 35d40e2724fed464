"""Random numbers by purpose: derived from a run's seed and what they are for."""

from __future__ import annotations

import numpy as np


def derive_words(count: int, seed: int, *path: int | str) -> np.ndarray:
    """Random words for one purpose, independent of those for all others.

    Args:
        count: how many.
        seed: the run's seed.
        path: what they are for, for instance `("acting", iteration)`.

    Returns:
        int32 [count], none of them negative: from a seed with a negative word, TensorFlow's
        stateless random functions draw other numbers under XLA than without.

    Raises:
        ValueError: a negative seed.
    """
    if seed < 0:
        raise ValueError(f"seed must be at least 0. Received: seed={seed}")
    words = [seed, len(path)]
    for part in path:  # its kind and length first, so that no two paths run together to the same
        words += [len(part) + 1, *part.encode()] if isinstance(part, str) else [0, part]
    return (np.random.SeedSequence(words).generate_state(count) >> 1).astype(np.int32)


def derive_seed(seed: int, *path: int | str) -> np.ndarray:
    """`derive_words` for TensorFlow's and TFP's stateless random functions, int32 [2]."""
    return derive_words(2, seed, *path)


def derive_generator(seed: int, *path: int | str) -> np.random.Generator:
    """A NumPy generator for one purpose, see `derive_words`."""
    return np.random.default_rng(derive_words(4, seed, *path).tolist())


def shuffled(epochs: int, count: int, seed: int, *path: int | str) -> np.ndarray:
    """The indices 0..count-1 in random order, once per epoch, int32 [epochs, count].

    On the host: XLA has no kernel to shuffle, and sorting random keys takes it 20 times as long.
    """
    generator = derive_generator(seed, *path)
    return np.stack([generator.permutation(count) for _ in range(epochs)]).astype(np.int32)
