"""Masks are matched to actions, and those that do not fit are refused."""

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

from ppo_tf.spaces import masks

SEEN = Box(-1, 1, (3,))


def bits(*shape, dtype=np.int8):
    return Box(0, 1, shape, dtype)


def observation(mask, **parts):
    return Dict(seen=SEEN, action_mask=mask, **parts)


@pytest.mark.parametrize(
    ("observations", "actions", "expected"),
    [
        (SEEN, Discrete(3), {}),
        (Dict(seen=SEEN), Discrete(3), {}),
        (Tuple([SEEN]), Discrete(3), {}),
        (observation(bits(3)), Discrete(3, start=5), {"": "action_mask"}),
        (observation(bits(3, dtype=np.uint8)), Discrete(3), {"": "action_mask"}),
        (observation(bits(3, dtype=bool)), Discrete(3), {"": "action_mask"}),
        (observation(MultiBinary(3)), Discrete(3), {"": "action_mask"}),
        (observation(bits(14)), MultiDiscrete([[2, 3], [4, 5]]), {"": "action_mask"}),
        (
            observation(Dict(move=bits(3))),
            Dict(move=Discrete(3), push=SEEN),
            {"move": "action_mask/move"},
        ),
        (
            observation(Tuple([bits(2), Dict(arm=bits(7))])),
            Tuple([Discrete(2), Dict(arm=MultiDiscrete([3, 4]), leg=MultiBinary(2))]),
            {"0": "action_mask/0", "1/arm": "action_mask/1/arm"},
        ),
    ],
)
def test_masks_are_found(observations, actions, expected):
    assert masks.masked_leaves(observations, actions) == expected


def test_the_mask_key_can_be_changed_or_none():
    space = Dict(seen=SEEN, legal=bits(3), legality=bits(7))
    assert masks.masked_leaves(space, Discrete(3), "legal") == {"": "legal"}
    assert masks.masked_leaves(observation(SEEN), Discrete(3), None) == {}


@pytest.mark.parametrize(
    ("mask", "actions", "message"),
    [
        (bits(4), Discrete(3), r"shape \(3,\).*'action_mask' is Box.*\(4,\).*is Discrete\(3\)"),
        (bits(3, 1), Discrete(3), r"shape \(3,\).*\(3, 1\)"),
        (bits(2, 2), MultiDiscrete([2, 2]), r"shape \(4,\).*\(2, 2\).*MultiDiscrete\(\[2 2\]\)"),
        (bits(3, dtype=np.float32), Discrete(3), "int8, uint8, bool.*float32.*Discrete"),
        (bits(3, dtype=np.int64), Discrete(3), "int8, uint8, bool.*int64.*Discrete"),
        (Discrete(3), Discrete(3), r"MultiBinary or a Box.*'action_mask' is Discrete\(3\)"),
        (bits(3), SEEN, r"Only Discrete and MultiDiscrete.*'action_mask' is Box.*is Box\(-1"),
        (bits(3), MultiBinary(3), r"Only Discrete.*'action_mask' is Box.*MultiBinary\(3\)"),
        (bits(3), Dict(move=Discrete(3)), r"nested like.*'action_mask' for.*Dict.*\['move'\]"),
        (Dict(move=bits(3)), Discrete(3), r"nested like.*'action_mask/move' for.*Discrete\(3\)"),
        (Dict(run=bits(3)), Dict(move=Discrete(3)), r"'action_mask/run'.*\['move'\]"),
        (Dict(move=bits(4)), Dict(move=Discrete(3)), r"\(3,\).*'action_mask/move' is Box"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(mask, actions, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        masks.masked_leaves(observation(mask), actions)


def test_segment_sizes_follow_c_order():
    assert masks.segment_sizes(Discrete(4, start=2)) == (4,)
    assert masks.segment_sizes(MultiDiscrete([[2, 3], [4, 5]])) == (2, 3, 4, 5)
    with pytest.raises(ValueError, match="Received: Box"):
        masks.segment_sizes(SEEN)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, bool])
def test_the_first_row_without_a_valid_action_is_found(dtype):
    mask = np.array([[1, 0, 0, 0, 1], [0, 1, 0, 0, 0], [0, 0, 1, 0, 0]], dtype)
    assert masks.find_empty(mask, [2, 3]) == 1  # its second choice; row 2 comes later
    assert masks.find_empty(mask, [5]) is None
    assert masks.find_empty(mask[:1], [2, 3]) is None
    assert masks.find_empty(mask[2], [2, 3]) == 0
    assert masks.find_empty(np.stack([mask[:1], mask[2:]]), [2, 3]) == 1  # [T=2, B=1, n]


@pytest.mark.parametrize("sizes", [[2, 2], [6], [5, 0]])
def test_sizes_must_add_up(sizes):
    with pytest.raises(ValueError, match=r"add up.*shape \(2, 5\)"):
        masks.find_empty(np.ones((2, 5), bool), sizes)


def test_no_row_is_empty_in_masks_that_gymnasium_samples_with():
    space = gymnasium.spaces.Discrete(3)
    mask = np.array([0, 1, 0], np.int8)
    assert masks.find_empty(mask, masks.segment_sizes(space)) is None
    assert space.sample(mask=mask) == 1
