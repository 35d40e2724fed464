"""Derived random numbers are reproducible, independent and uniform."""

import numpy as np
import pytest

from ppo_tf.support import seeds


@pytest.mark.parametrize("count", [1, 2, 1000])
def test_shuffled_is_a_permutation_per_epoch(count):
    indices = seeds.shuffled(3, count, 1, "shuffle")
    assert indices.dtype == np.int32
    np.testing.assert_array_equal(np.sort(indices, axis=1), [np.arange(count)] * 3)


def test_shuffled_depends_on_seed_path_and_epoch():
    first = seeds.shuffled(2, 100, 1, "shuffle", 0)
    np.testing.assert_array_equal(first, seeds.shuffled(2, 100, 1, "shuffle", 0))
    assert (first[0] != first[1]).any()
    assert (first != seeds.shuffled(2, 100, 1, "shuffle", 1)).any()
    assert (first != seeds.shuffled(2, 100, 2, "shuffle", 0)).any()


def test_shuffled_puts_every_index_in_every_place_equally_often():
    count, draws = 5, 4000
    orders = seeds.shuffled(draws, count, 7, "shuffle")
    places = (orders[:, :, None] == np.arange(count)).sum(axis=0)  # [place, index]
    expected = draws / count
    chi_square = ((places - expected) ** 2 / expected).sum()
    # (count - 1)^2 = 16 degrees of freedom: the statistic exceeds 39.25 once in 1000.
    assert chi_square < 39.25


def test_derive_seed_is_a_function_of_its_arguments():
    seed = seeds.derive_seed(3, "acting", 5)
    assert seed.shape == (2,)
    assert seed.dtype == np.int32
    assert seed.tolist() == seeds.derive_seed(3, "acting", 5).tolist()


def test_derive_seed_differs_between_seeds_purposes_and_iterations():
    derived = {
        tuple(seeds.derive_seed(seed, purpose, iteration).tolist())
        for seed in (0, 1, 2**31)
        for purpose in ("acting", "shuffle", "reset", "a", "b")
        for iteration in range(50)
    }
    assert len(derived) == 3 * 5 * 50


def test_derive_seed_differs_between_paths_of_different_length():
    paths = [(), (0,), (0, 0), ("a",), ("a", 0), ("acting",), ("acting", 0)]
    assert len({tuple(seeds.derive_seed(1, *path).tolist()) for path in paths}) == len(paths)


def test_derive_seed_keeps_the_parts_of_a_path_apart():
    paths = [("ab",), ("a", "b"), (97, 98), ("a", 98)]
    assert len({tuple(seeds.derive_seed(1, *path).tolist()) for path in paths}) == len(paths)


def test_derive_words_returns_the_requested_number():
    words = seeds.derive_words(1000, 1, "acting", 2)
    assert words.shape == (1000,)
    assert len(set(words.tolist())) > 990  # 1000 draws from 2^32 rarely collide
