"""A learner's update: what it computes, reports and refuses."""

import gymnasium
import helpers
import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import ppo_tf
from ppo_tf.networks.layers import normalizations

pytestmark = pytest.mark.usefixtures("eager")

DISCRETE = helpers.spaces(helpers.box(3), gymnasium.spaces.Discrete(3))
CONTINUOUS = helpers.spaces(helpers.box(3), gymnasium.spaces.Box(-1.0, 1.0, (2,)))


def make_learner(
    envs=DISCRETE, *, critic=True, optimizer=None, loss=None, estimator=None, **kwargs
):
    options = {"epochs": 2, "minibatch_size": 8, "jit_compile": False, **kwargs}
    critic = helpers.make_critic(envs) if critic is True else critic
    return ppo_tf.Learner(helpers.make_policy(envs), critic, optimizer, estimator, loss, **options)


class RatioError:
    """The surrogate r A, reporting how far any ratio is from 1."""

    def __call__(self, *, new_dist, old_dist, actions, advantages):
        ratio = tf.exp(new_dist.log_prob(actions) - old_dist.log_prob(actions))
        return -ratio * advantages, {"ratio_error": tf.reduce_max(tf.abs(ratio - 1.0))}


class GoesNaN:
    """A loss that is NaN after its first two gradient steps."""

    def __init__(self):
        self.calls = tf.Variable(0, trainable=False)

    def __call__(self, *, new_dist, old_dist, actions, advantages):
        bad = tf.where(self.calls > 1, np.nan, 1.0)
        with tf.control_dependencies([self.calls.assign_add(1)]):
            return -new_dist.log_prob(actions) * advantages * tf.identity(bad), {}


@pytest.mark.parametrize("envs", [DISCRETE, CONTINUOUS])
def test_the_first_ratio_is_one_but_for_the_move_of_the_normaliser(envs):
    learner = make_learner(envs, loss=RatioError(), epochs=1, minibatch_size=16)
    (normalizer,) = normalizations(learner.policy)
    for update in range(3):  # weights and normalisers change in between
        data = helpers.trajectory(envs, learner.policy, seed=update)
        observations, actions = data.observations.reshape(-1, 3), helpers.merge(data.actions)
        before = learner.policy.get_weights()
        old = learner.policy.distribution(observations).log_prob(actions)
        metrics = learner.update(data)
        after, moved = learner.policy.get_weights(), normalizer.get_weights()
        learner.policy.set_weights(before)
        normalizer.set_weights(moved)
        new = learner.policy.distribution(observations).log_prob(actions)
        learner.policy.set_weights(after)
        largest = np.abs(np.expm1(new - old)).max()
        assert metrics["gradient_steps"] == 1
        assert largest > 1e-4  # the normaliser has moved
        expected = largest if update else 0.0
        np.testing.assert_allclose(metrics["ratio_error"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("envs", [DISCRETE, CONTINUOUS])
def test_the_first_ratio_is_one_without_normalisers(envs):
    learner = ppo_tf.Learner(
        helpers.make_policy(envs, normalize=False),
        helpers.make_critic(envs),
        loss=RatioError(),
        epochs=1,
        minibatch_size=16,
        jit_compile=False,
    )
    for update in range(3):  # weights change in between
        metrics = learner.update(helpers.trajectory(envs, learner.policy, seed=update))
        assert metrics["gradient_steps"] == 1
        assert metrics["ratio_error"] < 1e-6


def test_the_gradient_of_one_step_equals_the_textbook():
    # One minibatch of everything, SGD with rate 1: the weights move by minus the gradient.
    learner = make_learner(
        loss=ppo_tf.PolicyGradient(),
        estimator=ppo_tf.RewardToGo(0.9, baseline=False),
        critic=None,
        optimizer=keras.optimizers.SGD(1.0),
        epochs=1,
        minibatch_size=16,
        standardize_advantages="off",
    )
    (normalizer,) = normalizations(learner.policy)
    normalizer.trainable = False  # it would move before the gradient is taken
    data = helpers.trajectory(DISCRETE, learner.policy)
    # Returns by the plain sum; an invalid row ends the sum before it.
    horizon, num_envs = data.rewards.shape
    returns = np.zeros((horizon, num_envs))
    for env in range(num_envs):
        for t in range(horizon):
            for k in range(t, horizon):
                returns[t, env] += 0.9 ** (k - t) * data.rewards[k, env]
                ended = data.terminated[k, env] or data.truncated[k, env]
                if ended or (k + 1 < horizon and not data.valid[k + 1, env]):
                    break
    weights = data.valid.reshape(-1) / data.valid.sum()
    actor = learner.policy.actor
    with tf.GradientTape() as tape:
        logits = actor(data.observations.reshape(16, 3))["logits"]
        log_prob = tf.gather(tf.nn.log_softmax(logits), data.actions.reshape(-1), batch_dims=1)
        loss = -tf.reduce_sum(log_prob * returns.reshape(-1).astype(np.float32) * weights)
    variables = [v.value for v in actor.trainable_variables]
    gradients = tape.gradient(loss, variables)
    expected = [v.numpy() - g.numpy() for v, g in zip(variables, gradients, strict=True)]
    learner.update(data)
    for variable, value in zip(actor.trainable_variables, expected, strict=True):
        np.testing.assert_allclose(variable.numpy(), value, rtol=1e-4, atol=1e-6)


def test_invalid_rows_have_no_effect():
    first, second = (make_learner(reward_transformation=ppo_tf.RewardScaling()) for _ in range(2))
    data = helpers.trajectory(DISCRETE, first.policy, horizon=16)
    assert not data.valid.all()
    invalid = ~data.valid
    garbage = {name: np.array(getattr(data, name)) for name in data._fields}
    garbage["rewards"][invalid] = np.nan
    garbage["observations"][invalid] = 2.9
    garbage["next_observations"][invalid] = -2.9
    garbage["actions"][invalid] = 1
    garbage["terminated"][invalid] = True
    # Both use the same minibatches; only the contents of invalid rows differ.
    first.update(data)
    second.update(ppo_tf.Trajectory(**garbage))
    for a, b in zip(helpers.numbers(first), helpers.numbers(second), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_normalisers_learn_once_per_update_from_valid_rows_only():
    learner = make_learner(epochs=5)
    data = helpers.trajectory(DISCRETE, learner.policy, horizon=16)
    learner.update(data)
    for model in (learner.policy.actor, learner.critic):
        layer = model.get_layer("normalization")
        seen = data.observations[data.valid]
        assert float(layer.count.numpy()) == data.valid.sum()
        np.testing.assert_allclose(layer.mean.numpy(), seen.mean(0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(layer.variance.numpy(), seen.var(0), rtol=1e-4)


@pytest.mark.usefixtures("graphs")
def test_an_update_is_traced_once():
    learner = make_learner()
    for seed in range(3):
        learner.update(helpers.trajectory(DISCRETE, learner.policy, seed=seed))
    assert learner._compiled.experimental_get_tracing_count() == 1


@pytest.mark.usefixtures("graphs")
def test_the_graph_does_not_grow_with_epochs_minibatches_or_horizon():
    def nodes(horizon, **kwargs):
        learner = make_learner(**kwargs)
        data = helpers.trajectory(DISCRETE, learner.policy, horizon=horizon)
        learner.update(data)
        (function,) = learner._compiled._list_all_concrete_functions()
        definition = function.graph.as_graph_def()
        inner = sum(len(f.node_def) for f in definition.library.function)
        return len(definition.node) + inner

    small = nodes(horizon=8, epochs=1, minibatch_size=16)
    assert nodes(horizon=8, epochs=50, minibatch_size=16) == small
    assert nodes(horizon=8, epochs=1, minibatch_size=2) == small
    # Large constants take a few nodes instead of one; unrolling would take 64 times as many.
    assert nodes(horizon=512, epochs=1, minibatch_size=16) < 1.05 * small


def test_every_sample_is_seen_once_per_epoch():
    class Count:
        def __call__(self, *, new_dist, old_dist, actions, advantages):
            ones = tf.ones_like(advantages)
            return 0.0 * new_dist.log_prob(actions), {
                "mean_action": ones * tf.cast(actions, "float32")
            }

    learner = make_learner(loss=Count(), epochs=3, minibatch_size=4)
    data = helpers.trajectory(DISCRETE, learner.policy)._replace(valid=np.ones((8, 2), bool))
    metrics = learner.update(data)
    assert metrics["gradient_steps"] == 3 * 4
    np.testing.assert_allclose(metrics["mean_action"], data.actions.mean(), rtol=1e-6)


@pytest.mark.usefixtures("graphs")
def test_kl_above_the_target_ends_the_update_early():
    free, stopped = (
        make_learner(optimizer=keras.optimizers.Adam(0.1), epochs=20, early_stopping_kl=target)
        for target in (None, 0.02)
    )
    data = helpers.trajectory(DISCRETE, free.policy)
    assert free.update(data)["gradient_steps"] == 40
    metrics = stopped.update(data)
    assert 1 < metrics["gradient_steps"] < 40
    assert metrics["epochs"] == np.ceil(metrics["gradient_steps"] / 2)


def test_schedules_count_gradient_steps():
    schedule = keras.optimizers.schedules.PolynomialDecay(1e-3, 8, 0.0)
    learner = make_learner(optimizer=keras.optimizers.Adam(schedule))
    data = helpers.trajectory(DISCRETE, learner.policy)
    rates = [learner.update(data)["learning_rate"] for _ in range(2)]  # 4 steps each
    np.testing.assert_allclose(rates, [0.5e-3, 0.0], atol=1e-9)


def test_the_gradient_norm_is_reported_before_clipping_and_the_step_after():
    def step(norm):
        optimizer = keras.optimizers.SGD(1.0, global_clipnorm=norm)
        learner = make_learner(optimizer=optimizer, epochs=1, minibatch_size=16)
        before = [v.numpy() for v in learner.trained]
        metrics = learner.update(helpers.trajectory(DISCRETE, learner.policy))
        moved = [v.numpy() - b for v, b in zip(learner.trained, before, strict=True)]
        return metrics["gradient_norm"], np.sqrt(sum((m**2).sum() for m in moved))

    norm, length = step(None)
    np.testing.assert_allclose(length, norm, rtol=1e-4)
    clipped_norm, clipped_length = step(norm / 10)
    np.testing.assert_allclose(clipped_norm, norm, rtol=1e-4)
    np.testing.assert_allclose(clipped_length, norm / 10, rtol=1e-3)


@pytest.mark.parametrize("update", [0, 1])
def test_reported_divergences_and_entropy_match_the_policies_that_act(update):
    learner = make_learner(CONTINUOUS, optimizer=keras.optimizers.Adam(0.01))
    data = helpers.trajectory(CONTINUOUS, learner.policy, horizon=32)
    flat, rows = data.observations.reshape(-1, 3), data.valid.reshape(-1)
    for _ in range(update):
        learner.update(helpers.trajectory(CONTINUOUS, learner.policy, seed=5))
    old = learner.policy.actor(flat)
    metrics = learner.update(data)  # which also moves the statistics: all of the move counts
    new = learner.policy.actor(flat)
    loc0, scale0, loc1, scale1 = (
        np.float64(p[k]) for p in (old, new) for k in ("loc", "scale_diag")
    )
    kl = np.log(scale1 / scale0) + (scale0**2 + (loc0 - loc1) ** 2) / (2 * scale1**2) - 0.5
    np.testing.assert_allclose(metrics["kl"], kl.sum(-1)[rows].mean(), rtol=1e-3)
    entropy = 0.5 * np.log(2 * np.pi * np.e * scale1**2).sum(-1)
    np.testing.assert_allclose(metrics["entropy"], entropy[rows].mean(), rtol=1e-4)
    actions = data.actions.reshape(-1, 2)
    log_ratio = (
        -0.5 * ((actions - loc1) / scale1) ** 2
        - np.log(scale1)
        + 0.5 * ((actions - loc0) / scale0) ** 2
        + np.log(scale0)
    ).sum(-1)[rows]
    np.testing.assert_allclose(metrics["kl_k1"], -log_ratio.mean(), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(metrics["kl_k2"], (log_ratio**2 / 2).mean(), rtol=1e-3)
    k3 = (np.exp(log_ratio) - 1 - log_ratio).mean()
    np.testing.assert_allclose(metrics["kl_k3"], k3, rtol=1e-3, atol=1e-7)


def test_what_tfp_cannot_compute_is_absent():
    def mixture(logits):
        components = [tfp.distributions.Normal(0.0, 1.0), tfp.distributions.Normal(1.0, 1.0)]
        batch = tf.zeros(tf.shape(logits)[0])
        return tfp.distributions.Mixture(
            tfp.distributions.Categorical(logits),
            [tfp.distributions.Normal(c.loc + batch, 1.0) for c in components],
        )

    actor = ppo_tf.mlp(helpers.box(3), {"logits": 2}, hidden_sizes=(4,), seed=0)
    policy = ppo_tf.Policy(actor, mixture, lambda raw: raw)
    learner = ppo_tf.Learner(
        policy, helpers.make_critic(helpers.box(3)), minibatch_size=8, jit_compile=False
    )
    metrics = learner.update(helpers.trajectory(DISCRETE, policy))
    assert "kl" not in metrics and "entropy" not in metrics
    assert np.isfinite(metrics["kl_k3"])


def test_explained_variance_is_none_if_targets_are_constant():
    learner = make_learner(critic=None, estimator=ppo_tf.RewardToGo(0.0))
    data = helpers.trajectory(DISCRETE, learner.policy)
    metrics = learner.update(data._replace(rewards=np.zeros_like(data.rewards)))
    assert metrics["explained_variance"] is None


def test_recomputed_advantages_use_the_critic_of_the_epoch():
    results = []
    for recompute in (False, True):
        learner = make_learner(
            recompute_advantages=recompute, optimizer=keras.optimizers.Adam(0.05), epochs=3
        )
        data = helpers.trajectory(DISCRETE, learner.policy)
        learner.update(data)
        results.append(helpers.numbers(learner))
    assert any(not np.allclose(a, b) for a, b in zip(*results, strict=True))


def test_a_value_coefficient_of_zero_leaves_the_critic_unchanged():
    learner = make_learner(value_coefficient=0.0)
    before = [v.numpy() for v in learner.critic.trainable_variables]
    learner.update(helpers.trajectory(DISCRETE, learner.policy))
    for variable, value in zip(learner.critic.trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_a_shared_trunk_is_trained_and_normalised_once():
    inputs, features = ppo_tf.models.observation_features(helpers.box(3))
    trunk = keras.layers.Dense(8, activation="tanh")(features)
    actor = keras.Model(inputs, {"logits": keras.layers.Dense(3)(trunk)})
    critic = keras.Model(inputs, keras.ops.squeeze(keras.layers.Dense(1)(trunk), -1))
    spec = ppo_tf.action_spec(DISCRETE.single_action_space)
    learner = ppo_tf.Learner(
        ppo_tf.Policy(actor, spec.family, spec.action_map),
        critic,
        minibatch_size=8,
        jit_compile=False,
    )
    data = helpers.trajectory(DISCRETE, learner.policy)
    learner.update(data)
    assert len(learner.trained) == 6
    assert float(actor.get_layer("normalization").count.numpy()) == data.valid.sum()


def test_the_adaptive_penalty_follows_the_reported_divergence():
    loss = ppo_tf.Sum([ppo_tf.KLPenalty(1.0, target=1e-6), ppo_tf.EntropyBonus(0.01)])
    learner = make_learner(loss=loss, optimizer=keras.optimizers.Adam(0.05))
    metrics = learner.update(helpers.trajectory(DISCRETE, learner.policy))
    assert metrics["kl"] > 1.5e-6
    assert metrics["kl_coefficient"] == 1.0
    assert loss.losses[0].coefficient.numpy() == 2.0


@pytest.mark.usefixtures("graphs")
def test_a_nonfinite_update_is_undone_and_its_metric_named():
    learner = make_learner(
        loss=ppo_tf.Sum([GoesNaN(), ppo_tf.KLPenalty(1.0, target=1e-6)]),
        reward_transformation=ppo_tf.RewardScaling(),
    )
    data = helpers.trajectory(DISCRETE, learner.policy)
    learner.reward_transformation.build(data.rewards.shape)
    before = helpers.numbers(learner)
    with pytest.raises(ppo_tf.NonFiniteError, match="iteration 0: policy_loss became nan"):
        learner.update(data)
    for a, b in zip(helpers.numbers(learner), before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.usefixtures("graphs")
def test_variables_holds_everything_an_update_changes():
    learner = make_learner(
        loss=ppo_tf.Sum([ppo_tf.KLPenalty(1.0, target=1e-6)]),
        reward_transformation=ppo_tf.RewardScaling(),
    )
    learner.update(helpers.trajectory(DISCRETE, learner.policy))
    (function,) = learner._compiled._list_all_concrete_functions()
    variables = [v.value if isinstance(v, keras.Variable) else v for v in learner.variables]
    used = {v.handle.ref() for v in function.graph.variables}
    assert used == {v.handle.ref() for v in variables}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1. Received: epochs=0"),
        ({"minibatch_size": 1}, "minibatch_size must be at least 2 .* Received: minibatch_size=1"),
        ({"value_coefficient": -1.0}, "value_coefficient must be at least 0.*=-1.0"),
        (
            {"early_stopping_kl": 0.0},
            "early_stopping_kl must be positive. Received: early_stopping_kl=0.0",
        ),
        ({"seed": -1}, "seed must be at least 0. Received: seed=-1"),
    ],
)
def test_arguments_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make_learner(**options)


def test_a_minibatch_size_that_does_not_divide_the_batch_is_refused():
    learner = make_learner(minibatch_size=5)
    with pytest.raises(ValueError, match=r"minibatch_size=5, horizon \* num_envs=16"):
        learner.update(helpers.trajectory(DISCRETE, learner.policy))


def test_mismatched_shapes_are_refused():
    learner = make_learner()
    data = helpers.trajectory(DISCRETE, learner.policy)
    with pytest.raises(ValueError, match=r"rewards and valid must share one shape .*\(7, 2\)"):
        learner.update(data._replace(valid=data.valid[1:]))


def test_unbuilt_models_are_refused():
    unbuilt = keras.Sequential([keras.layers.Dense(1)])
    with pytest.raises(ValueError, match=r"critic must be built.*Sequential"):
        make_learner(critic=unbuilt)
    with pytest.raises(ValueError, match=r"actor must be built.*Sequential"):
        ppo_tf.Policy(unbuilt, tfp.distributions.Categorical, lambda raw: raw)


def test_a_subclassed_actor_plugs_in(tmp_path):
    class Actor(keras.Model):
        def __init__(self, name_of_output):
            super().__init__()
            self.dense, self.name_of_output = keras.layers.Dense(3), name_of_output

        def call(self, observations):
            return {self.name_of_output: self.dense(observations)}

    def policy(name_of_output):
        actor = Actor(name_of_output)
        actor(np.zeros((1, 3), np.float32))
        spec = ppo_tf.action_spec(DISCRETE.single_action_space)
        return ppo_tf.Policy(actor, spec.family, spec.action_map)

    learner = ppo_tf.Learner(policy("logits"), minibatch_size=8, jit_compile=False)
    before = learner.policy.actor.dense.kernel.numpy()
    learner.update(helpers.trajectory(DISCRETE, learner.policy))
    assert not np.allclose(before, learner.policy.actor.dense.kernel.numpy())
    with pytest.raises(ValueError, match="observation_spec"):
        ppo_tf.export_policy(learner.policy, tmp_path / "policy")
    spec = tf.TensorSpec((None, 3), tf.float32)
    ppo_tf.export_policy(learner.policy, tmp_path / "policy", observation_spec=spec)
    with pytest.raises(ValueError, match=r"outputs=\['scores'\], Categorical takes"):
        policy("scores").distribution(np.zeros((1, 3), np.float32))


def test_a_critic_of_the_wrong_shape_is_refused():
    inputs = keras.Input((3,))
    learner = make_learner(critic=keras.Model(inputs, keras.layers.Dense(1)(inputs)))
    with pytest.raises(ValueError, match=r"critic must return values of shape \[n\].*\[n, 1\]"):
        learner.update(helpers.trajectory(DISCRETE, learner.policy))
