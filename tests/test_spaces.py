"""Composite spaces as one-level dicts and back."""

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, Tuple
from gymnasium.utils.env_checker import data_equivalence

from ppo_tf import spaces

NESTED = Dict(
    {"camera": Box(0, 255, (2, 2), np.uint8), "arm": Tuple((Box(-1, 1, (3,)), Discrete(4)))}
)


def test_leaves_are_named_by_their_paths():
    assert spaces.leaves(NESTED) == {
        "arm/0": NESTED["arm"][0],
        "arm/1": NESTED["arm"][1],
        "camera": NESTED["camera"],
    }


@pytest.mark.parametrize("space", [Discrete(3), Box(-1, 1, (2,)), gymnasium.spaces.Text(3)])
def test_a_plain_space_is_its_own_leaf(space):
    assert spaces.leaves(space) is space
    value = space.sample()
    assert spaces.flatten(space, value) is value
    assert spaces.unflatten(space, value) is value


@pytest.mark.parametrize(
    "space", [NESTED, Tuple((NESTED, Discrete(2))), Dict(a=Dict(b=Discrete(3)))]
)
def test_unflatten_undoes_flatten(space):
    value = space.sample()
    flat = spaces.flatten(space, value)
    assert list(flat) == list(spaces.leaves(space))
    assert all(leaf.contains(flat[path]) for path, leaf in spaces.leaves(space).items())
    assert space.contains(spaces.unflatten(space, flat))
    assert data_equivalence(spaces.unflatten(space, flat), value)


def test_two_leaves_with_the_same_path_are_refused():
    space = Dict({"a/b": Discrete(2), "a": Dict(b=Discrete(2))})
    with pytest.raises(ValueError, match=r"path 'a/b'.*Received: Dict"):
        spaces.leaves(space)


def test_only_dict_and_tuple_are_composite_and_have_paths():
    assert spaces.is_composite(NESTED) and spaces.is_composite(Tuple((Discrete(2),)))
    assert spaces.paths(NESTED) == ["arm/0", "arm/1", "camera"]
    assert not spaces.is_composite(Discrete(2)) and spaces.paths(Discrete(2)) == []


def test_leaves_of_one_path_meet_in_map_leaves():
    one, other = {"b": 1, "a/0": 2}, {"a/0": 20, "b": 10}
    added = spaces.map_leaves(lambda x, y: x + y, one, other)
    assert list(added.items()) == [("b", 11), ("a/0", 22)]
    assert spaces.map_leaves(lambda x, y: x + y, 1, 10) == 11
