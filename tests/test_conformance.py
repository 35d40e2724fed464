"""One suite over all public components: each goes through the same tests as the others.

Every value of each part occurs in some case; there are as many cases as the longest part has
values. Eager, graph and XLA must agree, one trace must be enough, and the policy must survive
`.keras` and SavedModel, the latter in a process without ppo_tf and TFP.
"""

import itertools

import gymnasium
import helpers
import keras
import numpy as np
import pytest
import tensorflow as tf

import ppo_tf

pytestmark = pytest.mark.usefixtures("grappler")

Box, Discrete = gymnasium.spaces.Box, gymnasium.spaces.Discrete
MultiDiscrete = gymnasium.spaces.MultiDiscrete


@keras.saving.register_keras_serializable("tests")
def beta(alpha, beta):
    import tensorflow_probability as tfp

    shape = (1.0 + tf.nn.softplus(alpha), 1.0 + tf.nn.softplus(beta))
    return tfp.distributions.Independent(tfp.distributions.Beta(*shape), 1)


@keras.saving.register_keras_serializable("tests")
def beta_to_box(raw):
    return 4.0 * raw - 2.0


def beta_policy(envs, **options):
    actor = ppo_tf.mlp(
        envs.single_observation_space,
        {"alpha": 2, "beta": 2},
        hidden_sizes=(4,),
        seed=1,
        **options,
    )
    return ppo_tf.Policy(actor, beta, beta_to_box)


def policy_of(**own):
    return lambda envs, **options: helpers.make_policy(envs, **own, **options)


PAIR = Box(-2.0, 2.0, (2,))
ACTIONS = {  # {name: (space, function that creates the policy)}
    "discrete": (Discrete(3), policy_of()),
    "discrete_start": (Discrete(4, start=-2), policy_of()),
    "multi_discrete": (MultiDiscrete([2, 4, 3], start=[0, -1, 5]), policy_of()),
    "multi_binary": (gymnasium.spaces.MultiBinary((2, 2)), policy_of()),
    "box_clip": (PAIR, policy_of()),
    "box_rank2_one_sided": (
        Box(np.array([[0.0], [-np.inf]]), np.array([[np.inf], [1.0]]), dtype="f8"),
        policy_of(),
    ),
    "state_dependent_scale": (PAIR, policy_of(state_dependent_scale=True)),
    **{
        name: (PAIR, policy_of(continuous=name))
        for name in (
            "tanh_gaussian",
            "beta",
            "truncated_gaussian",
            "full_covariance",
            "categorical",
        )
    },
    "own_beta": (PAIR, beta_policy),
}
OBSERVATIONS = {  # {name: (space, options of the models)}
    "box": (helpers.box(3), {}),
    "box_not_normalized": (helpers.box(3), {"normalize": False}),
    "box_float64_rank2": (Box(-1.0, 1.0, (2, 3), np.float64), {}),
    "box_uint8": (Box(0, 255, (2, 2, 3), np.uint8), {}),
    "box_scalar": (Box(-1.0, 1.0, ()), {}),
    "discrete_start": (Discrete(5, start=3), {}),
}


def falling(value):
    sizes = {"horizon": 8, "num_envs": 2, "epochs": 2, "minibatch_size": 8}
    return ppo_tf.schedule("linear", value, total_steps=64, **sizes)


LOSSES = {
    "policy_gradient": ppo_tf.PolicyGradient,
    "clip": ppo_tf.Clip,
    "clip_asymmetric": lambda: ppo_tf.Clip(0.1, 0.3),
    "kl_penalty": ppo_tf.KLPenalty,
    "kl_penalty_adaptive": lambda: ppo_tf.KLPenalty(1.0, target=0.01),
    "sum": lambda: ppo_tf.Sum([ppo_tf.Clip(), ppo_tf.EntropyBonus(0.01)]),
    "clip_schedule": lambda: ppo_tf.Clip(falling(0.2)),
    "spo": ppo_tf.SPO,
    "surrogate": ppo_tf.Surrogate,
    "clip_kl_penalty": lambda: ppo_tf.KLPenalty(1.0, estimate="k3", surrogate=ppo_tf.Clip()),
}
ESTIMATORS = {
    "reward_to_go": ppo_tf.RewardToGo,
    "n_step": ppo_tf.NStep,
    "gae": ppo_tf.GAE,
    "trajectory_return": ppo_tf.TrajectoryReturn,
}
VALUES = {  # arguments of the learner
    "squared": lambda: {"value_loss": ppo_tf.SquaredError()},
    "clipped": lambda: {"value_loss": ppo_tf.ClippedError()},
    "huber": lambda: {"value_loss": ppo_tf.Huber()},
    "no_critic": lambda: {
        "critic": None,
        "estimator": ppo_tf.RewardToGo(0.9, baseline=False),
    },
}


def trust_region(**options):
    return ppo_tf.TrustRegionUpdate(epochs=2, minibatch_size=8, cg_iterations=3, **options)


OTHERS = {  # arguments of the learner
    "default": lambda: {},
    "reward_transformation": lambda: {"reward_transformation": ppo_tf.RewardScaling()},
    "recompute_advantages": lambda: {"recompute_advantages": True},
    "early_stopping_kl": lambda: {"early_stopping_kl": 0.05},
    "batch_standardization": lambda: {"standardize_advantages": "batch"},
    "reuse": lambda: {"reuse": 2},
    "reuse_vtrace": lambda: {"reuse": 2, "estimator": ppo_tf.VTrace()},
    "npg": lambda: {"update_rule": trust_region(line_search=False)},
    "trpo": lambda: {"update_rule": trust_region()},
}
PARTS = (ACTIONS, OBSERVATIONS, LOSSES, ESTIMATORS, VALUES, OTHERS)
LONGEST = max(map(len, PARTS))
CASES = {
    "-".join(case): case
    for case in zip(*(itertools.islice(itertools.cycle(p), LONGEST) for p in PARTS), strict=True)
}

WITH_XLA = list(CASES)[::2]  # in the default run; the others are slow


def environments(name):
    action, observation, *_ = CASES[name]
    return helpers.spaces(OBSERVATIONS[observation][0], ACTIONS[action][0])


def make(name, jit_compile):
    action, observation, loss, estimator, values, others = CASES[name]
    envs, options = environments(name), OBSERVATIONS[observation][1]
    parts = {
        "critic": helpers.make_critic(envs, **options),
        "estimator": ESTIMATORS[estimator](),
        **VALUES[values](),
        **OTHERS[others](),
    }
    return ppo_tf.Learner(
        ACTIONS[action][1](envs, **options),
        # Adam takes full steps even where a gradient is only rounding noise; SGD does not.
        optimizer=keras.optimizers.SGD(0.05, global_clipnorm=5.0),
        loss=LOSSES[loss](),
        jit_compile=jit_compile,
        **({} if "update_rule" in parts else {"epochs": 2, "minibatch_size": 8}),
        **parts,
    )


def two_updates(envs, learner):
    return [learner.update(helpers.trajectory(envs, learner.policy, seed=s)) for s in range(2)]


@pytest.fixture(scope="module")
def trained():
    """Returns (learner after two updates, its metrics, numbers and metrics of a graph).

    A case is trained on first use, as a graph or with XLA, which compiles what was traced for it.
    """
    found = {}

    def get(name, xla=None):
        xla = name in WITH_XLA if xla is None else xla
        if (name, xla) not in found:
            learner = make(name, jit_compile=False)
            learner.begin_episodes(num_envs=2)  # makes the variables of each environment
            before = helpers.numbers(learner)
            graph, metrics = learner._compiled, two_updates(environments(name), learner)
            results = helpers.numbers(learner), metrics
            assert graph.experimental_get_tracing_count() == 1
            if xla:
                learner.begin_episodes(num_envs=2)  # forgets rollouts
                for variable, value in zip(learner.variables, before, strict=True):
                    variable.assign(value)
                learner.iterations = 0
                learner._compiled = tf.function(
                    lambda *arguments: graph(*arguments), autograph=False, jit_compile=True
                )
                metrics = two_updates(environments(name), learner)
                assert graph.experimental_get_tracing_count() == 1
            learner._compiled = None  # the programs of all cases would add up to 1 GB
            helpers.free_traced_functions()
            found[name, xla] = learner, metrics, *results
        return found[name, xla]

    return get


def assert_agree(numbers, metrics, other_numbers, other_metrics):
    for a, b in zip(numbers, other_numbers, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    for a, b in zip(metrics, other_metrics, strict=True):
        assert a.keys() == b.keys()
        np.testing.assert_allclose(list(a.values()), list(b.values()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_eager_and_graph_agree(name, trained):
    _, _, *graph = trained(name)
    tf.config.run_functions_eagerly(True)
    try:
        eager = make(name, jit_compile=False)
        metrics = two_updates(environments(name), eager)
    finally:
        tf.config.run_functions_eagerly(False)
    assert_agree(*graph, helpers.numbers(eager), metrics)


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n in WITH_XLA else pytest.mark.slow) for n in CASES],
)
def test_graph_and_xla_agree(name, trained):
    learner, metrics, *graph = trained(name, xla=True)
    assert_agree(*graph, helpers.numbers(learner), metrics)


@pytest.mark.parametrize("name", CASES)
def test_the_update_moves_the_policy_and_stays_finite(name, trained):
    learner, metrics, *_ = trained(name)
    assert all(np.isfinite(value) for m in metrics for value in m.values())
    fresh = make(name, jit_compile=False).policy.trainable_variables
    for before, after in zip(fresh, learner.policy.trainable_variables, strict=True):
        assert not np.allclose(before.numpy(), after.numpy(), atol=1e-7)


@pytest.mark.parametrize("name", CASES)
def test_actions_are_in_the_action_space(name, trained):
    envs = environments(name)
    policy = trained(name)[0].policy
    observations = helpers.observe(envs.single_observation_space, (16,))
    sampled = policy.action_map(policy.sample(observations, np.array([1, 2], np.int32)))
    for action in [*policy(observations).numpy(), *sampled.numpy()]:
        assert envs.single_action_space.contains(np.asarray(action))


@pytest.mark.parametrize("name", CASES)
def test_a_policy_round_trips_through_keras(name, trained, tmp_path):
    envs = environments(name)
    policy = trained(name)[0].policy
    observations = helpers.observe(envs.single_observation_space, (4,))
    policy.save(tmp_path / "policy.keras")
    loaded = keras.saving.load_model(tmp_path / "policy.keras")
    seed = np.array([1, 2], np.int32)
    np.testing.assert_array_equal(loaded(observations), policy(observations))
    np.testing.assert_array_equal(
        loaded.sample(observations, seed), policy.sample(observations, seed)
    )


def test_exported_policies_act_the_same_without_ppo_tf_and_tfp(trained, tmp_path):
    learners = {name: (environments(name), trained(name)[0]) for name in CASES}
    results = helpers.act_elsewhere(learners, tmp_path)
    for name, (envs, learner) in learners.items():
        policy = learner.policy
        observations = helpers.observe(envs.single_observation_space, (5,))
        raw = policy.sample(observations, np.array([1, 2], np.int32))
        expected = {
            "serving_default:action": policy(observations),
            "sample:action": policy.action_map(raw),
        }
        if learner.critic is not None:
            expected["value:value"] = learner.critic(observations)
        assert results[name].keys() == expected.keys()
        for key, value in expected.items():
            assert results[name][key].dtype == value.numpy().dtype, (name, key)
            np.testing.assert_allclose(
                results[name][key], value, rtol=1e-6, atol=1e-6, err_msg=name
            )
