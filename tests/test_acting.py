"""Both ways to act: the same distribution, the present weights, and a choice that says why."""

import gymnasium
import helpers
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import ppo_tf
from ppo_tf import acting
from ppo_tf.distributions import noise_of

Box, Discrete = gymnasium.spaces.Box, gymnasium.spaces.Discrete
BATCH = 6
ENGINES = ("litert", "tensorflow")


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
}


@pytest.mark.parametrize("name", CASES)
def test_litert_computes_what_keras_does(name):
    envs, options = CASES[name]
    policy = helpers.make_policy(envs, **options)
    for variable in policy.actor.variables:  # away from the tiny outputs of the initialisation
        variable.assign(variable + tf.random.stateless_normal(variable.shape, [1, 2]) ** 2 * 0.3)
    engine = acting.make_acting(policy, envs, "litert")
    engine.begin(3, seed=1, rollout=0)
    transform = noise_of(policy.family).from_noise
    for step in range(3):
        observations = helpers.observe(envs.single_observation_space, (BATCH,), seed=step)
        raw, action = engine(observations, step)
        expected = transform(policy.parameters(observations), tf.constant(engine._noise[step]))
        np.testing.assert_allclose(raw, expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(action, policy.action_map(expected), rtol=1e-5, atol=1e-5)
        assert all(envs.single_action_space.contains(a) for a in action)


@pytest.mark.parametrize("engine", ENGINES)
def test_new_weights_act_from_the_next_rollout_on(engine):
    policy = helpers.make_policy(DISCRETE)
    act = acting.make_acting(policy, DISCRETE, engine)
    observations = helpers.observe(DISCRETE.single_observation_space, (BATCH,))
    for favourite in (2, 0, 1):
        policy.actor.get_layer("logits").bias.assign(50.0 * tf.one_hot(favourite, 3))
        act.begin(1, seed=0, rollout=0)
        raw, action = act(observations, 0)
        assert raw.tolist() == action.tolist() == [favourite] * BATCH


@pytest.mark.parametrize("engine", ENGINES)
def test_seed_and_rollout_decide_the_draws(engine):
    policy = helpers.make_policy(BOX)
    act = acting.make_acting(policy, BOX, engine)
    observations = helpers.observe(BOX.single_observation_space, (BATCH,))

    def draws(seed, rollout):
        act.begin(2, seed, rollout)
        return np.stack([act(observations, step)[0] for step in range(2)])

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
    act.begin(steps, seed=0, rollout=0)
    counts = np.bincount(
        np.concatenate([act(observations, step)[0] for step in range(steps)]), minlength=3
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
    act.begin(steps, seed=0, rollout=0)
    raw = np.concatenate([act(observations, step)[0] for step in range(steps)])
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
    raw, action = act(helpers.observe(BOX.single_observation_space, (BATCH,)), 0)
    assert ((raw > 0) & (raw < 1)).all()
    np.testing.assert_allclose(action, 4.0 * raw - 2.0)


def test_asking_for_litert_where_it_cannot_serve_is_an_error():
    with pytest.raises(ValueError, match="acting='litert' can't serve this policy: its distrib"):
        acting.make_acting(beta_policy(), BOX, "litert")


def test_an_unknown_engine_is_an_error():
    with pytest.raises(ValueError, match=r"acting must be 'auto', .* Received: acting='numpy'"):
        acting.make_acting(helpers.make_policy(BOX), BOX, "numpy")


def test_without_litert_the_general_way_serves(monkeypatch):
    monkeypatch.setattr(acting.importlib.util, "find_spec", lambda name: None)
    act = acting.make_acting(helpers.make_policy(BOX), BOX)
    assert act.description == "TensorFlow (ai-edge-litert is not installed)"


def test_a_graph_that_litert_cannot_convert_takes_the_general_way(monkeypatch):
    def fail(function):
        raise RuntimeError("no kernel for Erfinv\nand much more")

    monkeypatch.setattr(acting, "_interpreter", fail)
    act = acting.make_acting(helpers.make_policy(BOX), BOX)
    assert act.description == "TensorFlow (LiteRT can't convert it: no kernel for Erfinv)"


def test_a_conversion_that_computes_something_else_does_not_act(monkeypatch):
    call = acting.LiteActing.__call__
    monkeypatch.setattr(
        acting.LiteActing, "__call__", lambda *args: tuple(x + 1 for x in call(*args))
    )
    act = acting.make_acting(helpers.make_policy(BOX), BOX)
    assert act.description == "TensorFlow (LiteRT's actions differ from Keras')"


def test_both_engines_train_the_same_agent():
    def train(engine):
        envs = ppo_tf.make_envs("CartPole-v1", 4, seed=0, backend="sync")
        policy = ppo_tf.mlp_policy(envs, hidden_sizes=(16,), seed=0)
        critic = ppo_tf.mlp_critic(envs, hidden_sizes=(16,), seed=0)
        optimizer = ppo_tf.default_optimizer(1e-2)
        learner = ppo_tf.Learner(policy, critic, optimizer, minibatch_size=128)
        collector = ppo_tf.VectorCollector(envs, policy, 128, acting=engine)
        history = ppo_tf.fit(learner, collector, total_steps=8 * 512)
        return history["rollout/episode_return"][-1]

    for engine in ENGINES:
        assert train(engine) > 35  # random actions stay at 22
