"""Actors, critics and their parts: their inputs, outputs and shared layers."""

import helpers
import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from test_features import batch_of

import ppo_tf
from ppo_tf.networks.heads import parameter_heads

tfd = tfp.distributions

SEEN = Box(-2, 2, (3,))
SPACE = Dict(
    {
        "action_mask": Dict(move=MultiBinary(3), tool=Tuple([Box(0, 1, (5,), np.uint8)])),
        "camera": Box(0, 255, (8, 8, 3), np.uint8),
        "move": SEEN,
        "secret": Box(-2, 2, (4,)),
    }
)
ACTIONS = Dict(
    arm=Box(-1, 1, (2,)),
    leg=Box(-1, 1, (2,)),
    move=Discrete(3),
    tool=Tuple([MultiDiscrete([2, 3])]),
)
ENVS = helpers.spaces(SPACE, ACTIONS)
SPEC = ppo_tf.ActionSpec(
    family=None,
    parameters={
        "arm": {"loc": 2, "scale_diag": 2},
        "leg": {"loc": 2, "directions": 2},
        "move": {"logits": 3},
        "tool/0": {"logits": 5},
    },
    action_map=None,
)
SMALL = {"hidden_sizes": (8,), "seed": 1}


def select(model, observations):
    """The observations that the model uses, as a caller selects them."""
    return {path: observations[path] for path in model.input}


def make_actor(**options):
    return ppo_tf.mlp_actor(ENVS, SPEC, **SMALL, **options)


def assert_same(left, right):
    tf.nest.map_structure(np.testing.assert_array_equal, left, right)


def test_a_composite_actor_returns_parameters_by_action_and_name():
    outputs = make_actor()(batch_of(SPACE))
    shapes = {path: {k: tuple(v.shape) for k, v in p.items()} for path, p in outputs.items()}
    assert shapes == {
        "arm": {"loc": (5, 2), "scale_diag": (5, 2)},
        "leg": {"loc": (5, 2), "directions": (5, 8, 2)},
        "move": {"logits": (5, 3)},
        "tool/0": {"logits": (5, 5)},
    }


def test_a_composite_actor_round_trips_through_keras(tmp_path):
    actor, batch = make_actor(), batch_of(SPACE)
    actor.save(tmp_path / "actor.keras")
    restored = keras.saving.load_model(tmp_path / "actor.keras")
    assert restored.input.keys() == actor.input.keys()
    assert_same(restored(batch), actor(batch))


def test_a_compiled_composite_actor_gives_the_same_outputs():
    actor, batch = make_actor(), batch_of(SPACE)
    compiled = tf.function(lambda x: actor(x), jit_compile=True)(batch)
    tf.nest.map_structure(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), compiled, actor(batch)
    )


def test_masks_set_only_the_logits_of_invalid_actions():
    actor, batch = make_actor(), batch_of(SPACE, 20)
    free = ppo_tf.mlp_actor(ENVS, SPEC, **SMALL, exclude=["action_mask"], mask_key=None)
    outputs, unmasked = actor(batch), free(select(free, batch))
    for action, mask in (("move", "action_mask/move"), ("tool/0", "action_mask/tool/0")):
        valid = batch[mask] != 0
        assert valid.any() and not valid.all()
        expected = np.where(valid, unmasked[action]["logits"], ppo_tf.ops.MASKED_LOGIT)
        np.testing.assert_array_equal(outputs[action]["logits"], expected)
    assert_same(outputs["arm"], unmasked["arm"])


def test_a_mask_has_no_other_effect():
    actor, batch = make_actor(), batch_of(SPACE)
    others = {**batch, "action_mask/move": 1 - batch["action_mask/move"]}
    for action in ("arm", "leg", "tool/0"):
        assert_same(actor(batch)[action], actor(others)[action])
    assert not any("mask" in path for path in ppo_tf.mlp_critic(ENVS, **SMALL).input)


def test_masked_segments_match_the_elements():
    space = Dict(action_mask=MultiBinary(5), seen=SEEN)
    envs = helpers.spaces(space, MultiDiscrete([2, 3]))
    actor = ppo_tf.mlp_actor(envs, ppo_tf.ActionSpec(None, {"logits": 5}, None), **SMALL)
    observation = {"action_mask": np.int8([[0, 1, 1, 0, 1]]), "seen": np.ones((1, 3), np.float32)}
    logits = actor(observation)["logits"][0]
    np.testing.assert_array_equal(tf.nn.softmax(logits[:2]), [0, 1])
    second = tf.nn.softmax(logits[2:]).numpy()
    assert second[1] == 0
    assert (second[[0, 2]] > 0.4).all()


def test_the_default_spec_of_a_masked_discrete_action():
    envs = helpers.spaces(Dict(action_mask=MultiBinary(2), seen=SEEN), Discrete(2))
    observation = {"action_mask": np.int8([[1, 0]]), "seen": np.ones((1, 3), np.float32)}
    outputs = ppo_tf.mlp_actor(envs, **SMALL)(observation)
    assert tfd.Categorical(**outputs).probs_parameter().numpy().tolist() == [[1, 0]]


def test_bad_masks_are_refused_when_the_actor_is_made():
    space = Dict(action_mask=MultiBinary(3), seen=SEEN)
    with pytest.raises(ValueError, match=r"shape \(4,\).*MultiBinary\(3\).*Discrete\(4\)"):
        ppo_tf.mlp_actor(helpers.spaces(space, Discrete(4)))
    with pytest.raises(ValueError, match=r"need an environment.*mask_key=None.*'action_mask'"):
        ppo_tf.mlp_actor(space, ppo_tf.ActionSpec(None, {"logits": 3}, None))
    with pytest.raises(ValueError, match=r"parameter 'logits' of the mask's size.*'probs': 3.*3"):
        spec = ppo_tf.ActionSpec(None, {"probs": 3}, None)
        ppo_tf.mlp_actor(helpers.spaces(space, Discrete(3)), spec)


def test_excluded_observations_have_no_influence():
    actor = make_actor(exclude=["secret"])
    critic = ppo_tf.mlp_critic(ENVS, **SMALL)
    assert "secret" not in actor.input
    assert "secret" in critic.input
    batch = batch_of(SPACE)
    others = {**batch, "secret": batch["secret"] + 1}
    assert_same(actor(select(actor, batch)), actor(select(actor, others)))
    values, other_values = (critic(select(critic, x)).numpy() for x in (batch, others))
    assert (np.abs(values - other_values) > 1e-4).all()


def test_goals_are_ordinary_observations():
    space = Dict(observation=SEEN, achieved_goal=Box(-1, 1, (2,)), desired_goal=Box(-1, 1, (2,)))
    actor = ppo_tf.mlp_actor(helpers.spaces(space, Discrete(2)), **SMALL, normalize=False)
    assert sorted(actor.input) == ["achieved_goal", "desired_goal", "observation"]
    batch = batch_of(space)
    for path in batch:
        moved = actor({**batch, path: batch[path] + 1})["logits"]
        # The head's gain of 0.01 makes differences small, but larger than rounding errors.
        assert (np.abs(moved - actor(batch)["logits"]) > 1e-6).any(axis=1).all()


@pytest.mark.parametrize("key", ["logits", "value", "observation", "normalization", "features"])
def test_an_observation_may_share_its_name_with_a_layer(key):
    envs = helpers.spaces(Dict({key: SEEN}), Discrete(2))
    for model in (*ppo_tf.shared_actor_critic(envs, **SMALL), ppo_tf.mlp_critic(envs)):
        assert list(model.input) == [key]


def test_separate_models_share_nothing_and_shared_ones_share_all_but_the_heads():
    critic = ppo_tf.mlp_critic(ENVS, **SMALL)
    ours = {id(v) for v in make_actor().variables}
    assert not ours & {id(v) for v in critic.variables}
    actor, critic = ppo_tf.shared_actor_critic(ENVS, SPEC, **SMALL)
    shared = {id(v) for v in actor.variables} & {id(v) for v in critic.variables}
    heads = [v for v in critic.variables if id(v) not in shared]
    assert [v.path.split("/")[0] for v in heads] == ["value", "value"]
    assert len(shared) == len(critic.variables) - 2 > 8
    batch = batch_of(SPACE)
    assert actor(batch)["move"]["logits"].shape == (5, 3)
    assert critic(select(critic, batch)).shape == (5,)


def test_a_value_gradient_moves_the_actor_through_the_shared_layers():
    envs = helpers.spaces(SEEN, Discrete(2))
    actor, critic = ppo_tf.shared_actor_critic(envs, **SMALL)
    batch = batch_of(SEEN)
    before = actor(batch)["logits"].numpy()
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(critic(batch))
    kernel = critic.trainable_variables[0]
    kernel.assign_sub(tape.gradient(loss, kernel.value))
    assert not np.allclose(actor(batch)["logits"], before)


def test_shared_models_are_saved_separately(tmp_path):
    actor, critic = ppo_tf.shared_actor_critic(ENVS, SPEC, **SMALL)
    batch = batch_of(SPACE)
    for model in (actor, critic):
        model.save(tmp_path / "model.keras")
        restored = keras.saving.load_model(tmp_path / "model.keras")
        assert_same(restored(select(restored, batch)), model(select(model, batch)))


@pytest.mark.parametrize("envs", [ENVS, helpers.spaces(SEEN, Discrete(2))])
def test_an_encoder_and_heads_equal_the_actor_and_the_critic(envs):
    spec = SPEC if envs is ENVS else None
    batch = batch_of(envs.single_observation_space)
    encoder = ppo_tf.encoder(envs, **SMALL)
    head = ppo_tf.actor_head(envs, 8, spec, seed=2)
    whole = ppo_tf.mlp_actor(envs, spec, **SMALL)
    critic = ppo_tf.mlp_critic(envs, **SMALL)
    value_head = ppo_tf.critic_head(8, seed=2)

    def observe(model):
        return select(model, batch) if isinstance(batch, dict) else batch

    size = len(encoder.weights)
    whole.set_weights(encoder.get_weights() + head.get_weights())
    features = encoder(observe(encoder))
    assert features.shape == (5, 8)
    inputs = {p: features if p == "features" else tf.constant(batch[p]) for p in head.input}
    assert_same(head(inputs), whole(observe(whole)))
    critic.set_weights(encoder.get_weights() + value_head.get_weights())
    np.testing.assert_array_equal(value_head(features), critic(observe(critic)))
    assert len(critic.weights) == size + 2


def test_a_recurrent_cell_fits_between_encoder_and_head():
    encoder, head = ppo_tf.encoder(ENVS, **SMALL), ppo_tf.actor_head(ENVS, 6, SPEC)
    state = keras.Input((6,), name="state")
    masks = {path: x for path, x in head.input.items() if path != "features"}
    output, (new_state,) = keras.layers.GRUCell(6)(encoder(encoder.input), [state])
    parameters = head({"features": output, **masks})
    model = keras.Model([{**encoder.input, **masks}, state], [parameters, new_state])
    batch = batch_of(SPACE)
    used = {path: batch[path] for path in [*encoder.input, *masks]}
    outputs, carried = model([used, np.zeros((5, 6), np.float32)])
    assert carried.shape == (5, 6)
    assert outputs["leg"]["directions"].shape == (5, 6, 2)
    invalid = batch["action_mask/move"] == 0
    assert (outputs["move"]["logits"].numpy()[invalid] == -1e9).all()


def test_hidden_layers_are_orthogonal_with_the_usual_gains():
    envs = helpers.spaces(SEEN, Discrete(2))
    models = ppo_tf.mlp_actor(envs, seed=0), ppo_tf.mlp_critic(envs, seed=0)
    for model, last in zip(models, (0.01, 1.0), strict=True):
        kernels = [layer.kernel.numpy() for layer in model.layers if hasattr(layer, "kernel")]
        assert [k.shape[1] for k in kernels[:2]] == [64, 64]
        for kernel, gain in zip(kernels, (np.sqrt(2), np.sqrt(2), last), strict=True):
            values = np.linalg.svd(kernel, compute_uv=False)
            np.testing.assert_allclose(values, np.full(len(values), gain), rtol=1e-4)


def heads_of(parameters, **options):
    features = keras.Input((4,))
    return keras.Model(features, parameter_heads(features, parameters, **options))


def test_every_parameter_except_scales_and_directions_is_linear():
    sizes = {"concentration0": 2, "concentration1": 2, "loc": 3, "logits": 5, "scale_tril": 6}
    model = heads_of(sizes)
    kernels = {layer.name: layer.kernel.shape for layer in model.layers if layer.weights}
    assert kernels == {name: (4, size) for name, size in sizes.items()}


@pytest.mark.parametrize("state_dependent", [False, True])
def test_scales_start_at_the_initial_scale(state_dependent):
    sizes = {"scale_diag": 2, "loc": 2}
    model = heads_of(sizes, initial_scale=0.3, state_dependent_scale=state_dependent)
    scale = model(np.zeros((5, 4), np.float32))["scale_diag"]
    np.testing.assert_allclose(scale, np.full((5, 2), 0.3), rtol=1e-3)
    moved = model(np.random.default_rng(0).normal(size=(5, 4)))["scale_diag"]
    assert (np.ptp(moved, axis=0) > 0).all() == state_dependent


@pytest.mark.parametrize("scale", [0.3, 1.0, 50.0])
def test_full_covariances_start_at_the_initial_scale(scale):
    envs = helpers.spaces(helpers.box(2), Box(-1.0, 1.0, (3,)))
    for options in ({}, {"cell": "gru"}, {"state_dependent_scale": True}):
        policy = helpers.make_policy(
            envs, continuous="full_covariance", initial_scale=scale, **options
        )
        observations = np.ones((4, 2), np.float32)
        parameters, _ = policy.step(observations, policy.initial_state(4))
        covariance = policy.family(**parameters).covariance()
        expected = np.broadcast_to(scale**2 * np.eye(3), (4, 3, 3))
        np.testing.assert_allclose(covariance, expected, rtol=0.1, atol=0.1 * scale**2)
    with pytest.raises(ValueError, match=r"must exceed 0.001.*scale=0.001"):
        helpers.make_policy(envs, continuous="full_covariance", initial_scale=0.001)


@pytest.mark.parametrize(
    "option", [{"initial_scale": 0.5}, {"state_dependent_scale": True}], ids=lambda o: next(iter(o))
)
def test_a_scale_is_refused_where_there_is_none(option):
    name = next(iter(option))
    for space, continuous in ((Discrete(3), "clipped_gaussian"), (Box(-1.0, 1.0, (2,)), "beta")):
        envs = helpers.spaces(helpers.box(2), space)
        for cell in (None, "gru"):
            with pytest.raises(ValueError, match=f"^{name} cannot be set: .* Received: initial_sc"):
                helpers.make_policy(envs, continuous=continuous, cell=cell, **option)
    mixed = helpers.spaces(helpers.box(2), helpers.HYBRID)
    assert helpers.make_policy(mixed, **option).parameters  # one of the parts has a scale


def test_directions_start_at_the_initial_scale():
    model = heads_of({"loc": 2, "directions": 2}, initial_scale=0.3)
    directions = model(np.full((5, 4), 0.5, np.float32))["directions"]
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), np.full((5, 2), 0.3), rtol=1e-5)


def test_invalid_heads_are_refused():
    with pytest.raises(ValueError, match=r"needs a parameter 'loc'.*\['mean'\]"):
        heads_of({"mean": 1, "scale_diag": 1})
    with pytest.raises(ValueError, match=r"initial_scale must be positive.*initial_scale=0"):
        heads_of({"logits": 1}, initial_scale=0)
    with pytest.raises(ValueError, match=r"hidden_sizes must be positive.*\(8, 0\)"):
        ppo_tf.mlp_critic(SEEN, hidden_sizes=(8, 0))
    with pytest.raises(TypeError, match="hidden_size"):
        ppo_tf.mlp_critic(SEEN, hidden_size=8)


def test_the_same_seed_makes_the_same_actor():
    first, second, other = (
        ppo_tf.mlp_actor(ENVS, SPEC, hidden_sizes=(8,), seed=s).get_weights() for s in (1, 1, 2)
    )
    assert_same(first, second)
    kernels = [(a, b) for a, b in zip(first, other, strict=True) if a.ndim > 1 and a.std() > 0]
    assert len(kernels) == 9  # 4 of the image network, 1 hidden, 4 linear heads
    assert not any(np.allclose(a, b) for a, b in kernels)


def test_a_shared_trunk_is_computed_once_with_the_same_result():
    envs = helpers.spaces(helpers.masked(Discrete(3)), Discrete(3))
    actor, critic = ppo_tf.shared_actor_critic(envs, seed=1)
    joint = ppo_tf.models.joint_model(actor, critic)
    observations = helpers.observe(envs.single_observation_space, (5,))
    parameters, values = joint(observations)
    np.testing.assert_array_equal(parameters["logits"], actor(observations)["logits"])
    features = {"observation": observations["observation"]}
    np.testing.assert_array_equal(values, critic(features))
    layers = [id(layer) for model in (actor, critic) for layer in model.layers]
    assert len(joint.layers) == len(set(layers))


def test_models_that_share_nothing_stay_separate():
    envs = helpers.spaces(helpers.box(3), Discrete(3))
    actor, critic = ppo_tf.mlp_actor(envs), ppo_tf.mlp_critic(envs)
    assert ppo_tf.models.joint_model(actor, critic) is None
    assert ppo_tf.models.joint_model(actor, None) is None
