"""Variables have names that are the same in every process: by owner and path."""

import helpers
import keras
import pytest
import tensorflow as tf
from gymnasium.spaces import Discrete

import ppo_tf
from ppo_tf.learning.naming import named_variables

ENVS = helpers.spaces(helpers.box(3), Discrete(2))


class Gain(tf.Module):
    """An estimator with a variable in a list, and a Keras layer."""

    def __init__(self):
        super().__init__()
        self.gains = [tf.Variable(1.0), tf.Variable(2.0)]
        self.layer = keras.layers.Dense(1)
        self.layer.build((None, 2))

    def __call__(self, rewards, values):
        return rewards, values


def make_learner(**options):
    learner = ppo_tf.Learner(
        helpers.make_policy(ENVS, cell="lstm"),
        helpers.make_critic(ENVS),
        estimator=Gain(),
        loss=ppo_tf.Sum([ppo_tf.Clip(), ppo_tf.KLPenalty()]),
        reward_transformation=ppo_tf.RewardScaling(),
        **options,
    )
    learner.begin_episodes(2)
    return learner


def test_names_do_not_depend_on_earlier_layers():
    first, second = make_learner(), make_learner()
    assert list(first.named_variables) == list(second.named_variables)
    # Keras' own paths do depend on them, otherwise this test would show nothing.
    paths = [[v.path for v in x.policy.variables] for x in (first, second)]
    assert paths[0] != paths[1]


def test_names_give_owner_and_path():
    learner = make_learner()
    names = {id(v): name for name, v in learner.named_variables.items()}
    layers = learner.policy.actor.encoder.layers
    dense = next(part for part in layers if isinstance(part, keras.layers.Dense))
    assert names[id(dense.kernel)] == "policy/dense/kernel"
    assert names[id(learner.objective.estimator.gains[1])] == "estimator/gains/1"
    assert names[id(learner.objective.estimator.layer.bias)] == "estimator/layer/dense/bias"
    assert names[id(learner.loss.losses[1].coefficient)] == "loss/losses/1/coefficient"
    assert names[id(learner.memories.states[0][0])] == "memory/0"
    assert "optimizer/policy/dense/kernel/momentum" in names.values()
    assert "optimizer/critic/dense/kernel/momentum" in names.values()
    assert len(names) == len(learner.variables)


def test_layers_named_by_the_user_keep_their_names():
    def model(*names):
        inputs = keras.Input((3,))
        outputs = inputs
        for name in names:
            outputs = keras.layers.Dense(3, name=name)(outputs)
        return keras.Model(inputs, outputs)

    one, other = model("first", None, "head_7"), model("head_7", None, "first")
    kernels = [n for n in named_variables({"critic": one}) if n.endswith("kernel")]
    assert kernels == ["critic/first/kernel", "critic/dense/kernel", "critic/head_7/kernel"]
    variables = named_variables({"critic": other})
    assert variables["critic/head_7/kernel"] is other.layers[1].kernel


def test_shared_variables_are_named_once():
    layer = keras.layers.Dense(2, name="trunk")
    inputs = keras.Input((3,))
    actor, critic = (keras.Model(inputs, layer(inputs)) for _ in range(2))
    assert list(named_variables({"policy": actor, "critic": critic, "loss": None})) == [
        "policy/trunk/kernel",
        "policy/trunk/bias",
    ]


@pytest.mark.parametrize("optimizer", ["Adam", "RMSprop", "Lion"])
def test_an_optimizers_variables_are_named_after_the_weights(optimizer):
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Dense(2)(inputs)))
    found = keras.optimizers.get({"class_name": optimizer, "config": {}})
    found.build(model.trainable_variables)
    names = named_variables({"policy": model, "optimizer": found})
    kept = [n for n in names if n.startswith("optimizer/policy/dense_1/kernel/")]
    assert kept
    assert {tuple(names[n].shape) for n in kept} == {(2, 2)}
