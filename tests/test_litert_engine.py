"""The LiteRT engine alone: what was converted acts in a process that has no TensorFlow."""

import pickle
import subprocess
import sys

import helpers
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from ppo_tf.policies.litert_conversion import convert
from ppo_tf.policies.litert_engine import LiteRTEngine
from ppo_tf.policies.policy_step import PolicyStep

BATCH, STEPS = 3, 4
CASES = {
    "plain": (helpers.box(3), Box(-2.0, 2.0, (2,)), {}),
    "composite": (helpers.NESTED, helpers.HYBRID, {}),
    "memory": (helpers.box(3), Discrete(3), {"cell": "lstm"}),
}

ELSEWHERE = """
import pickle, sys
for name in ("tensorflow", "keras", "tensorflow_probability", "tf_keras"):
    sys.modules[name] = None
from ppo_tf.policies.litert_engine import LiteRTEngine
with open(sys.argv[1], "rb") as file:
    jobs = pickle.load(file)
made = {}
for name, (model, weights, noise, rollout) in jobs.items():
    engine = LiteRTEngine(model)
    engine.begin(weights, noise)
    made[name] = [engine(*step) for step in rollout], engine.state
with open(sys.argv[2], "wb") as file:
    pickle.dump(made, file)
"""


def make_step(name):
    """(a policy's step, the space of its observations)."""
    observation_space, action_space, options = CASES[name]
    envs = helpers.spaces(observation_space, action_space)
    envs.num_envs = BATCH
    return PolicyStep(helpers.make_policy(envs, **options), envs), observation_space


@pytest.fixture(scope="module")
def jobs():
    """{case: (model, weights, noise, arguments of each step)}."""
    made = {}
    for name in CASES:
        step, space = make_step(name)
        weights = [weight + np.float32(0.1) for weight in step.read_weights()]
        noise = step.draw_noise(np.random.default_rng(1), STEPS)
        starts = np.arange(BATCH) == np.arange(STEPS)[:, None]
        rollout = [
            (helpers.seen(space, (BATCH,), seed=t), t, starts[t].copy()) for t in range(STEPS)
        ]
        made[name] = (convert(step), weights, noise, rollout)
    return made


@pytest.fixture(scope="module")
def elsewhere(jobs, tmp_path_factory):
    """{case: (results of each step, memory at the end)}, computed in a process of its own."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "jobs").write_bytes(pickle.dumps(jobs))
    command = [sys.executable, "-c", ELSEWHERE, folder / "jobs", folder / "made"]
    subprocess.run(command, check=True, timeout=100)
    return pickle.loads((folder / "made").read_bytes())


@pytest.mark.parametrize("name", CASES)
def test_a_process_without_tensorflow_acts_as_this_one(name, jobs, elsewhere):
    model, weights, noise, rollout = jobs[name]
    engine = LiteRTEngine(model)
    engine.begin(weights, noise)
    made = [engine(*step) for step in rollout], engine.state
    helpers.assert_close(elsewhere[name], made, rtol=0, atol=0)


def test_the_given_weights_act_not_those_of_the_conversion(jobs):
    model, weights, noise, rollout = jobs["plain"]
    engine = LiteRTEngine(model)
    engine.begin(weights, noise)
    one, _ = engine(*rollout[0])
    engine.begin([0.0 * weight for weight in weights], noise)
    other, _ = engine(*rollout[0])
    assert (one != other).all()


def test_engines_of_one_model_have_memories_of_their_own(jobs):
    model, weights, noise, rollout = jobs["memory"]
    one, other = LiteRTEngine(model), LiteRTEngine(model)
    one.begin(weights, noise)
    one(*rollout[0])
    assert all(part.any() for part in one.state)
    assert not any(part.any() for part in other.state)


def test_another_number_of_weights_is_an_error(jobs):
    model, weights, noise, _ = jobs["plain"]
    with pytest.raises(ValueError, match="shorter"):
        LiteRTEngine(model).begin(weights[:-1], noise)
