"""Both ways to act: the same distribution, the present weights, and a choice that says why."""

import itertools

import gymnasium
import helpers
import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from gymnasium.spaces import Box, Discrete, MultiBinary

import ppo_tf
from ppo_tf.actions.distributions import noise_of
from ppo_tf.policies import acting, litert_conversion
from ppo_tf.policies.litert_engine import LiteRTEngine
from ppo_tf.support import seeds

BATCH = 6
ENGINES = ("litert", "tensorflow")
NONE = np.zeros(BATCH, bool)  # no episode starts


def environments(observation_space, action_space):
    envs = helpers.spaces(observation_space, action_space)
    envs.num_envs = BATCH
    return envs


DISCRETE = environments(helpers.box(3), Discrete(3))
BOX = environments(helpers.box(3), Box(-2.0, 2.0, (2,)))
CASES = {
    "discrete": (DISCRETE, {}),
    "discrete_start": (environments(helpers.box(3), Discrete(4, start=-2)), {}),
    "box_clip": (BOX, {}),
    "box_tanh": (BOX, {"continuous": "tanh_gaussian"}),
    "scale_of_the_state": (BOX, {"state_dependent_scale": True}),
    "not_normalized": (BOX, {"normalize": False}),
    "observations_discrete": (environments(Discrete(5, start=3), Discrete(3)), {}),
    "observations_uint8": (environments(Box(0, 255, (2, 2, 3), np.uint8), Discrete(3)), {}),
    "observations_float64": (environments(Box(-1.0, 1.0, (2, 3), np.float64), Discrete(3)), {}),
    "observations_float16": (environments(Box(-1.0, 1.0, (3,), np.float16), Discrete(3)), {}),
    "box_float64": (environments(helpers.box(3), Box(-0.1, 0.7, (2,), np.float64)), {}),
    "box_float16": (environments(helpers.box(3), Box(-0.1, 0.7, (2,), np.float16)), {}),
    "multi_discrete": (environments(helpers.box(3), helpers.MULTI_DISCRETE), {}),
    "multi_binary": (environments(helpers.box(3), MultiBinary((2, 2))), {}),
    "full_covariance": (BOX, {"continuous": "full_covariance"}),
    "gsde": (BOX, {"continuous": "gsde"}),
    "hybrid": (environments(helpers.box(3), helpers.HYBRID), {}),
    "observations_nested": (environments(helpers.NESTED, Discrete(3)), {}),
    "observations_excluded": (environments(helpers.NESTED, Discrete(3)), {"exclude": ["arm"]}),
    "image": (environments(Box(0, 255, (3, 16, 16), np.uint8), Discrete(3)), {}),
    "masked": (environments(helpers.masked(Discrete(3)), Discrete(3)), {}),
}


def away_from_zero(policy):
    """Moves the weights away from the tiny outputs of the initialisation."""
    for i, variable in enumerate(policy.actor.variables):
        if variable.dtype == "float32":
            change = tf.random.stateless_normal(variable.shape, [i, 2]) ** 2 * 0.3
            variable.assign(variable + change)


def parameters_of(policy, envs):
    """The distribution's parameters for some observations: what shapes its noise."""
    return policy.parameters(helpers.seen(envs.single_observation_space, (BATCH,)))


@pytest.mark.parametrize("name", CASES)
def test_litert_computes_what_keras_does(name):
    envs, options = CASES[name]
    policy = helpers.make_policy(envs, **options)
    away_from_zero(policy)
    engine = acting.make_acting(policy, envs, "litert")
    engine.begin(3, seed=1, iteration=0)
    noise = noise_of(policy.family)
    drawn = noise.draw(seeds.derive_generator(1, "acting", 0), 3, parameters_of(policy, envs))
    for step in range(3):
        observations = helpers.seen(envs.single_observation_space, (BATCH,), seed=step)
        raw, action = engine(observations, step, NONE)
        noise_of_step = tf.nest.map_structure(lambda x: tf.constant(x[step]), drawn)  # noqa: B023
        expected = noise.from_noise(policy.parameters(observations), noise_of_step)
        helpers.assert_close(raw, expected, rtol=1e-4, atol=1e-5)
        helpers.assert_close(action, policy.action_map(expected), rtol=1e-4, atol=1e-5)
        assert helpers.contained(envs.single_action_space, action)


@pytest.mark.parametrize("name", ["box_clip", "gsde", "hybrid", "observations_nested", "masked"])
def test_both_engines_make_the_same_of_the_same_noise(name):
    envs, options = CASES[name]
    policy = helpers.make_policy(envs, **options)
    away_from_zero(policy)
    made = {}
    for engine in ENGINES:
        act = acting.make_acting(policy, envs, engine)
        act.begin(6, seed=1, iteration=0)
        observations = [
            helpers.seen(envs.single_observation_space, (BATCH,), seed) for seed in range(6)
        ]
        made[engine] = [act(o, step, NONE) for step, o in enumerate(observations)]
    for one, other in zip(made["litert"], made["tensorflow"], strict=True):
        helpers.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_state_dependent_noise_is_held_for_its_period_and_drawn_anew_by_each_rollout():
    policy = helpers.make_policy(BOX, continuous="gsde", sde_period=3)
    observations = helpers.observe(BOX.single_observation_space, (BATCH,))
    for engine in ENGINES:
        act = acting.make_acting(policy, BOX, engine)
        raw = []
        for iteration in range(2):
            act.begin(5, seed=0, iteration=iteration)
            raw += [act(observations, step, NONE)[0] for step in range(5)]
        changes = [bool((a != b).all()) for a, b in itertools.pairwise(raw)]
        assert changes == [False, False, True, False, True, False, False, True, False]
        held = [bool((a == b).all()) for a, b in itertools.pairwise(raw)]
        assert held == [not change for change in changes]


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_memory_is_kept_from_step_to_step_and_emptied_where_episodes_start(cell, engine):
    policy = helpers.make_policy(DISCRETE, cell=cell)
    away_from_zero(policy)
    act = acting.make_acting(policy, DISCRETE, engine)
    assert act.description.startswith("LiteRT" if engine == "litert" else "TensorFlow")
    state = policy.initial_state(BATCH)
    for iteration in range(2):
        act.begin(3, seed=1, iteration=iteration)
        for step in range(3):
            observations = helpers.observe(DISCRETE.single_observation_space, (BATCH,), seed=step)
            starts = np.arange(BATCH) == step
            act(observations, step, starts)
            state = [tf.where(starts[:, None], 0.0, s) for s in state]
            _, state = policy.step(observations, state)
            for kept, expected in zip(act.engine.state, state, strict=True):
                np.testing.assert_allclose(kept, expected, rtol=1e-5, atol=1e-6)
    assert np.abs(state[0]).max() > 0.01


class Floats(gymnasium.Env):
    """Observes (0.1, 0.2) and acts in a Box, both of one dtype; keeps the actions."""

    def __init__(self, dtype):
        self.observation_space = self.action_space = Box(-0.1, 0.7, (2,), dtype)
        self.actions = []

    def reset(self, **_):
        return np.array([0.1, 0.2], self.observation_space.dtype), {}

    def step(self, action):
        self.actions.append(action)
        return *self.reset()[:1], 1.0, False, False, {}


@pytest.mark.parametrize("dtype", [np.float64, np.float16])
def test_boxes_of_other_floats_keep_the_fast_engine(dtype, monkeypatch):
    envs = gymnasium.vector.SyncVectorEnv([lambda: Floats(dtype)] * 2)
    policy = helpers.make_policy(envs, initial_scale=3.0)  # saturates
    collector = ppo_tf.VectorCollector(envs, policy, horizon=16)
    assert collector.acting.description == "LiteRT"
    seen = []
    act = LiteRTEngine.__call__

    def spy(engine, observations, *rest):
        seen.append(observations)
        return act(engine, observations, *rest)

    monkeypatch.setattr(LiteRTEngine, "__call__", spy)
    trajectory, _ = collector.collect()
    np.testing.assert_array_equal(seen, trajectory.observations)
    assert seen[0].dtype == trajectory.observations.dtype == np.float32
    taken = np.stack(envs.envs[0].actions)
    assert taken.dtype == dtype
    assert all(envs.single_action_space.contains(action) for action in taken)
    expected = policy.action_map(tf.constant(trajectory.actions[:, 0])).numpy()
    np.testing.assert_array_equal(taken, expected)
    space = envs.single_action_space
    for bound in (space.low[0], space.high[0]):  # to the precision of float32
        assert np.abs(taken - bound).min() < 1e-7


def test_a_policy_for_other_actions_is_refused():
    policy = helpers.make_policy(DISCRETE)
    with pytest.raises(ValueError, match=r"actions must fit Box.*float32\[2\].*int64\[\]"):
        acting.make_acting(policy, BOX)


@pytest.mark.parametrize("engine", ENGINES)
def test_new_weights_act_from_the_next_rollout_on(engine):
    policy = helpers.make_policy(DISCRETE)
    act = acting.make_acting(policy, DISCRETE, engine)
    observations = helpers.observe(DISCRETE.single_observation_space, (BATCH,))
    for favourite in (2, 0, 1):
        policy.actor.get_layer("logits").bias.assign(50.0 * tf.one_hot(favourite, 3))
        act.begin(1, seed=0, iteration=0)
        raw, action = act(observations, 0, NONE)
        assert raw.tolist() == action.tolist() == [favourite] * BATCH


@pytest.mark.parametrize("engine", ENGINES)
def test_weights_that_change_during_a_rollout_act_in_the_next_one(engine):
    policy = helpers.make_policy(DISCRETE)
    act = acting.make_acting(policy, DISCRETE, engine)
    observations = helpers.observe(DISCRETE.single_observation_space, (BATCH,))
    favour = policy.actor.get_layer("logits").bias.assign
    favour(50.0 * tf.one_hot(2, 3))
    act.begin(2, seed=0, iteration=0)
    favour(50.0 * tf.one_hot(1, 3))
    for step in range(2):
        assert act(observations, step, NONE)[0].tolist() == [2] * BATCH
    act.begin(1, seed=0, iteration=1)
    assert act(observations, 0, NONE)[0].tolist() == [1] * BATCH


def test_a_layer_that_draws_random_numbers_draws_others_at_each_step():
    class Noisy(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.seed_generator = keras.random.SeedGenerator(1)

        def call(self, inputs):
            return inputs + keras.random.normal(keras.ops.shape(inputs), seed=self.seed_generator)

    inputs = keras.Input((3,))
    noisy = Noisy()(inputs)
    scale = keras.layers.Dense(2, bias_initializer="ones", kernel_initializer="zeros")(noisy)
    actor = keras.Model(inputs, {"loc": keras.layers.Dense(2)(noisy), "scale_diag": 1e-3 * scale})
    policy = ppo_tf.Policy(
        actor, tfp.distributions.MultivariateNormalDiag, helpers.make_policy(BOX).action_map
    )
    act = acting.make_acting(policy, BOX)
    assert act.description.startswith("TensorFlow (LiteRT can't convert it: ")
    observations = helpers.observe(BOX.single_observation_space, (BATCH,))
    act.begin(3, seed=0, iteration=0)
    raw = [act(observations, step, NONE)[0] for step in range(3)]
    for one, other in itertools.combinations(raw, 2):
        assert np.abs(one - other).max() > 0.1


@pytest.mark.parametrize("engine", ENGINES)
def test_seed_and_iteration_decide_the_draws(engine):
    policy = helpers.make_policy(BOX)
    act = acting.make_acting(policy, BOX, engine)
    observations = helpers.observe(BOX.single_observation_space, (BATCH,))

    def draws(seed, iteration):
        act.begin(2, seed, iteration)
        return np.stack([act(observations, step, NONE)[0] for step in range(2)])

    first = draws(0, 0)
    np.testing.assert_array_equal(first, draws(0, 0))
    assert (first[0] != first[1]).all()
    assert (first != draws(1, 0)).all() and (first != draws(0, 1)).all()
    assert len(np.unique(first)) == first.size  # every environment draws for itself


@pytest.mark.parametrize("engine", ENGINES)
def test_categories_are_drawn_with_their_probabilities(engine):
    policy = helpers.make_policy(DISCRETE)
    policy.actor.get_layer("logits").bias.assign([0.0, 1.0, -1.0])
    act = acting.make_acting(policy, DISCRETE, engine)
    observations = np.repeat(
        helpers.observe(DISCRETE.single_observation_space, (1,)), BATCH, axis=0
    )
    steps = 2000
    act.begin(steps, seed=0, iteration=0)
    counts = np.bincount(
        np.concatenate([act(observations, step, NONE)[0] for step in range(steps)]), minlength=3
    )
    expected = steps * BATCH * policy.distribution(observations).probs_parameter()[0].numpy()
    # Two degrees of freedom: the statistic exceeds 13.8 once in 1000.
    assert ((counts - expected) ** 2 / expected).sum() < 13.8


@pytest.mark.parametrize("engine", ENGINES)
def test_gaussian_draws_have_the_cumulative_distribution(engine):
    policy = helpers.make_policy(BOX, initial_scale=0.7)
    act = acting.make_acting(policy, BOX, engine)
    observations = np.repeat(helpers.observe(BOX.single_observation_space, (1,)), BATCH, axis=0)
    steps = 1000
    act.begin(steps, seed=0, iteration=0)
    raw = np.concatenate([act(observations, step, NONE)[0] for step in range(steps)])
    parameters = policy.parameters(observations)
    marginal = tfp.distributions.Normal(parameters["loc"][0], parameters["scale_diag"][0])
    for element in range(2):
        cdf = np.sort(marginal.cdf(raw).numpy()[:, element])
        distance = np.abs(cdf - (np.arange(len(cdf)) + 0.5) / len(cdf)).max()
        # Kolmogorov-Smirnov: sqrt(n) times the distance exceeds 1.95 once in 1000.
        assert np.sqrt(len(cdf)) * distance < 1.95
    correlation = np.corrcoef(raw.T)[0, 1]
    assert abs(correlation) < 4 / np.sqrt(len(raw))


def beta_policy():
    def beta(alpha, beta):
        return tfp.distributions.Independent(
            tfp.distributions.Beta(tf.exp(alpha), tf.exp(beta)), reinterpreted_batch_ndims=1
        )

    actor = ppo_tf.mlp(BOX, {"alpha": 2, "beta": 2}, hidden_sizes=(4,), seed=0)
    return ppo_tf.Policy(actor, beta, lambda raw: 4.0 * raw - 2.0)


def test_a_distribution_of_ones_own_takes_the_general_way_and_says_so():
    act = acting.make_acting(beta_policy(), BOX)
    assert act.description == "TensorFlow (its distribution is sampled by TFP)"
    act.begin(1, 0, 0)
    raw, action = act(helpers.observe(BOX.single_observation_space, (BATCH,)), 0, NONE)
    assert ((raw > 0) & (raw < 1)).all()
    np.testing.assert_allclose(action, 4.0 * raw - 2.0)


def test_convolutions_act_in_tensorflow_unless_told_otherwise():
    envs, options = CASES["image"]
    policy = helpers.make_policy(envs, **options)
    assert acting.make_acting(policy, envs).description == "TensorFlow (faster for convolutions)"
    assert acting.make_acting(policy, envs, "litert").description == "LiteRT"


def test_asking_for_litert_where_it_cannot_serve_is_an_error():
    with pytest.raises(ValueError, match="acting='litert' can't serve this policy: its distrib"):
        acting.make_acting(beta_policy(), BOX, "litert")


def test_an_unknown_engine_is_an_error():
    with pytest.raises(ValueError, match=r"acting must be 'auto', .* Received: acting='numpy'"):
        acting.make_acting(helpers.make_policy(BOX), BOX, "numpy")


def test_without_litert_the_general_way_serves(monkeypatch):
    monkeypatch.setattr(litert_conversion.importlib.util, "find_spec", lambda name: None)
    act = acting.make_acting(helpers.make_policy(BOX), BOX)
    assert act.description == "TensorFlow (ai-edge-litert is not installed)"


def test_a_graph_that_litert_cannot_convert_takes_the_general_way(monkeypatch):
    def fail(step):
        raise RuntimeError("no kernel for Erfinv\nand much more")

    monkeypatch.setattr(litert_conversion, "convert", fail)
    act = acting.make_acting(helpers.make_policy(BOX), BOX)
    assert act.description == "TensorFlow (LiteRT can't convert it: no kernel for Erfinv)"


def test_a_conversion_that_computes_something_else_does_not_act(monkeypatch):
    call = LiteRTEngine.__call__
    monkeypatch.setattr(LiteRTEngine, "__call__", lambda *args: tuple(x + 1 for x in call(*args)))
    act = acting.make_acting(helpers.make_policy(BOX), BOX)
    assert act.description == "TensorFlow (LiteRT's actions differ from Keras')"


def test_both_engines_train_the_same_agent():
    def train(engine):
        envs = ppo_tf.make_envs("CartPole-v1", 4, seed=0, backend="sync")
        policy = ppo_tf.mlp_policy(envs, hidden_sizes=(16,), seed=0)
        critic = ppo_tf.mlp_critic(envs, hidden_sizes=(16,), seed=0)
        optimizer = ppo_tf.default_optimizer(1e-2)
        learner = ppo_tf.Learner(policy, critic, optimizer, minibatch_size=128, jit_compile=False)
        collector = ppo_tf.VectorCollector(envs, policy, 128, acting=engine)
        history = ppo_tf.fit(learner, collector, total_steps=8 * 512)
        return history["rollout/episode_return"][-1]

    for engine in ENGINES:
        assert train(engine) > 35  # random actions stay at 22
