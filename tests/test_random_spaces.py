"""Random nested spaces: they work from the policy to its artefacts, or are refused in one line."""

import json
import keyword
import shutil

import gymnasium
import helpers
import hypothesis
import keras
import numpy as np
import odd
import pytest
from gymnasium import spaces as gym
from gymnasium.utils.env_checker import data_equivalence
from hypothesis import strategies as st

import ppo_tf
from ppo_tf import spaces

KEYS = st.one_of(
    st.sampled_from(
        [
            *("-", "c d", "x:0", "\u00e9", "class", "self", "seed", "state_0", "features", "None"),
            *("a", "a/b", "a_b", "a b", "A", "b", "0", "action", "observation", "logits", "loc"),
            *(
                "action_mask",
                "training",
                "value",
                "\n",
                "\0",
                "\U0001f600",
                "x" * 300,
                ".",
                "",
                "/",
            ),
        ]
    ),
    st.text(max_size=3),
    st.integers(-1, 1),
)
SHAPES = [(), (1,), (3,), (2, 2), (1, 2, 3)]
EMPTY = [(0,), (2, 0)]
FLOATS = ("float32", "float64", "float16")
BOUNDS = st.sampled_from(
    [(-1, 1), (0, 2), (-np.inf, np.inf), (0, np.inf), (-np.inf, 3), (5, 5), (-1e4, 6e4)]
)


def boxes(shapes, dtypes, bounds=BOUNDS):
    return st.builds(
        lambda bounds, shape, dtype: gym.Box(*bounds, shape, np.dtype(dtype)),
        bounds,
        st.sampled_from(shapes),
        st.sampled_from(dtypes),
    )


OTHERS = st.one_of(
    st.builds(gym.Discrete, st.integers(1, 4), start=st.integers(-3, 3)),
    st.builds(gym.MultiDiscrete, st.lists(st.integers(1, 3), min_size=1, max_size=3)),
    st.just(helpers.MULTI_DISCRETE),
    st.builds(gym.MultiBinary, st.sampled_from([1, 3, (2, 2)])),
)
INTEGERS = boxes(
    SHAPES, ["int8", "int32", "int64", "uint8", "uint16"], st.sampled_from([(0, 1), (0, 100)])
)
IMAGES = st.sampled_from([gym.Box(0, 255, s, np.uint8) for s in ((8, 8, 1), (3, 9, 8), (8, 9))])
UNKNOWN = st.sampled_from(
    [gym.Text(3), gym.Sequence(gym.Discrete(2)), gym.Graph(gym.Discrete(2), None)]
)


def nested(leaves, least):
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, min_size=least, max_size=3).map(gym.Tuple)
            | st.dictionaries(KEYS, inner, min_size=least, max_size=3).map(gym.Dict)
        ),
        max_leaves=5,
    )


OBSERVATIONS = nested(st.one_of(boxes(SHAPES, FLOATS), OTHERS, INTEGERS, IMAGES), 1)
ACTIONS = nested(st.one_of(boxes(SHAPES, FLOATS), OTHERS), 1)
# Among these are spaces that are refused, which would leave few whole runs.
ANY_OBSERVATIONS = nested(OBSERVATIONS | boxes(EMPTY, FLOATS) | UNKNOWN, 0)
ANY_ACTIONS = nested(ACTIONS | boxes(EMPTY, FLOATS) | INTEGERS, 0)


def refused(error):
    message = str(error)
    return "Received: " in message and message


# ---- names and values


def check_names_and_values(space):
    """Paths get distinct identifiers; values survive the flat form."""
    try:
        leaves = spaces.leaves(space)
    except ValueError as error:
        assert refused(error), error
        return
    by_path = leaves if isinstance(leaves, dict) else {"": leaves}
    for names in (spaces.argument_names(by_path), spaces.result_names(by_path)):
        assert list(names) == list(by_path)
        assert len({name.lower() for name in names.values()}) == len(names)
        for name in names.values():
            assert name.isidentifier() and name.isascii() and not keyword.iskeyword(name)
    assert json.loads(json.dumps(names)) == names
    space.seed(0)
    value = space.sample()
    flat = spaces.flatten(space, value)
    assert (flat.keys() if isinstance(flat, dict) else {""}) == by_path.keys() or not by_path
    assert data_equivalence(spaces.unflatten(space, flat), value)


@odd.few(100)
@hypothesis.given(ANY_OBSERVATIONS)
def test_names_and_values_of_random_spaces(space):
    check_names_and_values(space)


@pytest.mark.slow
@odd.many(20_000)
@hypothesis.given(ANY_OBSERVATIONS)
def test_names_and_values_of_many_random_spaces(space):
    check_names_and_values(space)


# ---- actions


CONTINUOUS = st.sampled_from(["clipped_gaussian", "tanh_gaussian", "beta", "truncated_gaussian"])


def parameters_of(sizes, rng, batch=4):
    """Numbers for a distribution's parameters, nested as in `ActionSpec.parameters`."""
    return {
        name: parameters_of(size, rng, batch)
        if isinstance(size, dict)
        else rng.uniform(0.1, 3.0, (batch, size)).astype(np.float32)
        for name, size in sizes.items()
    }


def check_actions(space, continuous):
    """What is drawn becomes an action of the space."""
    try:
        spec = ppo_tf.action_spec(space, continuous=continuous)
    except ValueError as error:
        assert refused(error), error
        return
    distribution = spec.family(**parameters_of(spec.parameters, np.random.default_rng(0)))
    raw = distribution.sample(seed=(1, 2))
    actions = spec.action_map(raw)
    flat = (
        {p: a.numpy() for p, a in actions.items()} if isinstance(actions, dict) else actions.numpy()
    )
    assert helpers.contained(space, flat), (space, flat)


@odd.few(25)
@hypothesis.given(ANY_ACTIONS, CONTINUOUS)
def test_actions_of_random_spaces(space, continuous):
    check_actions(space, continuous)


@pytest.mark.slow
@odd.many(1500)
@hypothesis.given(ANY_ACTIONS, CONTINUOUS)
def test_actions_of_many_random_spaces(space, continuous):
    check_actions(space, continuous)


# ---- from the policy to its artefacts


class Random(gymnasium.Env):
    """Observes samples of a space; checks its actions."""

    def __init__(self, observation_space, action_space):
        self.observation_space, self.action_space = observation_space, action_space
        self.count = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        return self._observe(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.count += 1
        return self._observe(), 1.0, self.count % 3 == 0, self.count % 5 == 0, {}

    def _observe(self):
        """A sample; masks, where there are some, allow everything."""
        sample = self.observation_space.sample()
        if isinstance(sample, dict) and "action_mask" in sample:
            mask = sample["action_mask"]
            sample["action_mask"] = np.ones_like(mask) if isinstance(mask, np.ndarray) else mask
        return sample


if "ppo_tf_tests/Random-v0" not in gymnasium.registry:
    gymnasium.register("ppo_tf_tests/Random-v0", Random, disable_env_checker=True)


def make(observation, action, network):
    """(environments, learner), or None if they are refused in one line."""
    try:
        envs = ppo_tf.make_envs(
            "ppo_tf_tests/Random-v0",
            2,
            backend="sync",
            observation_space=observation,
            action_space=action,
        )
        if network == "shared":
            spec = ppo_tf.action_spec(envs.single_action_space)
            options = {"hidden_sizes": (4,), "seed": 1}
            actor, critic = ppo_tf.shared_actor_critic(envs, spec, **options)
            policy = ppo_tf.Policy(actor, spec.family, spec.action_map)
        else:
            cell = None if network == "mlp" else network
            policy = helpers.make_policy(envs, cell=cell, hidden_sizes=(4,))
            critic = helpers.make_critic(envs, cell=cell, hidden_sizes=(4,))
        options = {"epochs": 1, "minibatch_size": 4, "sequence_length": 2, "jit_compile": False}
        learner = ppo_tf.Learner(policy, critic, **options)
        return envs, learner, ppo_tf.VectorCollector(envs, policy, 4, acting="tensorflow")
    except ValueError as error:
        assert refused(error), error
        return None


def act(policy, envs, flat):
    parameters, _ = policy.step(flat, policy.initial_state(3))
    return policy.action_map(policy.draw(parameters, None))


def check_artefacts(observation, action, network, folder):
    """Collects, updates, and acts alike from memory, a .keras file and a SavedModel."""
    made = make(observation, action, network)
    if made is None:
        return
    envs, learner, collector = made
    policy = learner.policy
    trajectory, _ = collector.collect()
    learner.update(trajectory)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    policy.save(folder / "policy.keras")
    path = ppo_tf.export_policy(policy, folder / "policy", critic=learner.critic)
    loaded = keras.saving.load_model(folder / "policy.keras")
    exported = ppo_tf.ExportedPolicy(path, envs)
    flat = spaces.map_leaves(lambda leaf: leaf[0][:1].repeat(3, 0), trajectory.observations)
    expected = act(policy, envs, flat)
    helpers.assert_close(act(loaded, envs, flat), expected, rtol=0, atol=0)
    nested = spaces.unflatten(envs.single_observation_space, flat)
    made = exported(nested, np.array([1, 2], np.int32), np.ones(3, bool))
    made = spaces.flatten(envs.single_action_space, made)
    helpers.assert_close(made, expected, rtol=1e-3, atol=1e-3)


NETWORKS = st.sampled_from(["mlp", "gru", "lstm", "shared"])


# Gymnasium's iteration over actions makes NumPy scalars of those of a Box of shape ().
@pytest.mark.filterwarnings("ignore:.*Casting input x to numpy array")
@odd.few(3)
@hypothesis.given(OBSERVATIONS, ACTIONS, NETWORKS)
def test_random_spaces_work_in_every_artefact(tmp_path, observation, action, network):
    check_artefacts(observation, action, network, tmp_path / "folder")


@pytest.mark.slow
@odd.many(80)
@hypothesis.given(OBSERVATIONS, ACTIONS, NETWORKS)
def test_many_random_spaces_work_in_every_artefact(tmp_path, observation, action, network):
    check_artefacts(observation, action, network, tmp_path / "folder")
