"""Random numbers derived from a run's seed and their purpose."""

from __future__ import annotations

import numpy as np


def derive_words(count: int, seed: int, *path: int | str) -> np.ndarray:
    """Derives random words for one purpose, independent of those for all others.

    Args:
        count: number of words.
        seed: the run's seed.
        path: the purpose, for instance `("acting", iteration)`.

    Returns:
        int32 [count], none of them negative: from a seed with a negative word, TensorFlow's
        stateless random functions draw different numbers with XLA and without.

    Raises:
        ValueError: the seed is negative.
    """
    if seed < 0:
        raise ValueError(f"seed must be at least 0. Received: seed={seed}")
    words = [seed, len(path)]
    for part in path:  # type and length first, so that no two paths give the same words
        words += [len(part) + 1, *part.encode()] if isinstance(part, str) else [0, part]
    return (np.random.SeedSequence(words).generate_state(count) >> 1).astype(np.int32)


def derive_seed(seed: int, *path: int | str) -> np.ndarray:
    """Derives a seed, int32 [2], for the stateless random functions of TensorFlow and TFP."""
    return derive_words(2, seed, *path)


def derive_generator(seed: int, *path: int | str) -> np.random.Generator:
    """Creates a NumPy generator for one purpose, see `derive_words`."""
    return np.random.default_rng(derive_words(4, seed, *path).tolist())


def shuffled(epochs: int, count: int, seed: int, *path: int | str) -> np.ndarray:
    """Returns the indices 0..count-1 in random order, once per epoch, int32 [epochs, count].

    Runs on the host: XLA can't shuffle, and takes 20 times as long to sort random keys.
    """
    generator = derive_generator(seed, *path)
    return np.stack([generator.permutation(count) for _ in range(epochs)]).astype(np.int32)
