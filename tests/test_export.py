"""The contents of an exported folder; nothing is overwritten or left half-written."""

import json

import gymnasium
import helpers
import numpy as np
import pytest
import tensorflow as tf

import ppo_tf
from ppo_tf.artefacts.saved_model import TracedPolicy
from ppo_tf.command import running

ENVS = helpers.spaces(helpers.box(3), gymnasium.spaces.Box(-2.0, 2.0, (1,)))


def test_the_signatures_accept_any_batch_and_name_their_outputs(tmp_path):
    policy, critic = helpers.make_policy(ENVS), helpers.make_critic(ENVS)
    path = ppo_tf.export_policy(policy, tmp_path / "new" / "policy", critic=critic)
    signatures = tf.saved_model.load(str(path)).signatures
    assert sorted(signatures) == ["sample", "serving_default", "value"]
    for batch in (1, 7):
        observation = tf.zeros((batch, 3))
        assert signatures["serving_default"](observation=observation)["action"].shape == (batch, 1)
        assert signatures["value"](observation=observation)["value"].shape == (batch,)
        draws = [
            signatures["sample"](observation=observation, seed=tf.constant(seed, tf.int32))[
                "action"
            ]
            for seed in ([0, 1], [0, 1], [0, 2])
        ]
        np.testing.assert_array_equal(draws[0], draws[1])
        assert not np.allclose(draws[0], draws[2])


def test_the_exported_policy_does_not_follow_later_changes(tmp_path):
    policy = helpers.make_policy(ENVS)
    observations = helpers.observe(ENVS.single_observation_space, (4,))
    expected = policy(observations).numpy()
    path = ppo_tf.export_policy(policy, tmp_path / "policy")
    for variable in policy.trainable_variables:
        variable.assign(variable + 1.0)
    assert not np.allclose(policy(observations), expected)
    serve = tf.saved_model.load(str(path)).signatures["serving_default"]
    action = serve(observation=tf.constant(observations))["action"]
    np.testing.assert_allclose(action, expected, rtol=1e-6, atol=1e-6)


def test_a_policy_traced_before_training_is_written_with_its_weights_of_then(tmp_path):
    policy, critic = helpers.make_policy(ENVS), helpers.make_critic(ENVS)
    traced = TracedPolicy(policy, critic)
    for variable in [*policy.trainable_variables, *critic.trainable_variables]:
        variable.assign(variable + 0.5)
    observations = tf.constant(helpers.observe(ENVS.single_observation_space, (4,)))
    signatures = tf.saved_model.load(str(traced.write(tmp_path / "policy"))).signatures
    action = signatures["serving_default"](observation=observations)["action"]
    np.testing.assert_allclose(action, policy(observations), rtol=1e-6, atol=1e-6)
    value = signatures["value"](observation=observations)["value"]
    np.testing.assert_allclose(value, critic(observations), rtol=1e-6, atol=1e-6)


def test_a_policy_with_variables_of_its_own_is_refused_when_it_is_traced():
    policy, scale = helpers.make_policy(ENVS), tf.Variable(2.0)
    policy.action_map = lambda raw: scale * raw
    with pytest.raises(ValueError, match="outside its models"):
        TracedPolicy(policy)


@pytest.mark.parametrize("dry", [True, False])
def test_what_cannot_be_exported_is_said_before_training(dry, run, tmp_path, monkeypatch, capfd):
    make = running.learner_from_settings

    def broken(envs, settings):
        learner = make(envs, settings)
        learner.policy.action_map = lambda raw: raw.numpy()  # not in a graph
        return learner

    monkeypatch.setattr(running, "learner_from_settings", broken)
    tiny = ["--env=CartPole-v1", "--hidden_sizes=4", *["--dry_run"] * dry]
    assert run(*tiny) == 2
    captured = capfd.readouterr()
    assert captured.out == "" and list(tmp_path.iterdir()) == []
    (line,) = [line for line in captured.err.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: The policy could not be exported at the end: AttributeError")


def test_metadata_is_kept(tmp_path):
    path = ppo_tf.export_policy(helpers.make_policy(ENVS), tmp_path / "p", metadata={"env": "E-v0"})
    assert json.loads((path / "assets.extra" / "policy.json").read_text()) == {
        "env": "E-v0",
        "names": {"observations": {"": "observation"}, "actions": {"": "action"}},
    }


def test_an_existing_folder_is_never_overwritten(tmp_path):
    (tmp_path / "policy").mkdir()
    message = "path already exists and will not be overwritten. Received: path=.*policy"
    with pytest.raises(FileExistsError, match=message):
        ppo_tf.export_policy(helpers.make_policy(ENVS), tmp_path / "policy")
    assert list((tmp_path / "policy").iterdir()) == []


def test_a_saved_policy_is_replaced_only_on_request(tmp_path):
    observations = tf.constant(helpers.observe(ENVS.single_observation_space, (4,)))
    for seed in (1, 2):
        policy = helpers.make_policy(ENVS, seed=seed)
        ppo_tf.export_policy(policy, tmp_path / "policy", replace=True)
        serve = tf.saved_model.load(str(tmp_path / "policy")).signatures["serving_default"]
        action = serve(observation=observations)["action"]
        np.testing.assert_allclose(action, policy(observations), rtol=1e-6, atol=1e-6)
        assert [path.name for path in tmp_path.iterdir()] == ["policy"]
    with pytest.raises(FileExistsError, match="exists and will not be overwritten"):
        ppo_tf.export_policy(policy, tmp_path / "policy")
    # A SavedModel without our metadata is somebody else's.
    (tmp_path / "policy" / "assets.extra" / "policy.json").unlink()
    message = r"not a folder with a assets.extra.policy\.json .*path=.*policy"
    with pytest.raises(FileExistsError, match=message):
        ppo_tf.export_policy(policy, tmp_path / "policy", replace=True)


def test_a_path_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match=r"file is not a folder. Received: path=.*policy"):
        ppo_tf.check_new_folder(tmp_path / "file" / "policy")


def test_a_failed_export_leaves_nothing(tmp_path):
    with pytest.raises(TypeError):
        ppo_tf.export_policy(helpers.make_policy(ENVS), tmp_path / "p", metadata={"bad": object()})
    assert list(tmp_path.iterdir()) == []


def test_outputs_that_do_not_match_the_distribution_are_refused_naming_both():
    actor = ppo_tf.mlp(helpers.box(3), {"mean": 1, "scale_diag": 1})
    family = ppo_tf.action_spec(ENVS.single_action_space).family
    with pytest.raises(
        ValueError, match=r"outputs=\['mean', 'scale_diag'\], .*takes \['loc', 'scale"
    ):
        ppo_tf.Policy(actor, family, lambda raw: raw)
