"""Trust regions: the step against linear algebra in float64, the constraint for every family."""

import helpers
import keras
import numpy as np
import pytest
import tensorflow as tf
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete

import ppo_tf
from ppo_tf.learning import diagnostics

pytestmark = pytest.mark.usefixtures("eager")

DELTA = 0.02
ACTIONS = {
    "discrete": (Discrete(4), {}),
    "multi_discrete": (MultiDiscrete([2, 3]), {}),
    "multi_binary": (MultiBinary(3), {}),
    "joint": (Dict(a=Discrete(3), b=Box(-1.0, 1.0, (2,))), {}),
    **{
        name: (Box(-1.0, 1.0, (2,)), {"continuous": name})
        for name in (
            *("clipped_gaussian", "tanh_gaussian", "beta", "truncated_gaussian"),
            *("full_covariance", "gsde", "categorical"),
        )
    },
    "state_dependent_scale": (Box(-1.0, 1.0, (2,)), {"state_dependent_scale": True}),
}


def make_learner(action_space, *, critic=True, rule=None, options=(), **more):
    envs = helpers.spaces(helpers.box(3), action_space)
    rule = rule or ppo_tf.TrustRegionUpdate(DELTA, epochs=1, minibatch_size=16)
    learner = ppo_tf.Learner(
        helpers.make_policy(envs, normalize=False, **dict(options)),
        helpers.make_critic(envs, normalize=False) if critic else None,
        keras.optimizers.SGD(0.1),
        ppo_tf.GAE() if critic else ppo_tf.RewardToGo(baseline=False),
        ppo_tf.Surrogate(),
        update_rule=rule,
        **more,
    )
    return envs, learner


def valid_rows(data, nest):
    return tf.nest.map_structure(lambda x: tf.constant(x[data.valid]), nest)


def kl_between(policy, old_weights, observations, actions):
    """Mean KL(old || now) by the definition of the distribution, nats."""
    now = policy.distribution(observations)
    weights = policy.get_weights()
    policy.set_weights(old_weights)
    old = policy.distribution(observations)
    policy.set_weights(weights)
    return float(tf.reduce_mean(diagnostics.divergence(old, now, actions)))


@pytest.mark.parametrize("steps", [1, pytest.param(10, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ACTIONS)
def test_accepted_steps_keep_to_the_region_and_lower_the_loss(name, steps):
    space, options = ACTIONS[name]
    envs, learner = make_learner(space, options=options.items())
    for seed in range(steps):
        data = helpers.trajectory(envs, learner.policy, horizon=32, seed=seed)
        before = learner.policy.get_weights()
        metrics = learner.update(data)
        assert metrics["step_scale"] > 0 and metrics["improvement"] > 0
        observations, actions = (valid_rows(data, x) for x in (data.observations, data.actions))
        kl = kl_between(learner.policy, before, observations, actions)
        assert 0.2 * DELTA < kl <= DELTA * (1 + 1e-4)
        if "kl" in metrics:
            np.testing.assert_allclose(metrics["kl"], kl, rtol=1e-4)


def test_the_natural_gradient_is_the_inverse_fisher_matrix_times_the_gradient():
    """For a softmax of free logits, F = diag(p) - p p^T, and g = -E[A (e_a - p)]."""
    damping, delta = 0.05, 1e-3
    rule = ppo_tf.TrustRegionUpdate(
        delta, line_search=False, damping=damping, cg_iterations=20, minibatch_size=16, epochs=1
    )
    logits = np.array([0.3, -0.2, 0.5, 0.0])
    observations = keras.Input((3,))
    layer = keras.layers.Dense(
        4, kernel_initializer="zeros", bias_initializer=lambda *a, **k: logits.astype("f4")
    )
    layer.build((None, 3))
    layer.kernel.trainable = False
    actor = keras.Model(observations, {"logits": layer(observations)})
    envs = helpers.spaces(helpers.box(3), Discrete(4))
    spec = ppo_tf.action_spec(Discrete(4))
    policy = ppo_tf.Policy(actor, spec.family, spec.action_map)
    learner = ppo_tf.Learner(
        policy,
        None,
        keras.optimizers.SGD(0.1),
        ppo_tf.RewardToGo(baseline=False),
        ppo_tf.Surrogate(),
        update_rule=rule,
        standardize_advantages="off",
    )
    data = helpers.trajectory(envs, policy, horizon=32)
    advantages, _ = ppo_tf.RewardToGo(baseline=False)(
        rewards=tf.constant(data.rewards),
        values=tf.zeros(data.rewards.shape),
        next_values=tf.zeros(data.rewards.shape),
        terminated=tf.constant(data.terminated),
        truncated=tf.constant(data.truncated | np.append(~data.valid[1:], [[False] * 2], axis=0)),
    )
    a, actions = advantages.numpy()[data.valid].astype(float), data.actions[data.valid]
    p = np.exp(logits) / np.exp(logits).sum()
    gradient = -np.mean(a[:, None] * (np.eye(4)[actions] - p), axis=0)
    fisher = np.diag(p) - np.outer(p, p) + damping * np.eye(4)
    direction = np.linalg.solve(fisher, gradient)
    step = np.sqrt(2 * delta / (direction @ fisher @ direction)) * direction
    metrics = learner.update(data)
    np.testing.assert_allclose(metrics["gradient_norm"], np.linalg.norm(gradient), rtol=1e-4)
    np.testing.assert_allclose(layer.bias.numpy(), logits - step, rtol=1e-4, atol=1e-5)
    assert metrics["step_scale"] == 1.0


class Uphill:
    """A loss that every step raises, although its gradient says otherwise."""

    def __call__(self, *, new_dist, old_dist, actions, advantages):
        ratio = tf.exp(new_dist.log_prob(actions) - tf.stop_gradient(new_dist.log_prob(actions)))
        moved = new_dist.kl_divergence(old_dist)
        return ratio * advantages + 1e3 * tf.stop_gradient(moved), {}


def test_a_search_without_success_leaves_the_policy_as_it_was():
    envs, learner = make_learner(Discrete(3))
    learner = ppo_tf.Learner(
        learner.policy, learner.critic, loss=Uphill(), update_rule=learner.update_rule
    )
    before = learner.policy.get_weights(), learner.critic.get_weights()
    metrics = learner.update(helpers.trajectory(envs, learner.policy, horizon=32))
    assert (metrics["step_scale"], metrics["improvement"], metrics["kl"]) == (0.0, 0.0, 0.0)
    for old, new in zip(before[0], learner.policy.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert any(
        (old != new).any() for old, new in zip(before[1], learner.critic.get_weights(), strict=True)
    )


def test_the_critic_does_not_matter_to_the_policy():
    steps = []
    for critic in (True, False):
        envs, learner = make_learner(Discrete(3), critic=critic)
        learner.objective.__dict__["_advantages"] = lambda **k: (k["rewards"], k["rewards"])
        learner.update(helpers.trajectory(envs, learner.policy, horizon=32))
        steps.append(learner.policy.get_weights())
    helpers.assert_close(*steps, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.usefixtures("graphs")
def test_graphs_and_xla_do_what_eager_steps_do(jit_compile):
    results = []
    for compiled in (True, False):
        tf.config.run_functions_eagerly(not compiled)
        envs, learner = make_learner(Discrete(3), jit_compile=jit_compile and compiled)
        metrics = learner.update(helpers.trajectory(envs, learner.policy, horizon=32))
        results.append((metrics, helpers.numbers(learner)))
    tf.config.run_functions_eagerly(False)
    helpers.assert_close(*results, rtol=1e-3, atol=1e-4)


def test_a_memory_works():
    envs = helpers.spaces(helpers.box(3), Discrete(3))
    learner = ppo_tf.Learner(
        helpers.make_policy(envs, cell="gru"),
        helpers.make_critic(envs, cell="gru"),
        loss=ppo_tf.Surrogate(),
        update_rule=ppo_tf.TrustRegionUpdate(DELTA, minibatch_size=16, epochs=1),
        sequence_length=8,
    )
    metrics = learner.update(helpers.trajectory(envs, learner.policy, horizon=16))
    assert metrics["step_scale"] > 0 and 0 < metrics["kl"] < 1.2 * DELTA


def test_a_step_that_is_not_finite_is_undone():
    envs, learner = make_learner(Discrete(3))
    data = helpers.trajectory(envs, learner.policy, horizon=32)
    rewards = data.rewards.copy()
    rewards[3] = np.nan
    before = helpers.numbers(learner)
    with pytest.raises(ppo_tf.NonFiniteError):
        learner.update(data._replace(rewards=rewards, valid=np.ones_like(data.valid)))
    for old, new in zip(before, helpers.numbers(learner), strict=True):
        np.testing.assert_array_equal(old, new)


def test_common_weights_are_refused():
    envs = helpers.spaces(helpers.box(3), Discrete(3))
    actor, critic = ppo_tf.shared_actor_critic(envs)
    spec = ppo_tf.action_spec(Discrete(3))
    with pytest.raises(ValueError, match="without common weights"):
        ppo_tf.Learner(
            ppo_tf.Policy(actor, spec.family, spec.action_map),
            critic,
            update_rule=ppo_tf.TrustRegionUpdate(),
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"trust_region": 0.0},
            "trust_region must be positive and finite. Received: trust_region=0",
        ),
        ({"damping": -1.0}, "damping must be positive and finite. Received: damping=-1"),
        ({"cg_iterations": 0}, "cg_iterations must be at least 1. Received: cg_iterations=0"),
        ({"backtracks": 0}, "backtracks must be at least 1. Received: backtracks=0"),
        ({"epochs": 0}, "epochs must be at least 1. Received: epochs=0"),
    ],
)
def test_arguments_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ppo_tf.TrustRegionUpdate(**options)
