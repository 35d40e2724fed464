"""Components get the keywords that their signatures name, and what they can't get is refused."""

import functools

import keras
import pytest
import tensorflow as tf

from ppo_tf.support.keywords import Keywords, accepted, taking

OFFERED = Keywords(("rewards", "values"), ("valid",))


class Layer(keras.layers.Layer):
    def call(self, rewards, valid):
        return rewards


@pytest.mark.parametrize(
    ("component", "expected"),
    [
        (lambda rewards, values: 0, ("rewards", "values")),
        (lambda values: 0, ("values",)),
        (lambda *, valid, rewards: 0, ("rewards", "valid")),
        (lambda rewards, scale=1.0: 0, ("rewards",)),
        (lambda **keywords: 0, ("rewards", "values")),  # what comes later is for who names it
        (lambda valid, **keywords: 0, ("rewards", "values", "valid")),
        (lambda: 0, ()),
        (Layer(), ("rewards", "valid")),
        (functools.partial(lambda rewards, values, scale: 0, scale=2.0), ("rewards", "values")),
        (tf.function(lambda rewards, valid: rewards), ("rewards", "valid")),
    ],
)
def test_a_component_gets_the_keywords_that_it_names(component, expected):
    assert accepted(component, OFFERED, "estimator") == expected


@pytest.mark.parametrize(
    ("component", "wanted"),
    [
        (lambda rewards, ratios: 0, "ratios"),
        (lambda *, ratios, discounts: 0, "ratios, discounts"),
        (lambda ratios, **keywords: 0, "ratios"),
        (lambda rewards, /: 0, "rewards"),  # by position only
    ],
)
def test_what_nobody_has_is_refused_by_name(component, wanted):
    with pytest.raises(ValueError) as caught:
        accepted(component, OFFERED, "estimator")
    message = str(caught.value)
    known = "rewards, values, valid"
    start = f"The estimator needs {wanted}, but is called with keywords among {known}. "
    assert message.startswith(start)
    assert "Received: estimator=" in message


def test_values_of_other_keywords_are_left_out():
    call = taking(lambda values: values + 1, OFFERED, "estimator")
    assert call(rewards=10, values=1, valid=True) == 2
