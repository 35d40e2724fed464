"""Dropout and noise: the same for the old and the new distribution of a sample."""

import gymnasium
import helpers
import keras
import numpy as np
import pytest
import tensorflow as tf
from gymnasium.spaces import Discrete

import ppo_tf
from ppo_tf.networks import noise
from ppo_tf.networks.noise import find_noise
from ppo_tf.support import seeds

layers = keras.layers
SPACE = helpers.box(3)
LAYERS = {
    "dropout": lambda: layers.Dropout(0.4),
    "alpha_dropout": lambda: layers.AlphaDropout(0.3),
    "gaussian_dropout": lambda: layers.GaussianDropout(0.3),
    "gaussian_noise": lambda: layers.GaussianNoise(0.5),
}


class Coins(gymnasium.Env):
    """Shows three numbers, and pays for the sign of the first."""

    observation_space, action_space = SPACE, Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.shown = self.np_random.uniform(-3, 3, 3).astype(np.float32)
        return self.shown, {}

    def step(self, action):
        reward = float((self.shown[0] > 0) == action)
        return self.reset()[0], reward, True, False, {}


@pytest.fixture
def envs():
    made = gymnasium.vector.SyncVectorEnv(
        [Coins] * 2, autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP
    )
    made.reset(seed=0)
    yield made
    made.close()


def dense(units, seed, **options):
    return layers.Dense(
        units, kernel_initializer=keras.initializers.GlorotUniform(seed), name="out", **options
    )


def model(kind, *parts):
    """Observations -> tanh units -> parts -> logits or a value."""
    inputs = keras.Input((3,), name="observation")
    hidden = layers.Dense(
        8, "tanh", kernel_initializer=keras.initializers.GlorotUniform(1), name="hidden"
    )(inputs)
    for part in parts:
        hidden = part(hidden)
    if kind == "actor":
        return keras.Model(inputs, {"logits": dense(2, 2)(hidden)}, name=kind)
    return keras.Model(inputs, keras.ops.squeeze(dense(1, 3)(hidden), -1), name=kind)


def policy_of(actor):
    spec = ppo_tf.action_spec(Discrete(2))
    return ppo_tf.Policy(actor, spec.family, spec.action_map)


def learner_of(actor, critic=None, rate=0.5, **options):
    defaults = {"epochs": 1, "minibatch_size": 32, "jit_compile": False}
    return ppo_tf.Learner(
        *(policy_of(actor), critic, keras.optimizers.SGD(rate)),
        ppo_tf.RewardToGo(0.9, baseline=False),
        standardize_advantages="off",
        **{**defaults, **options},
    )


def collect(learner, envs, **options):
    return ppo_tf.VectorCollector(envs, learner.policy, 16, **options).collect()[0]


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_computes_what_keras_does_with_the_same_draw(name):
    layer = LAYERS[name]()
    rng = np.random.default_rng(0)
    x = rng.normal(size=(7, 5)).astype(np.float32)

    def by_keras(inputs):
        layer.seed_generator.state.assign([3, 4])
        return layer(inputs, training=True).numpy()

    ones = by_keras(np.ones((7, 5), np.float32))
    drawn = {
        "dropout": lambda: ones > 0,
        "alpha_dropout": lambda: ones > 0,
        "gaussian_dropout": lambda: (ones - 1) / np.sqrt(0.3 / 0.7),
        "gaussian_noise": lambda: (ones - 1) / 0.5,
    }[name]()
    made = noise._KINDS[type(layer)].apply(layer, x, drawn)
    np.testing.assert_allclose(made, by_keras(x), rtol=1e-4, atol=1e-5)
    assert np.abs(made - x).max() > 0.1


@pytest.mark.parametrize("name", LAYERS)
def test_draws_have_the_strength_that_the_layer_says(name):
    layer = LAYERS[name]()
    found = find_noise(model("actor", layer))
    (drawn,) = found.draw(np.random.default_rng(0), 500, 2)
    assert drawn.shape == (500, 2, 8)
    if drawn.dtype == bool:
        assert abs(drawn.mean() - (1 - layer.rate)) < 0.025  # four standard errors: 0.022
    else:
        assert abs(drawn.mean()) < 0.05 and abs(drawn.std() - 1) < 0.05


def test_dropout_may_drop_all():
    made = noise._KINDS[layers.Dropout].apply(layers.Dropout(1.0), np.ones(2), np.zeros(2, bool))
    assert made.numpy().tolist() == [0, 0]


@pytest.mark.parametrize("engine", ["litert", "tensorflow"])
def test_the_policy_acts_with_the_noise_of_the_trajectory(engine, envs):
    """The recorded actions follow, by hand, from the weights, the masks and the action noise."""
    learner = learner_of(model("actor", layers.Dropout(0.5), layers.GaussianNoise(0.3)))
    trajectory = collect(learner, envs, seed=5, acting=engine)
    kept, normal = trajectory.layer_noise
    assert kept.shape == normal.shape == (16, 2, 8)
    logits = logits_by_hand(learner.policy.actor, trajectory.observations, kept, normal)
    gumbel = seeds.derive_generator(5, "acting", 0).gumbel(size=logits.shape)
    np.testing.assert_array_equal(trajectory.actions, (logits + gumbel).argmax(-1))
    plain = learner.policy.parameters(helpers.merge(trajectory.observations))["logits"]
    assert np.abs(logits.reshape(-1, 2) - plain).max() > 0.1


def logits_by_hand(actor, observations, kept, normal=0.0):
    """With Dropout(0.5), then GaussianNoise(0.3)."""
    hidden, out = actor.get_layer("hidden"), actor.get_layer("out")
    units = np.tanh(observations @ hidden.kernel.numpy() + hidden.bias.numpy())
    units = units * kept / 0.5 + 0.3 * normal
    return units @ out.kernel.numpy() + out.bias.numpy()


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def test_an_update_uses_the_masks_for_both_distributions(envs):
    """Gradient and divergences by hand, from the masks of the trajectory."""
    actor = model("actor", layers.Dropout(0.5))
    learner = learner_of(actor)
    trajectory = collect(learner, envs)
    (kept,) = trajectory.layer_noise
    advantages = trajectory.rewards  # every episode has one step
    old = log_softmax(logits_by_hand(actor, trajectory.observations, kept))
    taken = np.eye(2)[trajectory.actions]
    hidden, out = actor.get_layer("hidden"), actor.get_layer("out")
    units = np.tanh(trajectory.observations @ hidden.kernel.numpy()) * kept / 0.5
    # At a ratio of 1: dL/dlogits = -A (taken - p) / n.
    d_logits = -advantages[..., None] * (taken - np.exp(old)) / 32
    expected = out.kernel.numpy() - 0.5 * np.einsum("tbi,tbj->ij", units, d_logits)

    metrics = learner.update(trajectory)
    np.testing.assert_allclose(out.kernel.numpy(), expected, rtol=1e-4, atol=1e-5)
    assert metrics["policy_loss"] == pytest.approx(-advantages.mean(), rel=1e-4)  # ratios of 1
    new = log_softmax(logits_by_hand(actor, trajectory.observations, kept))
    log_ratio = ((new - old) * taken).sum(-1)
    assert metrics["kl_k2"] == pytest.approx((0.5 * log_ratio**2).mean(), rel=1e-3)
    assert metrics["kl"] == pytest.approx((np.exp(old) * (old - new)).sum(-1).mean(), rel=1e-3)
    assert metrics["kl"] > 1e-5


def test_later_epochs_and_minibatches_keep_each_samples_masks(envs):
    """Without learning, no ratio moves: over shuffled minibatches, and with a memory."""
    learner = learner_of(model("actor", layers.Dropout(0.5)), rate=0.0, epochs=3, minibatch_size=8)
    metrics = learner.update(collect(learner, envs))
    assert metrics["kl_k2"] < 1e-12 and metrics["clip_fraction"] == 0

    encoder = model("critic", layers.Dropout(0.5))
    encoder = keras.Model(encoder.input, encoder.layers[2].output)
    head = keras.Input((4,))
    actor = ppo_tf.Recurrent(
        encoder, layers.GRUCell(4), keras.Model(head, {"logits": dense(2, 2)(head)})
    )
    learner = learner_of(actor, rate=0.0, epochs=2, minibatch_size=8, sequence_length=4)
    trajectory = collect(learner, envs)
    assert len(trajectory.layer_noise) == 1
    metrics = learner.update(trajectory)
    assert metrics["kl_k2"] < 1e-12 and metrics["clip_fraction"] == 0
    assert metrics["policy_loss"] == pytest.approx(-trajectory.rewards.mean(), rel=1e-5)


def test_a_shared_trunk_has_the_actors_masks_and_a_critic_its_own(envs):
    """The value loss by hand; V(s) for advantages and metrics has no noise."""
    drop = layers.Dropout(0.5)
    actor = model("actor", drop)
    trunk = actor.get_layer("hidden").output
    value = layers.Dense(1, kernel_initializer="ones")
    shared = keras.Model(actor.input, keras.ops.squeeze(value(drop.output), -1))
    own = keras.Model(actor.input, keras.ops.squeeze(value(layers.GaussianNoise(0.3)(trunk)), -1))
    for critic in (shared, own):
        learner = learner_of(actor, critic, rate=0.0)
        assert learner.objective.joint is not None
        trajectory = collect(learner, envs)
        units = tf.tanh(trajectory.observations @ actor.get_layer("hidden").kernel).numpy()
        if critic is shared:
            units *= trajectory.layer_noise[0] / 0.5
        else:
            full = learner.objective.with_layer_noise(trajectory, learner.seed, 0)
            assert len(full.layer_noise) == 2
            units += 0.3 * full.layer_noise[1]
        values = units @ value.kernel.numpy()[:, 0]
        metrics = learner.update(trajectory)
        expected = ((values - trajectory.rewards) ** 2).mean()
        assert metrics["value_loss"] == pytest.approx(expected, rel=1e-4)
        assert metrics["kl_k2"] < 1e-12
        quiet = critic(helpers.merge(trajectory.observations)).numpy().reshape(16, 2)
        explained = 1 - (trajectory.rewards - quiet).var() / trajectory.rewards.var()
        assert metrics["explained_variance"] == pytest.approx(explained, rel=1e-3)


def test_masks_differ_between_steps_environments_and_iterations_and_follow_from_the_seed(envs):
    learner = learner_of(model("actor", layers.Dropout(0.5)))

    def masks(**options):
        collector = ppo_tf.VectorCollector(envs, learner.policy, 16, **options)
        return [collector.collect()[0].layer_noise[0] for _ in range(2)]

    first, second = masks(seed=3)
    assert len(np.unique(np.concatenate([first, second]).reshape(64, 8), axis=0)) > 50
    np.testing.assert_array_equal(masks(seed=3, iterations=1)[0], second)  # as after a resume
    assert (masks(seed=4)[0] != first).any()


def test_models_without_noise_have_no_further_inputs():
    policy = policy_of(model("actor", layers.Dropout(0.0)))
    assert policy.layer_noise.sites == ()
    envs = helpers.spaces(SPACE, Discrete(2))
    envs.num_envs = 2
    step = ppo_tf.policies.policy_step.PolicyStep(policy, envs)
    assert step.example.noise.shape == (2, 2)  # the action's alone
    assert step.draw_layer_noise(np.random.default_rng(0), 4) == ()


def test_without_noise_given_the_layers_do_nothing(tmp_path):
    policy = policy_of(model("actor", layers.Dropout(0.5), layers.GaussianNoise(0.5)))
    plain = policy_of(model("actor"))
    seen = helpers.observe(SPACE, (4,))
    np.testing.assert_allclose(
        policy.parameters(seen)["logits"], plain.parameters(seen)["logits"], atol=1e-6
    )
    folder = ppo_tf.export_policy(policy, tmp_path / "policy")
    serve = tf.saved_model.load(folder).signatures["serving_default"]
    np.testing.assert_array_equal(serve(observation=tf.constant(seen))["action"], plain(seen))
    policy.save(tmp_path / "policy.keras")
    again = keras.saving.load_model(tmp_path / "policy.keras")
    assert [site.shape for site in again.layer_noise.sites] == [(8,), (8,)]


def test_a_layer_draws_for_each_of_its_calls_and_whole_channels_where_it_says_so():
    inputs = keras.Input((4, 4, 3))
    again = layers.Dropout(0.5)
    x = layers.SpatialDropout2D(0.5)(inputs)
    x = layers.SpatialDropout2D(0.5, data_format="channels_first")(x)
    x = layers.Dropout(0.5, noise_shape=(None, 1, 4, 3))(x)
    x = again(layers.Flatten()(x))
    actor = keras.Model(inputs, {"logits": layers.Dense(2)(again(layers.Dense(5)(x)))})
    found = find_noise(actor)
    assert [site.shape for site in found.sites] == [(1, 1, 3), (4, 1, 1), (1, 4, 3), (48,), (5,)]
    draws = found.draw(np.random.default_rng(0), 6)
    with found.given(draws):
        noisy = actor(np.ones((6, 4, 4, 3), np.float32))["logits"]
    assert np.abs(noisy - actor(np.ones((6, 4, 4, 3), np.float32))["logits"]).max() > 0
    too_few = pytest.raises(ValueError, match=r"draws for every call.*Received: 4 draws")
    with too_few, found.given(draws[:4]):
        pass


def test_a_trajectory_without_the_actors_noise_is_refused(envs):
    learner = learner_of(model("actor", layers.Dropout(0.5, name="drop")))
    trajectory = collect(learner, envs)._replace(layer_noise=())
    with pytest.raises(ValueError, match=r"layer_noise must have .*'drop'.*Received: 0 draws"):
        learner.update(trajectory)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.Dropout(0.5, noise_shape=(1, 8), name="drop"),
        lambda: keras.Sequential([layers.Reshape((4, 2)), Folded(), layers.Flatten()]),
    ],
    ids=["one_mask_for_all", "rows_folded_into_the_batch"],
)
def test_noise_that_is_not_drawn_per_row_is_refused(layer):
    actor = model("actor", layer())
    with pytest.raises(ValueError, match=r"must draw for each row.*Received: the layer 'drop'"):
        learner_of(actor)


class Folded(layers.Layer):
    """Applies Dropout to [rows * 4, 2]."""

    def __init__(self):
        super().__init__()
        self.drop = layers.Dropout(0.5, name="drop")

    def call(self, x):
        return keras.ops.reshape(self.drop(keras.ops.reshape(x, (-1, 2))), (-1, 4, 2))


def test_noise_within_a_recurrent_layer_is_refused():
    inputs = keras.Input((4, 3))
    per_step = layers.TimeDistributed(layers.Dropout(0.5, name="drop"))(inputs)
    actor = keras.Model(inputs, {"logits": layers.Dense(2)(layers.Flatten()(per_step))})
    with pytest.raises(ValueError, match=r"Dropout is noisy.*actor with the layer 'drop'"):
        learner_of(actor)


def test_a_subclassed_model_with_noise_must_say_what_it_observes():
    class Actor(keras.Model):
        def __init__(self):
            super().__init__()
            self.drop, self.out = layers.Dropout(0.5, name="drop"), layers.Dense(2)

        def call(self, x):
            return {"logits": self.out(self.drop(x))}

    actor = Actor()
    actor(np.zeros((1, 3), np.float32))
    with pytest.raises(ValueError, match=r"must say the shape.*with the layer 'drop'"):
        learner_of(actor)


def test_a_policy_with_noise_learns(envs):
    actor = model("actor", layers.Dropout(0.3), layers.GaussianNoise(0.2))
    learner = ppo_tf.Learner(
        *(policy_of(actor), model("critic", layers.Dropout(0.1)), keras.optimizers.Adam(0.02)),
        **{"epochs": 4, "minibatch_size": 32, "jit_compile": False},
    )
    ppo_tf.fit(learner, envs, total_steps=20 * 64, horizon=32)
    shown = helpers.observe(SPACE, (200,), seed=1)
    right = learner.policy(shown).numpy() == (shown[:, 0] > 0)
    assert right.mean() > 0.9
