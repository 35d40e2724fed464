"""The report of a dry run: its sizes against those of the real objects."""

import json
import subprocess
import sys
from pathlib import Path

import environments
import gymnasium
import helpers
import numpy as np
import pytest
import tensorflow as tf

import ppo_tf
from ppo_tf.command import report
from ppo_tf.training.checkpoints import learner_variables

pytestmark = pytest.mark.usefixtures("eager")

environments.register()

HORIZON, NUM_ENVS = 8, 3
FINE = "ppo_tf_tests/Fine-v0"


class Fine(environments.Counting):
    """Observations of float64, stored as float32."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)

    def _observation(self):
        return super()._observation().astype(np.float64)


if FINE not in gymnasium.registry:
    gymnasium.register(FINE, Fine, disable_env_checker=True)


def make(env_id, cell=None, shared=False, critic=True, **options):
    """(learner, environments)."""
    envs = ppo_tf.make_envs(env_id, NUM_ENVS)
    if shared:
        spec = ppo_tf.action_spec(envs.single_action_space)
        actor, value = ppo_tf.shared_actor_critic(envs, spec, hidden_sizes=(8,))
        policy = ppo_tf.Policy(actor, spec.family, spec.action_map)
    else:
        policy = helpers.make_policy(envs, cell=cell)
        value = helpers.make_critic(envs, cell=cell) if critic else None
    options = {"minibatch_size": 12, "epochs": 1, "sequence_length": 4, **options}
    return ppo_tf.Learner(policy, value, jit_compile=False, **options), envs


def size(tensors):
    return sum(np.asarray(tensor).nbytes for tensor in tf.nest.flatten(tensors))


@pytest.mark.parametrize(
    ("env_id", "cell"),
    [
        (environments.NESTED_COUNTING, "gru"),  # a Dict with images and a Tuple, a Dict of actions
        (FINE, None),
        ("Taxi-v4", None),  # integers, and masks
    ],
)
def test_sizes_match_a_real_rollout_and_real_variables(env_id, cell):
    learner, envs = make(env_id, cell, reward_transformation=ppo_tf.RewardScaling(0.9))
    parts = report.expected_memory(learner, envs, HORIZON)
    collector = ppo_tf.VectorCollector(envs, learner.policy, HORIZON, acting="tensorflow")
    trajectory, _ = collector.collect()
    specs = report.trajectory_specs(learner, envs, HORIZON)
    tf.nest.assert_same_structure(tuple(specs), tuple(trajectory))
    for spec, array in zip(tf.nest.flatten(specs), tf.nest.flatten(trajectory), strict=True):
        assert (tuple(spec.shape), spec.dtype) == (array.shape, array.dtype)
    assert parts["trajectory, observations and next observations"] == size(trajectory)
    learner.update(trajectory)
    models = [*learner.policy.variables, *learner.critic.variables]
    assert parts["parameters"] == size(models)
    assert parts["optimiser"] == size(learner.optimizer.variables)
    assert parts["snapshot to undo an update"] == size(learner.variables)
    parameters, _ = learner.policy.unroll(
        tf.nest.map_structure(tf.constant, trajectory.observations),
        learner.policy.initial_state(NUM_ENVS),
        tf.constant(trajectory.starts),
    )
    results = [parameters, *[np.zeros((HORIZON, NUM_ENVS), np.float32)] * 4]
    assert parts["old distributions, values, advantages, targets"] == size(results)


def test_layers_shared_by_actor_and_critic_count_once():
    learner, envs = make("CartPole-v1", shared=True)
    parts = report.expected_memory(learner, envs, HORIZON)
    shared = {id(v): v for m in (learner.policy, learner.critic) for v in m.variables}
    assert parts["parameters"] == size(list(shared.values()))
    assert parts["parameters"] < size([*learner.policy.variables, *learner.critic.variables])


def test_activations_match_the_widest_layers():
    """1,000 rows of two successive layers of 64, in the actor and the critic, for s and s'; if the
    minibatch is as large as the trajectory, its layers' outputs and their gradients."""
    envs = ppo_tf.make_envs("CartPole-v1", 10)
    policy = ppo_tf.mlp_policy(envs, hidden_sizes=(64, 64, 2))
    critic = ppo_tf.mlp_critic(envs, hidden_sizes=(64, 64, 2))

    def activations(minibatch_size, jit_compile):
        learner = ppo_tf.Learner(
            policy, critic, minibatch_size=minibatch_size, jit_compile=jit_compile
        )
        parts = report.expected_memory(learner, envs, 100)
        return parts["activations and gradients of a minibatch"]

    layers = 1000 * (64 + 64) * 4
    assert activations(10, True) == pytest.approx(2 * layers, rel=0.05)
    assert activations(10, False) == pytest.approx(3 * layers, rel=0.05)
    # The outputs of two layers of both models, and the gradients propagated back.
    assert 2 * layers < activations(1000, True) < 4 * layers


def test_the_peak_of_a_graph_is_the_most_memory_in_use_at_once():
    """float32 [100] is 400 bytes; the input does not count."""

    @tf.function(autograph=False)
    def function(x):
        a = tf.reshape(tf.reshape(2.0 * x, (5, 20)), (10, 10))  # 400 bytes, once
        b = tf.concat([a, a], 0)  # 800, and a is still needed
        c = tf.abs(b)  # 800: now it is 2,000
        return tf.reduce_max(tf.tanh(c)) + tf.reduce_sum(a)  # 2,000 again, without b

    graph = function.get_concrete_function(tf.TensorSpec((100,))).graph
    assert 2000 <= report.peak_bytes(graph) < 2000 + 100  # plus shapes and axes


def test_the_report_changes_nothing():
    learner, envs = make("CartPole-v1", cell="gru")
    other, same = make("CartPole-v1", cell="gru")
    ppo_tf.dry_run_report(learner, envs, HORIZON)
    for one, model in ((learner, envs), (other, same)):
        ppo_tf.fit(one, model, total_steps=HORIZON * NUM_ENVS, horizon=HORIZON)
    for a, b in zip(learner.variables, other.variables, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("columns", [70, 200])
def test_the_report_shows_every_layer_and_adds_up(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    learner, envs = make("CartPole-v1")
    text = ppo_tf.dry_run_report(learner, envs, HORIZON)
    assert max(len(line) for line in text.splitlines()) <= 100
    for layer in [*learner.policy.actor.layers, *learner.critic.layers]:
        assert layer.name in text
    actor, critic = learner.policy.actor.count_params(), learner.critic.count_params()
    for count in (actor, critic):
        assert f"Total params: {count:,}" in text
        assert text.count("Param #") == 2
    assert f"{actor + critic:,} parameters in actor and critic" in text
    assert f"trajectories of [{HORIZON}, {NUM_ENVS}]" in text
    lines = [line.rsplit(None, 2) for line in text.splitlines() if line.endswith(" MB")]
    numbers = [float(number.replace(",", "")) for _, number, _ in lines]
    assert sum(numbers[:-2]) == pytest.approx(numbers[-2], abs=0.5)


def test_without_a_critic_the_report_shows_none():
    learner, envs = make("CartPole-v1", critic=False)
    text = ppo_tf.dry_run_report(learner, envs, HORIZON)
    assert "critic:" not in text and "actor:" in text


def test_the_size_of_a_checkpoint_matches_the_file(tmp_path):
    learner, _ = make("CartPole-v1", cell="lstm")
    learner.begin_episodes(NUM_ENVS)
    path = ppo_tf.Checkpoints(tmp_path).save(1, learner_variables(learner), {})
    names = 1024 * (len(learner.variables) + 2)
    assert 0 < path.stat().st_size - report.checkpoint_bytes(learner) < names


def test_minibatches_that_do_not_divide_are_an_error():
    learner, envs = make("CartPole-v1", minibatch_size=7)
    with pytest.raises(ValueError, match="minibatch_size=7"):
        ppo_tf.dry_run_report(learner, envs, HORIZON)


MEASURE = """
import json, sys
import ppo_tf
from ppo_tf.command import report
from ppo_tf.command.presets import resolve

env_id, given = json.loads(sys.argv[1])
s = {name: setting.value for name, setting in resolve(env_id, given).items()}
envs = ppo_tf.make_envs(env_id, s["num_envs"], training=True)
learner = ppo_tf.learner_from_settings(envs, s)
expected = sum(report.expected_memory(learner, envs, s["horizon"]).values())
ppo_tf.fit(learner, envs, total_steps=2 * s["horizon"] * s["num_envs"], horizon=s["horizon"])
(line,) = (line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([expected, 1024 * int(line.split()[1])]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("env_id", "settings"),
    [
        ("CartPole-v1", {}),
        ("HalfCheetah-v5", {}),
        ("ALE/Breakout-v5", {}),
        ("CartPole-v1", {"hidden_sizes": [1024, 1024], "num_envs": 256, "minibatch_size": 1024}),
    ],
)
def test_the_estimate_is_within_30_percent_of_a_real_training(env_id, settings):
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, json.dumps([env_id, settings])],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=True,
    )
    expected, measured = json.loads(done.stdout)
    assert expected == pytest.approx(measured, rel=0.3), (expected, measured)
