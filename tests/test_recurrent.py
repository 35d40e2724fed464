"""Recurrent models: against Keras' own layers, across episode ends, rollouts and updates."""

import dataclasses

import gymnasium
import helpers
import keras
import numpy as np
import pytest
import tensorflow as tf

import ppo_tf
from ppo_tf.networks import recurrent

Box, Discrete = gymnasium.spaces.Box, gymnasium.spaces.Discrete
SPACES = helpers.spaces(helpers.box(3), Discrete(3))
CELLS = {
    "lstm": lambda: keras.layers.LSTMCell(5, seed=1),
    "gru": lambda: keras.layers.GRUCell(5, seed=1),
    "gru_without_bias": lambda: keras.layers.GRUCell(5, use_bias=False, seed=1),
    "gru_reset_before": lambda: keras.layers.GRUCell(5, reset_after=False, seed=1),
    "simple": lambda: keras.layers.SimpleRNNCell(5, seed=1),
    "stacked": lambda: keras.layers.StackedRNNCells(
        [keras.layers.LSTMCell(4, seed=1), keras.layers.GRUCell(5, seed=2)]
    ),
}
STEPS, BATCH = 7, 4


def make_model(cell="lstm", outputs=3, features=6):
    """Dense encoder -> cell -> dense head; a critic if outputs is 0 or None."""
    inputs = keras.Input((3,))
    encoded = keras.layers.Dense(features, "tanh", bias_initializer="ones")(inputs)
    top = keras.Input((5,))
    head = keras.layers.Dense(outputs or 1)(top)
    head = {"logits": head} if outputs else keras.ops.squeeze(head, -1)
    return recurrent.Recurrent(
        keras.Model(inputs, encoded), CELLS[cell](), keras.Model(top, head), name="memory"
    )


def make_learner(cell="lstm", **options):
    policy = ppo_tf.Policy(make_model(cell), _categorical(), ppo_tf.DiscreteAction())
    options = {"epochs": 2, "minibatch_size": 8, "sequence_length": 4, **options}
    return ppo_tf.Learner(policy, make_model(cell, None), **options)


def _categorical():
    import tensorflow_probability as tfp

    return tfp.distributions.Categorical


def data(seed=0, end=0.3):
    rng = np.random.default_rng(seed)
    observations = rng.normal(size=(STEPS, BATCH, 3)).astype(np.float32)
    starts = rng.random((STEPS, BATCH)) < end
    state = [rng.normal(size=s.shape).astype(np.float32) for s in make_model().initial_state(BATCH)]
    return observations, starts, state


@pytest.mark.parametrize("cell", ["lstm", "gru", "gru_without_bias", "gru_reset_before", "simple"])
def test_a_sequence_without_ends_is_what_keras_computes(cell):
    model = make_model(cell)
    observations, starts, state = data(end=0.0)
    state = state[: len(model.initial_state(BATCH))]
    layer = keras.layers.RNN(model.cell, return_sequences=True, return_state=True)
    features = model.encoder(observations.reshape(-1, 3)).numpy().reshape(STEPS, BATCH, -1)
    sequence, *last = layer(features.swapaxes(0, 1), initial_state=state)
    expected = model.head(sequence.numpy().swapaxes(0, 1).reshape(STEPS * BATCH, -1))["logits"]
    outputs, states = model.unroll(observations, state, starts)
    np.testing.assert_allclose(
        outputs["logits"].numpy().reshape(STEPS * BATCH, -1), expected, rtol=1e-5, atol=1e-6
    )
    for part, final in zip(states, last, strict=True):
        np.testing.assert_allclose(part[-1], final, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("cell", CELLS)
def test_unrolling_equals_stepping_with_the_state_reset_at_starts(cell):
    model = make_model(cell)
    observations, starts, _ = data()
    initial = [s + 0.5 for s in model.initial_state(BATCH)]
    outputs, states = model.unroll(observations, initial, starts)
    for env in range(BATCH):
        state = [s[env : env + 1] for s in initial]
        for t in range(STEPS):
            if starts[t, env]:
                state = model.initial_state(1)
            output, state = model(observations[t, env : env + 1], state)
            np.testing.assert_allclose(
                outputs["logits"][t, env], output["logits"][0], rtol=1e-5, atol=1e-6
            )
            for part, now in zip(states, state, strict=True):
                np.testing.assert_allclose(part[t, env], now[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("cell", CELLS)
def test_a_model_round_trips_through_keras(cell, tmp_path):
    policy = ppo_tf.Policy(make_model(cell), _categorical(), ppo_tf.DiscreteAction())
    policy.save(tmp_path / "policy.keras")
    loaded = keras.saving.load_model(tmp_path / "policy.keras")
    observations, starts, _ = data()
    state = policy.initial_state(BATCH)
    for one, other in zip(
        tf.nest.flatten(policy.unroll(observations, state, starts)),
        tf.nest.flatten(loaded.unroll(observations, state, starts)),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


def test_sequences_keep_their_steps_and_their_first_states():
    from ppo_tf import ops
    from ppo_tf.learning import batch

    steps, envs, length = 6, 2, 3
    x = tf.reshape(tf.range(steps * envs), (steps, envs))
    cut = ops.to_sequences(x, length).numpy()
    assert cut.shape == (3, 4)
    np.testing.assert_array_equal(cut[:, 0], [0, 2, 4])  # environment 0, steps 0 to 2
    np.testing.assert_array_equal(cut[:, 1], [1, 3, 5])
    np.testing.assert_array_equal(cut[:, 2], [6, 8, 10])  # environment 0, steps 3 to 5
    states = [tf.cast(x[..., None], tf.float32)]
    first = batch.first_states([tf.constant([[-1.0], [-2.0]])], states, length)[0]
    np.testing.assert_array_equal(first[:, 0], [-1, -2, 4, 5])  # before steps 0 and 3


@pytest.mark.parametrize(("cell", "horizon"), [("lstm", 16), ("gru", 8)])
def test_the_first_ratio_is_one_across_rollouts_and_episode_ends(cell, horizon):
    """Acting and learning agree on the states across rollouts: the divergence starts at 0."""
    envs = ppo_tf.make_envs("CartPole-v1", 2, seed=1, backend="sync")
    learner = _cartpole_learner(cell)
    collector = ppo_tf.VectorCollector(envs, learner.policy, horizon)
    state = [np.zeros(s.shape, np.float32) for s in learner.policy.initial_state(2)]
    ends = 0
    for _ in range(64 // horizon):  # enough steps for an episode to end, whatever the policy
        trajectory, _ = collector.collect()
        ends += int((trajectory.terminated | trajectory.truncated).sum())
        _, states = learner.policy.unroll(trajectory.observations, state, trajectory.starts)
        learner.update(trajectory)
        state = [s[-1].numpy() for s in states]
        for mine, kept, acted in zip(
            state, learner.memories.states[0], collector.acting.engine.state, strict=True
        ):
            np.testing.assert_allclose(mine, kept, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(mine, acted, rtol=1e-4, atol=1e-5)
    assert ends > 0


def _cartpole_learner(cell):
    def model(outputs):
        inputs = keras.Input((4,))
        encoded = keras.layers.Dense(6, "tanh")(inputs)
        top = keras.Input((5,))
        head = keras.layers.Dense(outputs or 1)(top)
        head = {"logits": head} if outputs else keras.ops.squeeze(head, -1)
        return recurrent.Recurrent(
            keras.Model(inputs, encoded), CELLS[cell](), keras.Model(top, head)
        )

    policy = ppo_tf.Policy(model(2), _categorical(), ppo_tf.DiscreteAction())
    return ppo_tf.Learner(
        policy,
        model(None),
        keras.optimizers.Adam(1e-2),
        epochs=2,
        minibatch_size=16,
        sequence_length=8,
        jit_compile=False,
    )


def test_the_value_of_a_successor_continues_from_the_state_before_it():
    """V(s') at the end of a truncated episode sees the whole episode, not the next one."""
    learner = make_learner()
    trajectory = helpers.trajectory(
        SPACES, ppo_tf.Policy(make_plain_actor(), _categorical(), ppo_tf.DiscreteAction())
    )
    observations = tf.constant(trajectory.observations)
    state = learner.critic.initial_state(2)
    _, states = learner.critic.unroll(observations, state, trajectory.starts)
    seen = {}

    def spy(**arguments):
        seen.update(arguments)
        return ppo_tf.GAE()(**arguments)

    objective = dataclasses.replace(learner.objective, estimator=spy)
    objective.estimate(
        ppo_tf.Trajectory(*map(tf.convert_to_tensor, trajectory)),
        tf.constant(trajectory.rewards),
        state,
    )
    for t in range(8):
        for env in range(2):
            here = [s[t, env][None] for s in states]
            value, _ = learner.critic(trajectory.next_observations[t, env][None], here)
            np.testing.assert_allclose(seen["next_values"][t, env], value[0], rtol=1e-5, atol=1e-6)


def make_plain_actor():
    inputs = keras.Input((3,))
    return keras.Model(inputs, {"logits": keras.layers.Dense(3)(inputs)})


@pytest.mark.parametrize("cell", CELLS)
def test_gradients_of_a_sequence_equal_those_of_its_steps(cell):
    model = make_model(cell)
    observations, starts, _ = data()
    initial = [tf.constant(s + 0.5) for s in model.initial_state(BATCH)]
    rng = np.random.default_rng(1)
    weights = rng.normal(size=(STEPS, BATCH, 3)).astype(np.float32)
    sources = [tf.constant(observations), initial, [v.value for v in model.trainable_variables]]

    def loss(stepwise):
        if not stepwise:
            outputs, states = model.unroll(sources[0], initial, starts)
            outputs = outputs["logits"]
            last = [s[-1] for s in states]
        else:
            last, outputs = initial, []
            for t in range(STEPS):
                last = [tf.where(starts[t][:, None], 0.0, s) for s in last]
                output, last = model(sources[0][t], last)
                outputs.append(output["logits"])
            outputs = tf.stack(outputs)
        return tf.reduce_sum(outputs * weights) + sum(tf.reduce_sum(s**2) for s in last)

    gradients = []
    for stepwise in (False, True):
        with tf.GradientTape() as tape:
            tape.watch(sources[:2])
            value = loss(stepwise)
        gradients.append(tape.gradient(value, sources))
    for one, other in zip(*map(tf.nest.flatten, gradients), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_gradients_reach_back_through_a_sequence_but_no_further():
    model = make_model()
    observations, starts, state = data(end=0.0)
    x = tf.constant(observations)
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs, _ = model.unroll(x, state, starts)
        last = tf.reduce_sum(outputs["logits"][-1])
    assert np.abs(tape.gradient(last, x)[0]).min() > 0.0  # from the last step to the first
    starts[3] = True
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs, _ = model.unroll(x, state, starts)
        last = tf.reduce_sum(outputs["logits"][-1])
    gradient = np.abs(tape.gradient(last, x))
    assert gradient[:3].max() == 0.0 and gradient[3].min() > 0.0


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"sequence_length": 0},
            r"sequence_length must be at least 1. Received: sequence_length=0",
        ),
        (
            {"sequence_length": 3, "minibatch_size": 6},
            r"sequence_length must divide the horizon and minibatch_size. "
            r"Received: sequence_length=3, horizon=8, minibatch_size=6",
        ),
        ({"minibatch_size": 6}, r"sequence_length=4, horizon=8, minibatch_size=6"),
    ],
)
def test_bad_sequence_lengths_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make_learner(**options).check_batch(8, 2)


def test_a_missing_leaf_is_named():
    inputs = {"a": keras.Input((2,), name="a"), "b": keras.Input((2,), name="b")}
    model = keras.Model(inputs, keras.ops.concatenate([inputs["a"], inputs["b"]]), name="both")
    with pytest.raises(ValueError, match=r"both needs .*\['a', 'b'\].*Received: \['a', 'c'\].*'b'"):
        recurrent.forward(model, {"a": np.zeros((1, 2)), "c": np.zeros((1, 2))})
