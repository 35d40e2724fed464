"""Learning on two devices takes the steps of learning on one."""

import json
import re
import subprocess
import sys
from pathlib import Path

import helpers
import keras
import pytest
import tensorflow as tf

import ppo_tf
from ppo_tf.command import components
from ppo_tf.command.settings import DEFAULTS
from ppo_tf.learning.replicas import mirrored

PROGRAM = Path(__file__).with_name("two_devices.py")
ENVS = helpers.spaces(helpers.box(3), helpers.box(2))
ROUNDING = 1e-6  # of sums in another order: absolute, and relative above 1


def report(cases, folder):
    """What the program `two_devices.py` saw."""
    path = folder / "report.json"
    command = [sys.executable, str(PROGRAM), cases, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    return report("everything,refused", tmp_path_factory.mktemp("replicas"))


@pytest.fixture(scope="module")
def more(tmp_path_factory):
    cases = "batch,shared,recurrent,reused,compiled,acting"
    return report(cases, tmp_path_factory.mktemp("replicas"))


def check_equal(case):
    assert case["variables"] <= ROUNDING and case["metrics"] <= ROUNDING
    assert case["moved"] > 0.01  # it learned something that could have differed


def test_twenty_updates_on_two_devices_are_those_on_one(seen):
    """Weights, moments, statistics and metrics, with invalid rows on one of the devices only."""
    case = seen["everything"]
    check_equal(case)
    assert {"model_loss", "gradient_norm", "clip_fraction", "kl"} <= set(case["names"])


def test_the_devices_agree_on_the_penalty_and_on_when_to_stop(seen):
    """These depend on divergences, which are those of the whole minibatch and batch."""
    case = seen["everything"]
    assert len(set(case["kl_coefficients"])) > 3
    assert min(case["steps"]) < max(case["steps"]) == 8


def test_a_gradient_step_has_one_reduction(seen):
    """In the graph of the update, where a loop repeats it."""
    assert seen["everything"]["reductions"] == 1


def test_the_copies_of_all_variables_stay_equal(seen):
    assert seen["everything"]["copies"] == 0.0


def test_an_update_that_fails_is_undone_on_both_devices(seen):
    undone = seen["everything"]["undone"]
    assert "policy_loss became nan" in undone["message"]
    assert undone["same"] and undone["copies"] == 0.0


def test_a_checkpoint_does_not_depend_on_the_number_of_devices(seen):
    for restored in seen["everything"]["restored"]:
        assert restored["moved"] > ROUNDING
        assert restored["exact"] == 0.0 and restored["later"] <= ROUNDING


def test_minibatches_that_leave_a_device_idle_are_refused(seen):
    assert seen["refused"].startswith("minibatch_size must give each device a sequence at least.")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["batch", "shared", "recurrent", "reused", "compiled"])
def test_other_parts_learn_the_same_on_two_devices(more, name):
    check_equal(more[name])


@pytest.mark.slow
def test_a_policy_with_copies_acts_and_is_exported(more):
    acting = more["acting"]
    assert acting["exported"] <= ROUNDING and acting["weights"] and acting["collected"] == 3


@pytest.mark.slow
def test_the_example_in_the_documents_runs():
    page = (Path(ppo_tf.__file__).parents[1] / "docs" / "several_devices.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    namespace: dict = {}
    exec(example, namespace)
    assert namespace["learner"].iterations == 2


# One device is enough for what is checked before learning.


@pytest.fixture(scope="module")
def strategy():
    return tf.distribute.MirroredStrategy(["CPU:0"])


def learner(strategy, **options):
    policy, critic = helpers.make_policy(ENVS), helpers.make_critic(ENVS)
    options = {"minibatch_size": 8, "epochs": 1, "jit_compile": False, **options}
    return ppo_tf.Learner(policy, critic, strategy=strategy, **options)


def test_variables_made_outside_of_the_scope_are_refused(strategy):
    with pytest.raises(ValueError, match=r"in the scope of strategy.*policy/.*made outside"):
        learner(strategy)
    loss = ppo_tf.losses.KLPenalty()
    with strategy.scope(), pytest.raises(ValueError, match="loss/coefficient, made outside"):
        learner(strategy, loss=loss)


def test_what_cannot_use_several_devices_is_refused(strategy):
    with pytest.raises(ValueError, match=r"strategy must be a tf\.distribute.MirroredStrategy"):
        learner(tf.distribute.OneDeviceStrategy("CPU:0"))
    rule = ppo_tf.TrustRegionUpdate()
    options = {"minibatch_size": 8, "epochs": 1, "jit_compile": False}
    with strategy.scope():
        policy = helpers.make_policy(ENVS)
        with pytest.raises(ValueError, match=r"update_rule must take replicas.*TrustRegionUpdate"):
            ppo_tf.Learner(policy, update_rule=rule, strategy=strategy)
        made = ppo_tf.Learner(policy, estimator=ppo_tf.RewardToGo(), strategy=strategy, **options)
        with pytest.raises(RuntimeError, match=r"update must be called outside of strategy\.scope"):
            made.update(helpers.trajectory(ENVS, policy))


def test_more_devices_than_there_are_are_refused():
    assert mirrored(1) is None
    count = len(tf.config.list_logical_devices("CPU"))
    with pytest.raises(ValueError, match=f"at most {count}, .* Received: devices={count + 1}"):
        mirrored(count + 1)


def test_the_setting_makes_everything_on_these_devices(monkeypatch, strategy):
    monkeypatch.setattr(components, "mirrored", {2: strategy}.get)
    envs = ppo_tf.make_envs("CartPole-v1", 1)
    made = components.learner_from_settings(envs, {**DEFAULTS, "devices": 2})
    made.begin_episodes(1)
    assert made.strategy is strategy
    values = [v.value if isinstance(v, keras.Variable) else v for v in made.variables]
    assert all(strategy.extended.variable_created_in_scope(value) for value in values)
