"""Update rules as components: a custom one, and what the learner does around it."""

from dataclasses import dataclass

import helpers
import keras
import numpy as np
import pytest
import tensorflow as tf
from gymnasium.spaces import Discrete

import ppo_tf
from ppo_tf.learning.updates.minibatch import total_loss

pytestmark = pytest.mark.usefixtures("eager")

ENVS = helpers.spaces(helpers.box(3), Discrete(2))


@dataclass(frozen=True)
class FullBatch:
    """`steps` gradient steps on the whole batch."""

    steps: int = 1

    def check(self, objective):
        if objective.critic is None:
            raise ValueError("FullBatch needs a critic. Received: critic=None")

    def check_batch(self, horizon, num_envs, sequence_length):
        pass

    def draw(self, sequences, sequence_length, seed, iteration):
        return {"rows": np.arange(sequences, dtype=np.int32)}

    def __call__(self, batch, objective, variables, optimizer, draws):
        step = tf.constant(0)
        while step < self.steps:  # converted by AutoGraph, as in MinibatchUpdate
            with tf.GradientTape() as tape:
                loss, _ = total_loss(objective, batch.take(draws["rows"]))
            optimizer.apply(tape.gradient(loss, [v.value for v in variables]), variables)
            step += 1
        return {"loss": loss * 1.0, "steps": step}


def make_learner(**options):
    options = {"optimizer": keras.optimizers.SGD(0.1), "jit_compile": False, **options}
    return ppo_tf.Learner(helpers.make_policy(ENVS), helpers.make_critic(ENVS), **options)


@pytest.mark.usefixtures("graphs")
def test_a_custom_rule_plugs_in():
    learner = make_learner(update_rule=FullBatch(3))
    data = helpers.trajectory(ENVS, learner.policy)
    before = helpers.numbers(learner)
    metrics = learner.update(data)
    assert metrics["steps"] == 3
    assert {"loss", "kl", "entropy", "explained_variance", "learning_rate"} <= metrics.keys()
    assert "epochs" not in metrics
    assert metrics["kl"] > 0
    assert any((a != b).any() for a, b in zip(before, helpers.numbers(learner), strict=True))


def test_one_minibatch_of_all_samples_equals_the_full_batch():
    samples = 16
    rules = (FullBatch(), ppo_tf.MinibatchUpdate(epochs=1, minibatch_size=samples))
    results = []
    for rule in rules:
        learner = make_learner(update_rule=rule)
        learner.update(helpers.trajectory(ENVS, learner.policy))
        results.append([v.numpy() for v in learner.trained])
    helpers.assert_close(*results, rtol=1e-5, atol=1e-7)


def test_the_shorthand_creates_the_same_rule():
    options = {"epochs": 3, "minibatch_size": 8, "recompute_advantages": True}
    learner = make_learner(**options, early_stopping_kl=0.5)
    assert learner.update_rule == ppo_tf.MinibatchUpdate(**options, early_stopping_kl=0.5)


def test_a_rule_cannot_be_combined_with_minibatch_options():
    with pytest.raises(ValueError, match=r"epochs cannot be combined.*'epochs': 4"):
        make_learner(update_rule=FullBatch(), epochs=4)


def test_unknown_options_are_refused():
    with pytest.raises(TypeError, match="epoch"):
        make_learner(epoch=4)


def test_a_rule_refuses_an_objective_it_cannot_improve():
    with pytest.raises(ValueError, match="FullBatch needs a critic"):
        ppo_tf.Learner(helpers.make_policy(ENVS), update_rule=FullBatch())


@pytest.mark.usefixtures("graphs")
def test_an_update_of_a_custom_rule_is_undone_too():
    @dataclass(frozen=True)
    class Explodes(FullBatch):
        def __call__(self, batch, objective, variables, optimizer, draws):
            for variable in variables:
                variable.assign(variable * np.nan)
            return {"loss": tf.constant(1.0)}

    learner = make_learner(update_rule=Explodes())
    before = helpers.numbers(learner)
    with pytest.raises(ppo_tf.NonFiniteError, match="iteration 0: kl_k1 became nan"):
        learner.update(helpers.trajectory(ENVS, learner.policy))
    for a, b in zip(helpers.numbers(learner), before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("name", "component"),
    [
        ("estimator", lambda rewards, ratios: (rewards, rewards)),
        ("loss", lambda new_dist, ratios: (0.0, {})),
        ("value_loss", lambda values, ratios: values),
        ("reward_transformation", lambda rewards, ratios: rewards),
    ],
)
def test_a_component_that_needs_an_unknown_argument_is_refused_at_once(name, component):
    with pytest.raises(ValueError, match=f"The {name} needs ratios, but is called with"):
        make_learner(**{name: component})


def test_the_parts_of_a_sum_are_checked_at_construction():
    with pytest.raises(ValueError, match="The loss needs ratios, but is called with"):
        ppo_tf.Sum([ppo_tf.Clip(), lambda new_dist, ratios: (0.0, {})])


def test_components_get_further_arguments_if_they_name_them():
    seen = {}

    def estimator(rewards, values, starts, valid):
        seen.update(starts=starts, valid=valid)
        return rewards - values, rewards

    def loss(new_dist, actions, observations, valid):
        seen.update(observations=observations)
        return -new_dist.log_prob(actions), {}

    def transformation(rewards, observations, next_observations):
        seen["reward"] = rewards
        return rewards + tf.reduce_sum(next_observations - observations, -1)

    learner = make_learner(
        estimator=estimator,
        loss=ppo_tf.Sum([loss, ppo_tf.EntropyBonus(0.01)]),
        reward_transformation=transformation,
        epochs=1,
        minibatch_size=8,
    )
    data = helpers.trajectory(ENVS, learner.policy)
    learner.update(data)
    assert seen["starts"].shape == seen["valid"].shape == seen["reward"].shape == (8, 2)
    assert seen["observations"].shape == (8, 3)


def test_reward_transformations_get_the_trajectory():
    """A bonus for the next observation, worked by hand through a one-step advantage."""
    bonus = []

    def transformation(rewards, next_observations):
        return rewards + 2.0 * next_observations[..., 0]

    def estimator(rewards, values):
        bonus.append(rewards)
        return rewards, rewards

    learner = make_learner(
        estimator=estimator, reward_transformation=transformation, epochs=1, minibatch_size=8
    )
    data = helpers.trajectory(ENVS, learner.policy)
    tf.config.run_functions_eagerly(True)
    try:
        learner.update(data)
    finally:
        tf.config.run_functions_eagerly(False)
    expected = np.where(data.valid, data.rewards + 2.0 * data.next_observations[..., 0], 0.0)
    np.testing.assert_allclose(bonus[0], expected, rtol=1e-6)


class Adaptive(tf.Module):
    """An estimator, or a value loss, that counts its calls."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.seen = tf.Variable(0.0)

    def __call__(self, rewards=None, values=None, targets=None):
        self.seen.assign_add(1.0)
        if self.kind == "estimator":
            return rewards - values, rewards
        return (values - targets) ** 2


@pytest.mark.parametrize("kind", ["estimator", "value_loss"])
def test_variables_of_any_component_are_undone_and_checkpointed(kind):
    component = Adaptive(kind)
    learner = make_learner(**{kind: component}, epochs=1, minibatch_size=8)
    assert learner.named_variables[f"{kind}/seen"] is component.seen
    data = helpers.trajectory(ENVS, learner.policy)
    learner.update(data)
    after = component.seen.numpy()
    assert after >= 1.0
    bad = data._replace(rewards=np.full_like(data.rewards, np.nan))
    with pytest.raises(ppo_tf.NonFiniteError):
        learner.update(bad)
    assert component.seen.numpy() == after


@pytest.mark.usefixtures("graphs")
def test_a_loss_is_called_once_per_graph():
    """Not a second time to find out its metrics."""
    calls = []

    def loss(new_dist, actions):
        calls.append(1)
        return -new_dist.log_prob(actions), {"mine": tf.constant(2.0)}

    learner = make_learner(loss=loss, epochs=3, minibatch_size=8)
    metrics = learner.update(helpers.trajectory(ENVS, learner.policy))
    assert metrics["mine"] == 2.0
    assert len(calls) == 1
