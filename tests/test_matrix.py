"""Combinations of everything: action x observation x network x estimator x loss x update.

The cases are a pairwise cover: every two compatible values of two parts occur together in some
case. The default run takes a third of them, with every value of every part. Each takes two updates,
with a trust region one, because conjugate gradients make rounding 10,000 times as large. Eager and
graph must agree, trajectories must have the shapes of the spaces, and the exported policy must act
like the one in memory, in a separate process without ppo_tf and TFP. `test_conformance.py` compares
the parts with XLA.
"""

import itertools
import random

import helpers
import keras
import numpy as np
import pytest
import tensorflow as tf
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple

import ppo_tf
from ppo_tf import spaces
from ppo_tf.spaces.masks import segment_sizes

PAIR = Box(-2.0, 2.0, (2,))
ACTIONS = {  # MultiBinary and the clipped Gaussian are covered by the hybrid
    "discrete": (Discrete(3, start=-1), "clipped_gaussian"),
    "multi_discrete": (helpers.MULTI_DISCRETE, "clipped_gaussian"),
    "tanh_gaussian": (PAIR, "tanh_gaussian"),
    "beta": (PAIR, "beta"),
    "truncated_gaussian": (PAIR, "truncated_gaussian"),
    "full_covariance": (PAIR, "full_covariance"),
    "gsde": (PAIR, "gsde"),
    "categorical": (PAIR, "categorical"),
    "hybrid": (helpers.HYBRID, "clipped_gaussian"),
}
OBSERVATIONS = {  # Discrete is covered by the nested one
    "box": helpers.box(3),
    "image_first": Box(0, 255, (3, 8, 8), np.uint8),
    "nested": helpers.NESTED,
    "goal": Dict(  # only the critic sees achieved_goal
        observation=helpers.box(2), achieved_goal=helpers.box(1), desired_goal=helpers.box(1)
    ),
    "tuple": Tuple((MultiDiscrete([2, 3]), MultiBinary(2), Box(0, 9, (2,), np.int32))),
    "masked": None,  # depends on the action
}
NETWORKS = ("mlp", "shared", "lstm", "residual")  # for other cells see `test_recurrent.py`
ESTIMATORS = {
    "trajectory_return": ppo_tf.TrajectoryReturn,
    "reward_to_go": ppo_tf.RewardToGo,
    "n_step": ppo_tf.NStep,
    "gae": ppo_tf.GAE,
    "vtrace": ppo_tf.VTrace,
}
LOSSES = {
    "clip": lambda: ppo_tf.Sum([ppo_tf.Clip(), ppo_tf.EntropyBonus(0.01)]),
    "kl_penalty": lambda: ppo_tf.KLPenalty(1.0, target=0.01),
    "policy_gradient": ppo_tf.PolicyGradient,
    "spo": ppo_tf.SPO,
}
MINIBATCHES = {"epochs": 1, "minibatch_size": 8}
UPDATES = {
    "minibatches": lambda: MINIBATCHES,
    "reuse": lambda: {"reuse": 2, **MINIBATCHES},
    "npg": lambda: {"update_rule": ppo_tf.TrustRegionUpdate(line_search=False, **MINIBATCHES)},
    "trpo": lambda: {"update_rule": ppo_tf.TrustRegionUpdate(**MINIBATCHES)},
}
PARTS = (ACTIONS, OBSERVATIONS, NETWORKS, ESTIMATORS, LOSSES, UPDATES)
MASKABLE = ("discrete", "multi_discrete", "hybrid")


def possible(case):
    action, observation, network, estimator, _, update = case
    if observation == "masked" and action not in MASKABLE:
        return False
    if estimator == "vtrace" and update != "reuse":  # without other policies it is GAE
        return False
    if (network, update) in {("shared", "npg"), ("shared", "trpo"), ("lstm", "reuse")}:
        return False
    # A shared trunk cannot see what only the critic may.
    return not (observation == "goal" and network == "shared")


def cover():
    """Returns cases in which every possible pair of two parts' values occurs.

    The choice is greedy, so not minimal. In a tie it prefers cases without a memory, which take
    half as long to trace.
    """
    everything = [case for case in itertools.product(*PARTS) if possible(case)]
    random.Random(0).shuffle(everything)

    def pairs(case):
        return set(itertools.combinations(enumerate(case), 2))

    missing, chosen = set().union(*map(pairs, everything)), []
    while missing:
        best = max(everything, key=lambda case: (len(pairs(case) & missing), case[2] != "lstm"))
        chosen.append(best)
        missing -= pairs(best)
    return chosen


CASES = cover()
QUICK = CASES[::3]  # in the default run; the others are slow
QUICK += [next(case for case in CASES if case[0] == "beta")]  # the one value that none has
IDS = ["-".join(case) for case in CASES]
each_case = pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=[] if c in QUICK else pytest.mark.slow) for c in CASES],
    ids=IDS,
)


def masks_for(space):
    leaves = spaces.leaves(space)
    if not isinstance(leaves, dict):
        return MultiBinary(sum(segment_sizes(leaves)))
    return Dict(  # nested like the hybrid space; its other leaves are unmasked
        move=MultiBinary(sum(segment_sizes(leaves["move"]))),
        arm=Dict({"1": MultiBinary(sum(segment_sizes(leaves["arm/1"])))}),
    )


def environments(case):
    space, _ = ACTIONS[case[0]]
    observation = OBSERVATIONS[case[1]]
    if observation is None:
        observation = Dict(observation=helpers.box(3), action_mask=masks_for(space))
    return helpers.spaces(observation, space)


def make_learner(case):
    action, observation, network, estimator, loss, update = case
    envs, continuous = environments(case), ACTIONS[action][1]
    hidden = {"exclude": ["achieved_goal"]} if observation == "goal" else {}
    if network == "shared":
        spec = ppo_tf.action_spec(envs.single_action_space, continuous=continuous)
        actor, critic = ppo_tf.shared_actor_critic(envs, spec, hidden_sizes=(8,), seed=1)
        policy = ppo_tf.Policy(actor, spec.family, spec.action_map)
    else:
        cell = network if network == "lstm" else None
        blocks = {} if network != "residual" else {"network": network, "residual_width": 4}
        policy = helpers.make_policy(envs, continuous=continuous, cell=cell, **hidden, **blocks)
        critic = helpers.make_critic(envs, cell=cell, **blocks)
    return envs, ppo_tf.Learner(
        policy,
        critic,
        keras.optimizers.SGD(0.05, global_clipnorm=5.0),
        ESTIMATORS[estimator](),
        LOSSES[loss](),
        **UPDATES[update](),
        sequence_length=2,
        jit_compile=False,
    )


def updated(case, envs, learner):
    seeds = range(1 if case[-1] in ("npg", "trpo") else 2)
    trajectories = [helpers.trajectory(envs, learner.policy, 4, 4, seed=seed) for seed in seeds]
    return trajectories, [learner.update(trajectory) for trajectory in trajectories]


@pytest.fixture(scope="module")
def trained():
    """Returns a case after its updates in graph mode, trained on first use."""
    found = {}

    def get(case):
        if case not in found:
            envs, learner = make_learner(case)
            results = updated(case, envs, learner)
            learner._compiled = None  # the graphs of all cases would add up to 1 GB
            if len(found) % 5 == 0:
                helpers.free_traced_functions()
            found[case] = envs, learner, *results
        return found[case]

    return get


def test_the_default_run_has_every_value_of_every_part():
    for index, part in enumerate(PARTS):
        assert {case[index] for case in QUICK} == set(part)


@each_case
def test_eager_and_graph_agree(case, trained):
    envs, learner, trajectories, metrics = trained(case)
    for trajectory in trajectories:
        for nest, space in (
            (trajectory.observations, envs.single_observation_space),
            (trajectory.next_observations, envs.single_observation_space),
        ):
            leaves = spaces.leaves(space)
            tf.nest.assert_same_structure(nest, leaves)
            for array, leaf in zip(tf.nest.flatten(nest), tf.nest.flatten(leaves), strict=True):
                assert array.shape == (4, 4, *leaf.shape) and array.dtype == leaf.dtype
    tf.config.run_functions_eagerly(True)
    try:
        _, eager = make_learner(case)
        _, eager_metrics = updated(case, envs, eager)
    finally:
        tf.config.run_functions_eagerly(False)
    for a, b in zip(helpers.numbers(learner), helpers.numbers(eager), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    for a, b in zip(metrics, eager_metrics, strict=True):
        assert a.keys() == b.keys() and all(np.isfinite(value) for value in a.values())
        np.testing.assert_allclose(list(a.values()), list(b.values()), rtol=1e-3, atol=1e-4)


@each_case
def test_the_updated_policy_acts_in_the_action_space(case, trained):
    envs, learner, *_ = trained(case)
    policy, count = learner.policy, 6
    observations = helpers.observe(envs.single_observation_space, (count,))
    parameters, _ = policy.step(observations, policy.initial_state(count))
    for seed in (None, (1, 2)):
        actions = policy.action_map(policy.draw(parameters, seed))
        assert helpers.contained(envs.single_action_space, actions)


@pytest.mark.parametrize("case", QUICK, ids=map("-".join, QUICK))
def test_the_updated_policy_round_trips_through_keras(case, trained, tmp_path):
    envs, learner, *_ = trained(case)
    learner.policy.save(tmp_path / "policy.keras")
    loaded = keras.saving.load_model(tmp_path / "policy.keras")
    observations = helpers.observe(envs.single_observation_space, (4,))
    made = [
        policy.action_map(
            policy.draw(policy.step(observations, policy.initial_state(4))[0], (1, 2))
        )
        for policy in (learner.policy, loaded)
    ]
    helpers.assert_close(*made, rtol=0, atol=0)


@pytest.mark.parametrize("chosen", [QUICK, pytest.param(CASES, marks=pytest.mark.slow)])
def test_exported_policies_act_the_same_without_ppo_tf_and_tfp(chosen, trained, tmp_path):
    cases = {"-".join(case): case for case in chosen}
    results = helpers.act_elsewhere({k: trained(case)[:2] for k, case in cases.items()}, tmp_path)
    for name, case in cases.items():
        envs, learner, *_ = trained(case)
        check_exported(name, envs, learner, results[name])


def check_exported(name, envs, learner, out):
    policy = learner.policy
    observations = helpers.observe(envs.single_observation_space, (5,))
    state = [s + 0.1 for s in policy.initial_state(5)]
    parameters, after = policy.step(observations, state)
    for signature, seed in (("serving_default", None), ("sample", (1, 2))):
        actions = policy.action_map(policy.draw(parameters, seed))
        named = actions if isinstance(actions, dict) else {"": actions}
        for path, expected in named.items():
            key = f"{signature}:{spaces.result_names(named)[path]}"
            assert out[key].dtype == expected.numpy().dtype, name
            np.testing.assert_allclose(out[key], expected, rtol=1e-5, atol=1e-5, err_msg=name)
        for i, expected in enumerate(after):
            np.testing.assert_allclose(
                out[f"{signature}:state_{i}"], expected, rtol=1e-5, atol=1e-5, err_msg=name
            )
    from ppo_tf.networks.recurrent import initial_state, step

    values, _ = step(
        learner.critic, observations, [s + 0.1 for s in initial_state(learner.critic, 5)]
    )
    np.testing.assert_allclose(out["value:value"], values, rtol=1e-5, atol=1e-5, err_msg=name)
