"""Every key that Gymnasium allows in a space works from the policy to its artefacts."""

import json

import gymnasium
import helpers
import keras
import numpy as np
import pytest
import tensorflow as tf
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, Tuple

import ppo_tf
from ppo_tf import spaces

pytestmark = pytest.mark.usefixtures("eager")

ODD = ("-", "c d", "x:0", "\u00e9", "class", "self", "seed", "state_0", "features")
TWINS = Dict({"a b": helpers.box(1), "a_b": helpers.box(1), "a": Dict(b=Discrete(2))})
CASES = {
    "odd": (
        Dict({key: helpers.box(1) for key in ODD}),
        Dict({key: Discrete(2) for key in ODD[2:6]}),
    ),
    "twins": (TWINS, TWINS),
    "masked": (
        Dict(features=helpers.box(1), action_mask=Dict(a=MultiBinary(2))),
        Dict(a=Discrete(2), a_masked=Discrete(2)),
    ),
}


def finish(envs, network, folder):
    """Takes a policy through an update, a Keras file and a SavedModel; returns both again."""
    if network == "shared":
        spec = ppo_tf.action_spec(envs.single_action_space)
        actor, critic = ppo_tf.shared_actor_critic(envs, spec, hidden_sizes=(4,), seed=1)
        policy = ppo_tf.Policy(actor, spec.family, spec.action_map)
    else:
        cell = None if network == "mlp" else network
        policy = helpers.make_policy(envs, cell=cell)
        critic = helpers.make_critic(envs, cell=cell)
    options = {"epochs": 1, "minibatch_size": 4, "sequence_length": 2, "jit_compile": False}
    learner = ppo_tf.Learner(policy, critic, **options)
    learner.update(helpers.trajectory(envs, policy, 4, 2))
    assert len(learner.named_variables) == len({id(v) for v in learner.variables})
    policy.save(folder / "policy.keras")
    path = ppo_tf.export_policy(policy, folder / "policy", critic=critic)
    loaded = keras.saving.load_model(folder / "policy.keras")
    return policy, loaded, ppo_tf.ExportedPolicy(path, envs)


@pytest.mark.parametrize(
    ("case", "network"),
    [
        ("odd", "gru"),
        ("twins", "shared"),
        ("masked", "mlp"),
        pytest.param("odd", "mlp", marks=pytest.mark.slow),
        pytest.param("masked", "gru", marks=pytest.mark.slow),
    ],
)
def test_odd_keys_work_in_every_artefact(case, network, tmp_path):
    envs = helpers.spaces(*CASES[case])
    policy, loaded, exported = finish(envs, network, tmp_path)
    space = envs.single_observation_space
    flat = helpers.observe(space, (3,))
    expected, again = (
        p.action_map(p.draw(p.step(flat, p.initial_state(3))[0], None)) for p in (policy, loaded)
    )
    helpers.assert_close(again, expected, rtol=0, atol=0)
    starts = np.ones(3, bool)
    nested = exported(spaces.unflatten(space, flat), np.array([1, 2], np.int32), starts)
    made = spaces.flatten(envs.single_action_space, nested)
    helpers.assert_close(made, expected, rtol=1e-5, atol=1e-5)


def test_the_names_are_stored_with_the_artefact(tmp_path):
    envs = helpers.spaces(TWINS, TWINS)
    path = ppo_tf.export_policy(helpers.make_policy(envs), tmp_path / "policy", metadata={"x": 1})
    stored = json.loads((path / "assets.extra" / "policy.json").read_text())
    assert stored == {
        "x": 1,
        "names": {
            "observations": {"a/b": "a_b", "a b": "a_b_", "a_b": "a_b__"},
            "actions": {"a/b": "action_a_b", "a b": "action_a_b_", "a_b": "action_a_b__"},
        },
    }
    signature = tf.saved_model.load(str(path)).signatures["serving_default"]
    assert set(signature.structured_outputs) == {"action_a_b", "action_a_b_", "action_a_b__"}
    del stored["names"]["actions"]["a/b"]
    (path / "assets.extra" / "policy.json").write_text(json.dumps(stored))
    with pytest.raises(ValueError, match=r"makes actions of shapes .* Received: policy="):
        ppo_tf.ExportedPolicy(path, envs)
    (path / "assets.extra" / "policy.json").write_text(json.dumps({"names": {"actions": 3}}))
    with pytest.raises(ValueError, match=r"policy has no 'names' in assets\.extra.*policy="):
        ppo_tf.ExportedPolicy(path, envs)


def test_metadata_must_not_hide_the_names(tmp_path):
    policy = helpers.make_policy(helpers.spaces(helpers.box(1), Discrete(2)))
    with pytest.raises(ValueError, match=r"metadata must not have the key 'names'. Received: meta"):
        ppo_tf.export_policy(policy, tmp_path / "policy", metadata={"names": 1})


def test_names_are_identifiers_that_mean_nothing_else():
    assert spaces.argument_names(["arm/0", "0", "class", "seed", "state_1", "_", "\u00e9", ""]) == {
        "arm/0": "arm_0",
        "0": "observation_0",
        "class": "observation_class",
        "seed": "observation_seed",
        "state_1": "observation_state_1",
        "_": "observation__",
        "\u00e9": "observation___",
        "": "observation",
    }
    assert spaces.argument_names(["A", "a"]) == {"A": "A", "a": "a_"}
    assert spaces.result_names([""]) == {"": "action"}


EMPTY = Box(-1.0, 1.0, (0,))


@pytest.mark.parametrize(
    ("observation", "action", "words"),
    [
        (EMPTY, Discrete(2), r"An observation must have at least one element.*Received: Box"),
        (Dict(a=EMPTY, b=helpers.box(1)), Discrete(2), r"Received: 'a' is Box.*exclude this part"),
        (helpers.box(1), EMPTY, r"The action space must have at least one element.*Box"),
        (helpers.box(1), Tuple([EMPTY]), r"The action space at '0' must have at least one"),
        (Dict({"": helpers.box(1)}), Discrete(2), r"keys of a Dict must not be empty.*Dict"),
        (helpers.box(1), Dict({"": Discrete(2)}), r"keys of a Dict must not be empty.*Dict"),
    ],
)
def test_what_has_no_name_or_no_elements_is_refused_with_the_policy(observation, action, words):
    with pytest.raises(ValueError, match=words):
        helpers.make_policy(helpers.spaces(observation, action))


def test_a_part_without_elements_can_be_excluded():
    space = Dict(a=EMPTY, b=helpers.box(1))
    policy = helpers.make_policy(helpers.spaces(space, Discrete(2)), exclude=["a"])
    assert policy(helpers.observe(space, (3,))).shape == (3,)


def test_environments_with_odd_keys_are_evaluated(tmp_path):
    space = Dict({"x:0": helpers.box(1), "class": Discrete(2), "self": helpers.box(1)})

    class Odd(gymnasium.Env):
        observation_space = action_space = space

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.count = 0
            return self._observe(), {}

        def step(self, action):
            assert space.contains(action)
            self.count += 1
            return self._observe(), float(action["x:0"][0]), self.count == 3, False, {}

        def _observe(self):
            number = self.np_random.uniform(-1, 1, 1).astype(np.float32)
            return {"x:0": number, "class": int(self.np_random.integers(2)), "self": -number}

    gymnasium.register("ppo_tf_tests/Odd-v0", Odd, disable_env_checker=True)
    envs = gymnasium.make_vec("ppo_tf_tests/Odd-v0", num_envs=2)
    policy = helpers.make_policy(envs)
    exported = ppo_tf.ExportedPolicy(ppo_tf.export_policy(policy, tmp_path / "policy"), envs)
    options = {"episodes": 3, "seed": 4, "num_envs": 2}
    results = [ppo_tf.evaluate(p, "ppo_tf_tests/Odd-v0", **options) for p in (policy, exported)]
    assert results[0].returns == pytest.approx(results[1].returns, rel=1e-5)


@pytest.mark.parametrize(
    ("path", "argument", "result"),
    [
        ("", "observation", "action"),
        ("arm/0", "arm_0", "action_arm_0"),
        ("0", "observation_0", "action_0"),
        ("class", "observation_class", "action_class"),
    ],
)
def test_a_path_alone_has_the_name_that_it_has_among_others(path, argument, result):
    assert ppo_tf.argument_name(path) == argument
    assert ppo_tf.result_name(path) == result
