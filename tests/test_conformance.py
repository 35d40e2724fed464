"""One suite over every public component: each goes through the same tests as all others.

A case is a learner in which one part is not the default. Eager, graph and XLA must agree, one trace
must do, and the policy must survive `.keras` and SavedModel, the latter in a process without ppo_tf
and TFP.
"""

import subprocess
import sys

import gymnasium
import helpers
import keras
import numpy as np
import pytest
import tensorflow as tf

import ppo_tf

Box, Discrete = gymnasium.spaces.Box, gymnasium.spaces.Discrete
MultiDiscrete = gymnasium.spaces.MultiDiscrete
DISCRETE = helpers.spaces(helpers.box(3), Discrete(3))
BOX = helpers.spaces(helpers.box(3), Box(-2.0, 2.0, (2,)))


@keras.saving.register_keras_serializable("tests")
def beta(alpha, beta):
    import tensorflow_probability as tfp

    shape = (1.0 + tf.nn.softplus(alpha), 1.0 + tf.nn.softplus(beta))
    return tfp.distributions.Independent(tfp.distributions.Beta(*shape), 1)


@keras.saving.register_keras_serializable("tests")
def beta_to_box(raw):
    return 4.0 * raw - 2.0


def beta_policy(envs):
    actor = ppo_tf.mlp(
        envs.single_observation_space, {"alpha": 2, "beta": 2}, hidden_sizes=(4,), seed=1
    )
    return ppo_tf.Policy(actor, beta, beta_to_box)


def case(envs=DISCRETE, policy=None, critic=True, **options):
    """A function that makes the learner, given whether XLA compiles it."""

    def make(jit_compile):
        parts = {name: value() for name, value in options.items()}
        return ppo_tf.Learner(
            policy(envs) if policy else helpers.make_policy(envs),
            helpers.make_critic(envs) if critic else None,
            # Adam's steps are of full size where a gradient is nothing but rounding; SGD's are not.
            optimizer=keras.optimizers.SGD(0.05, global_clipnorm=5.0),
            epochs=2,
            minibatch_size=8,
            jit_compile=jit_compile,
            **parts,
        )

    return envs, make


def policy_of(**options):
    return lambda envs: helpers.make_policy(envs, **options)


LOSSES = {
    "policy_gradient": ppo_tf.PolicyGradient,
    "clip": ppo_tf.Clip,
    "clip_asymmetric": lambda: ppo_tf.Clip(0.1, 0.3),
    "kl_penalty": ppo_tf.KLPenalty,
    "kl_penalty_adaptive": lambda: ppo_tf.KLPenalty(1.0, target=0.01),
    "sum": lambda: ppo_tf.Sum([ppo_tf.Clip(), ppo_tf.EntropyBonus(0.01)]),
}
ESTIMATORS = {
    "reward_to_go": ppo_tf.RewardToGo,
    "n_step": ppo_tf.NStep,
    "gae": ppo_tf.GAE,
}
ACTIONS = {
    "discrete_start": Discrete(4, start=-2),
    "multi_discrete": MultiDiscrete([2, 4, 3], start=[0, -1, 5]),
    "multi_binary": gymnasium.spaces.MultiBinary(3),
    "box_clip": Box(-2.0, 2.0, (2,)),
    "box_rank2_one_sided": Box(
        np.array([[0.0], [-np.inf]]), np.array([[np.inf], [1.0]]), dtype="f8"
    ),
}
CONTINUOUS = ("tanh_gaussian", "beta", "truncated_normal", "full_covariance")
OBSERVATIONS = {
    "box_float64_rank2": Box(-1.0, 1.0, (2, 3), np.float64),
    "box_uint8": Box(0, 255, (2, 2, 3), np.uint8),
    "box_scalar": Box(-1.0, 1.0, ()),
    "discrete_start": Discrete(5, start=3),
}
CASES = {
    **{f"loss:{k}": case(loss=v) for k, v in LOSSES.items()},
    **{f"estimator:{k}": case(BOX, estimator=v) for k, v in ESTIMATORS.items()},
    **{f"action:{k}": case(helpers.spaces(helpers.box(3), v)) for k, v in ACTIONS.items()},
    **{f"observation:{k}": case(helpers.spaces(v, Discrete(3))) for k, v in OBSERVATIONS.items()},
    **{f"continuous:{k}": case(BOX, policy_of(continuous=k)) for k in CONTINUOUS},
    "scale:state_dependent": case(
        BOX, lambda e: helpers.make_policy(e, state_dependent_scale=True)
    ),
    "normalize:off": case(BOX, lambda e: helpers.make_policy(e, normalize=False)),
    "distribution:beta": case(BOX, beta_policy),
    "value_loss:clipped": case(value_loss=ppo_tf.ClippedError),
    "value_loss:huber": case(value_loss=ppo_tf.Huber),
    "reward_scaling": case(reward_scaling=ppo_tf.RewardScaling),
    "recompute_advantages": case(recompute_advantages=lambda: True),
    "target_kl": case(target_kl=lambda: 0.05),
    "critic:none": case(critic=False, estimator=lambda: ppo_tf.RewardToGo(0.9, baseline=False)),
}


def two_updates(envs, learner):
    return [learner.update(helpers.trajectory(envs, learner.policy, seed=s)) for s in range(2)]


@pytest.fixture(scope="module")
def trained():
    """Every case after two updates by XLA, trained on first use."""
    learners = {}

    def get(name):
        if name not in learners:
            envs, make = CASES[name]
            learner = make(jit_compile=True)
            learners[name] = learner, two_updates(envs, learner)
        return learners[name]

    return get


@pytest.mark.parametrize("name", CASES)
def test_eager_graph_and_xla_agree(name, trained):
    envs, make = CASES[name]
    compiled, compiled_metrics = trained(name)
    assert compiled._compiled.experimental_get_tracing_count() == 1
    graph = make(jit_compile=False)
    graph_metrics = two_updates(envs, graph)
    tf.config.run_functions_eagerly(True)
    try:
        eager = make(jit_compile=False)
        eager_metrics = two_updates(envs, eager)
    finally:
        tf.config.run_functions_eagerly(False)
    for other, metrics in ((graph, graph_metrics), (eager, eager_metrics)):
        for a, b in zip(helpers.numbers(compiled), helpers.numbers(other), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
        for a, b in zip(compiled_metrics, metrics, strict=True):
            assert a.keys() == b.keys()
            np.testing.assert_allclose(list(a.values()), list(b.values()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_the_update_moves_the_policy_and_stays_finite(name, trained):
    _, make = CASES[name]
    learner, metrics = trained(name)
    assert all(np.isfinite(value) for m in metrics for value in m.values())
    fresh = make(jit_compile=True).policy.trainable_variables
    for before, after in zip(fresh, learner.policy.trainable_variables, strict=True):
        assert not np.allclose(before.numpy(), after.numpy(), atol=1e-7)


@pytest.mark.parametrize("name", CASES)
def test_actions_are_in_the_space(name, trained):
    envs, _ = CASES[name]
    policy = trained(name)[0].policy
    observations = helpers.observe(envs.single_observation_space, (16,))
    sampled = policy.action_map(policy.sample(observations, np.array([1, 2], np.int32)))
    for action in [*policy(observations).numpy(), *sampled.numpy()]:
        assert envs.single_action_space.contains(np.asarray(action))


@pytest.mark.parametrize("name", CASES)
def test_a_policy_round_trips_through_keras(name, trained, tmp_path):
    envs, _ = CASES[name]
    policy = trained(name)[0].policy
    observations = helpers.observe(envs.single_observation_space, (4,))
    policy.save(tmp_path / "policy.keras")
    loaded = keras.saving.load_model(tmp_path / "policy.keras")
    seed = np.array([1, 2], np.int32)
    np.testing.assert_array_equal(loaded(observations), policy(observations))
    np.testing.assert_array_equal(
        loaded.sample(observations, seed), policy.sample(observations, seed)
    )


LOADER = """
import sys
sys.modules["ppo_tf"] = sys.modules["tensorflow_probability"] = sys.modules["keras"] = None
import numpy as np, pathlib, tensorflow as tf
folder = pathlib.Path(sys.argv[1])
for path in folder.glob("*.npy"):
    signatures = tf.saved_model.load(str(path.with_suffix(""))).signatures
    observation = tf.constant(np.load(path))
    out = {"action": signatures["serving_default"](observation=observation)["action"]}
    seed = tf.constant([1, 2], tf.int32)
    out["sample"] = signatures["sample"](observation=observation, seed=seed)["action"]
    if "value" in signatures:
        out["value"] = signatures["value"](observation=observation)["value"]
    np.savez(path.with_suffix(".npz"), **{k: v.numpy() for k, v in out.items()})
"""


def test_exported_policies_act_the_same_without_ppo_tf_and_tfp(trained, tmp_path):
    names = {name: name.replace(":", "-") for name in CASES}
    for name, file in names.items():
        envs, _ = CASES[name]
        learner, _ = trained(name)
        ppo_tf.export_policy(learner.policy, tmp_path / file, critic=learner.critic)
        np.save(tmp_path / f"{file}.npy", helpers.observe(envs.single_observation_space, (5,)))
    subprocess.run([sys.executable, "-c", LOADER, str(tmp_path)], check=True, timeout=300)
    for name, file in names.items():
        learner, _ = trained(name)
        policy, observations = learner.policy, np.load(tmp_path / f"{file}.npy")
        raw = policy.sample(observations, np.array([1, 2], np.int32))
        expected = {"action": policy(observations), "sample": policy.action_map(raw)}
        if learner.critic is not None:
            expected["value"] = learner.critic(observations)
        with np.load(tmp_path / f"{file}.npz") as out:
            assert out.files == list(expected)
            for key, value in expected.items():
                assert out[key].dtype == value.numpy().dtype, (name, key)
                np.testing.assert_allclose(out[key], value, rtol=1e-6, atol=1e-6, err_msg=name)
