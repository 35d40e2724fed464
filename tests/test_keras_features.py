"""What Keras offers beside layers: honoured by the learner, or refused by name."""

import helpers
import keras
import numpy as np
import pytest
import tensorflow as tf
from gymnasium.spaces import Discrete

import ppo_tf

pytestmark = pytest.mark.usefixtures("eager")

ENVS = helpers.spaces(helpers.box(3), Discrete(2))


def make_model(*layers, outputs, name):
    inputs = keras.Input((3,), name="observation")
    features = inputs
    for layer in layers:
        features = layer(features)
    result = keras.layers.Dense(outputs, name="out")(features)
    if name == "critic":
        return keras.Model(inputs, keras.ops.squeeze(result, -1), name=name)
    return keras.Model(inputs, {"logits": result}, name=name)


def make_learner(*layers, critic_layers=(), **options):
    spec = ppo_tf.action_spec(ENVS.single_action_space)
    actor = make_model(*layers, outputs=2, name="actor")
    options = {"epochs": 1, "minibatch_size": 16, "jit_compile": False, **options}
    return ppo_tf.Learner(
        ppo_tf.Policy(actor, spec.family, spec.action_map),
        make_model(*critic_layers, outputs=1, name="critic"),
        **options,
    )


def dense(**options):
    return keras.layers.Dense(4, kernel_initializer=keras.initializers.GlorotUniform(1), **options)


def test_regularizers_are_added_to_the_loss():
    """By hand: one step of SGD on the whole batch moves a kernel by 2 c K more."""
    kernels, metrics = [], []
    for regularizer in (None, keras.regularizers.L2(0.1)):
        learner = make_learner(
            dense(kernel_regularizer=regularizer), optimizer=keras.optimizers.SGD(0.5)
        )
        start = learner.policy.actor.layers[1].kernel.numpy()
        learner.policy.actor.get_layer("out").kernel.assign(np.ones((4, 2)))
        metrics.append(learner.update(helpers.trajectory(ENVS, learner.policy)))
        kernels.append(learner.policy.actor.layers[1].kernel.numpy())
    assert "model_loss" not in metrics[0]
    assert metrics[1]["model_loss"] == pytest.approx(0.1 * (start**2).sum(), rel=1e-5)
    losses = [m["policy_loss"] + 0.5 * m["value_loss"] + m.get("model_loss", 0.0) for m in metrics]
    assert [m["loss"] for m in metrics] == pytest.approx(losses, rel=1e-5)
    np.testing.assert_allclose(kernels[1], kernels[0] - 0.5 * 2 * 0.1 * start, atol=1e-5)


@keras.saving.register_keras_serializable("tests")
class Activity(keras.layers.Layer):
    """Adds the mean square of what it sees as a loss."""

    def call(self, x):
        self.add_loss(tf.reduce_mean(x**2))
        return x


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.usefixtures("graphs")
def test_losses_that_layers_add_are_those_of_the_minibatch(jit_compile):
    learner = make_learner(Activity(), critic_layers=[Activity()], jit_compile=jit_compile)
    data = helpers.trajectory(ENVS, learner.policy)
    metrics = learner.update(data)
    assert metrics["model_loss"] == pytest.approx(2 * (data.observations**2).mean(), rel=1e-5)


class OwnDropout(keras.layers.Dropout):
    """May compute anything."""


@pytest.mark.parametrize(
    "layer",
    [
        OwnDropout(0.1),
        keras.layers.BatchNormalization(),
        keras.layers.SpectralNormalization(keras.layers.Dense(3)),
    ],
    ids=lambda layer: type(layer).__name__,
)
@pytest.mark.parametrize("argument", ["actor", "critic"])
def test_layers_that_would_do_nothing_are_refused_by_name(layer, argument):
    layers = {"actor": [layer], "critic": []} if argument == "actor" else {"critic": [layer]}
    with pytest.raises(ValueError) as caught:
        make_learner(*layers.get("actor", []), critic_layers=layers["critic"])
    message = str(caught.value)
    assert message.startswith(type(layer).__name__)
    assert f"Received: {argument} with the layer {layer.name!r}" in message


def test_a_cell_with_dropout_is_refused():
    cell = keras.layers.LSTMCell(4, recurrent_dropout=0.2)
    policy = ppo_tf.recurrent_policy(ENVS, cell=cell, hidden_sizes=(4,))
    with pytest.raises(ValueError, match=r"LSTMCell is noisy while training.*Received: actor"):
        ppo_tf.Learner(policy, helpers.make_critic(ENVS))


def test_dropout_that_drops_nothing_is_fine():
    learner = make_learner(keras.layers.Dropout(0.0))
    metrics = learner.update(helpers.trajectory(ENVS, learner.policy))
    assert metrics["kl"] > 0


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam()),
        lambda: keras.optimizers.Adam(loss_scale_factor=128.0),
    ],
)
def test_optimizers_that_want_a_scaled_loss_are_refused(optimizer):
    with pytest.raises(ValueError, match=r"(?i)loss.*scale.*Received: optimizer"):
        make_learner(optimizer=optimizer())


class Data:
    """The same trajectory again and again."""

    horizon, num_envs = 8, 2

    def __init__(self, learner):
        self.trajectory = helpers.trajectory(ENVS, learner.policy)

    def collect(self):
        return self.trajectory, []


def test_fit_ends_with_the_averages_of_an_optimizer_with_ema():
    learner = make_learner(dense(), optimizer=keras.optimizers.SGD(0.1, use_ema=True))
    kernel, seen = learner.policy.actor.layers[1].kernel, []
    watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: seen.append(kernel.numpy()))
    ppo_tf.fit(learner, Data(learner), total_steps=48, callbacks=[watch])
    average = seen[0]  # Keras starts from the weights after the first step
    for value in seen[1:]:
        average = 0.99 * average + 0.01 * value  # Keras' default momentum
    assert abs(average - seen[-1]).max() > 1e-4
    np.testing.assert_allclose(kernel.numpy(), average, atol=1e-6)


@pytest.mark.usefixtures("graphs")
def test_freezing_and_thawing_a_layer_takes_effect():
    learner = make_learner(dense())
    layer = learner.policy.actor.layers[1]
    data = helpers.trajectory(ENVS, learner.policy)
    moved = []
    for trainable in (True, False, True):
        layer.trainable = trainable
        before = layer.kernel.numpy()
        learner.update(data)
        moved.append(bool((layer.kernel.numpy() != before).any()))
    assert moved == [True, False, True]


def test_an_entropy_bonus_of_zero_takes_any_distribution():
    loss, _ = ppo_tf.EntropyBonus(0.0)(
        new_dist=object(), old_dist=None, actions=None, advantages=tf.ones([3])
    )
    assert loss.numpy().tolist() == [0, 0, 0]


def test_a_second_fit_forgets_the_episodes_of_the_first():
    envs = ppo_tf.make_envs("CartPole-v1", 2, backend="sync")
    learner = ppo_tf.Learner(
        helpers.make_policy(envs),
        helpers.make_critic(envs),
        reward_transformation=ppo_tf.RewardScaling(),
        epochs=1,
        minibatch_size=8,
        jit_compile=False,
    )
    ppo_tf.fit(learner, envs, total_steps=8, horizon=4)
    running = learner.reward_transformation.running
    assert running.numpy().all()
    seen = []
    spy = keras.callbacks.LambdaCallback(on_epoch_begin=lambda *_: seen.append(running.numpy()))
    ppo_tf.fit(learner, envs, total_steps=8, horizon=4, callbacks=[spy])
    assert not seen[0].any()
    envs.close()


def test_another_number_of_environments_is_refused():
    learner = make_learner(dense(), reward_transformation=ppo_tf.RewardScaling())
    learner.begin_episodes(2)
    with pytest.raises(ValueError, match=r"of 2 environments. Received: num_envs=3"):
        learner.begin_episodes(3)
    plain = make_learner(dense())  # carries nothing
    plain.begin_episodes(2)
    plain.begin_episodes(3)


def test_a_schedule_that_has_ended_is_said():
    schedule = keras.optimizers.schedules.PolynomialDecay(0.1, 2, 0.0)
    learner = make_learner(dense(), optimizer=keras.optimizers.SGD(schedule))
    ppo_tf.fit(learner, Data(learner), total_steps=32)
    with pytest.warns(UserWarning, match="The learning rate is 0, so nothing will be learned"):
        ppo_tf.fit(learner, Data(learner), total_steps=32)
