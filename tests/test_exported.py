"""An exported policy acts like the policy in memory, and only in matching environments."""

import json
import shutil

import environments
import gymnasium
import helpers
import numpy as np
import pytest
import tensorflow as tf

import ppo_tf
from ppo_tf import ops
from ppo_tf.artefacts.exported import read_metadata

environments.register()

ENVS = helpers.spaces(helpers.box(3), gymnasium.spaces.Box(-2.0, 2.0, (1,)))


@pytest.mark.parametrize(
    ("env_id", "cell"),
    [(environments.NESTED_COUNTING, "lstm"), ("Taxi-v4", None), ("Blackjack-v1", "gru")],
)
def test_its_episodes_match_those_of_the_policy(env_id, cell, tmp_path):
    """One object serves all evaluations: with many environments, with one, and with many again."""
    envs = ppo_tf.make_envs(env_id)
    policy = helpers.make_policy(envs, cell=cell)
    exported = ppo_tf.ExportedPolicy(ppo_tf.export_policy(policy, tmp_path / "policy"), envs)
    for num_envs in (3, 1, 3):
        options = {"episodes": 5, "seed": 4, "num_envs": num_envs}
        expected = ppo_tf.evaluate(policy, env_id, **options)
        assert ppo_tf.evaluate(exported, env_id, **options) == expected


@pytest.mark.parametrize("deterministic", [True, False])
def test_it_acts_and_remembers_like_the_policy(deterministic, tmp_path):
    """A leaf may have a name like those of the states in the signature."""
    leaves = {"state_of_charge": helpers.box(2), "other": helpers.box(3)}
    envs = helpers.spaces(gymnasium.spaces.Dict(leaves), gymnasium.spaces.Discrete(3))
    policy = helpers.make_policy(envs, cell="gru")
    path = ppo_tf.export_policy(policy, tmp_path / "policy")
    exported = ppo_tf.ExportedPolicy(path, envs, deterministic=deterministic)
    state = policy.initial_state(40)
    for step in range(4):
        observations = helpers.observe(envs.single_observation_space, (40,), step)
        starts = np.arange(40) % 3 == 0 if step else np.ones(40, bool)
        seed = np.array([step, 7], np.int32)
        parameters, state = policy.step(observations, ops.emptied(starts, state))
        raw = policy.draw(parameters, None if deterministic else seed)
        expected = policy.action_map(raw).numpy()
        np.testing.assert_array_equal(exported(observations, seed, starts), expected)


def test_it_needs_no_leaves_that_only_the_critic_sees(tmp_path):
    space = gymnasium.spaces.Dict({"seen": helpers.box(2), "hidden": helpers.box(5)})
    envs = helpers.spaces(space, gymnasium.spaces.Discrete(3))
    policy = helpers.make_policy(envs, exclude=("hidden",))
    exported = ppo_tf.ExportedPolicy(ppo_tf.export_policy(policy, tmp_path / "policy"), envs)
    actions = exported(helpers.observe(space, (4,)), np.array([1, 2], np.int32), np.ones(4, bool))
    assert actions.shape == (4,)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "policy"
    return ppo_tf.export_policy(helpers.make_policy(ENVS), folder, metadata={"env": "E-v0"})


def test_its_metadata_match_the_export(saved):
    assert read_metadata(saved) == {"env": "E-v0"} == ppo_tf.ExportedPolicy(saved, ENVS).metadata


@pytest.mark.parametrize(
    ("observation_space", "action_space", "words"),
    [
        (helpers.box(2), ENVS.single_action_space, r"observation of shape \(3,\), .* has \(2,\)"),
        (helpers.NESTED, ENVS.single_action_space, r"observation of shape \(3,\), .* has none"),
        (helpers.box(3), helpers.box(2), r"\{'action': \(1,\)\}, .* \{'action': \(2,\)\}"),
        (helpers.box(3), helpers.HYBRID, r"\{'action': \(1,\)\}, .*'action_arm_0': \(2,\)"),
    ],
)
def test_another_environment_is_refused(observation_space, action_space, words, saved):
    with pytest.raises(ValueError, match=rf"{words}.* Received: policy=.*policy, envs="):
        ppo_tf.ExportedPolicy(saved, helpers.spaces(observation_space, action_space))


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("saved_model.pb", None, "must be a folder that export_policy wrote"),
        ("saved_model.pb", b"", "cannot be loaded"),
        ("saved_model.pb", b"hello", "cannot be loaded"),
        ("variables/variables.index", None, "cannot be loaded"),
        ("variables/variables.index", b"hello", "cannot be loaded"),
        ("variables/variables.data-00000-of-00001", None, "cannot be loaded"),
        ("variables/variables.data-00000-of-00001", b"", "cannot be loaded"),
        ("assets.extra/policy.json", None, "no readable assets.extra/policy.json"),
        ("assets.extra/policy.json", b"hello", "no readable assets.extra/policy.json"),
    ],
)
def test_a_damaged_folder_is_refused_by_name(file, content, words, saved, tmp_path):
    folder = shutil.copytree(saved, tmp_path / "policy")
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_bytes(content)
    with pytest.raises(ValueError, match=rf"^policy .*{words}.* Received: policy={folder}$"):
        ppo_tf.ExportedPolicy(folder, ENVS)


def test_another_saved_model_is_refused(saved, tmp_path):
    folder = tmp_path / "other"
    tf.saved_model.save(tf.Module(), str(folder))
    (folder / "assets.extra").mkdir()
    (folder / "assets.extra" / "policy.json").write_text(json.dumps({}))
    with pytest.raises(
        ValueError, match=r"no signature sample and serving_default.*policy=.*other"
    ):
        ppo_tf.ExportedPolicy(folder, ENVS)
