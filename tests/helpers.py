"""Policies and trajectories for tests, small enough to be built many times."""

import ctypes
import gc
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from tensorflow.python.framework.ops import gradient_registry

import ppo_tf
from ppo_tf.spaces import flatten, observed_dtype, unflatten
from ppo_tf.spaces.masks import segment_sizes


def spaces(observation_space, action_space):
    """Returns what models and policies need to know about an environment."""
    return SimpleNamespace(
        single_observation_space=observation_space, single_action_space=action_space
    )


def box(*shape):
    return Box(-3.0, 3.0, shape)


MULTI_DISCRETE = MultiDiscrete([[2, 3], [1, 4]], start=[[0, -1], [5, 2]])
HYBRID = Dict(
    {
        "move": Discrete(3, start=1),
        "arm": Tuple((Box(-2.0, 2.0, (2,)), MultiDiscrete([2, 3]))),
        "lamps": MultiBinary(2),
    }
)
NESTED = Dict(
    {
        "camera": Box(0, 255, (8, 8, 1), np.uint8),
        "arm": Tuple((Box(-3.0, 3.0, (2,), np.float64), Discrete(4, start=2))),
        "switches": MultiBinary(3),
        "dials": MultiDiscrete([3, 2]),
    }
)


def masked(action_space):
    """Returns an observation space with an action mask for a Discrete or MultiDiscrete."""
    size = sum(segment_sizes(action_space))
    return Dict({"observation": box(3), "action_mask": MultiBinary(size)})


def make_policy(envs, *, continuous="clipped_gaussian", cell=None, **options):
    """Returns a tiny policy, with a memory if a cell is given."""
    options = {"hidden_sizes": (8,), "seed": 1, **options}
    if cell is None:
        return ppo_tf.mlp_policy(envs, continuous=continuous, **options)
    return ppo_tf.recurrent_policy(envs, continuous=continuous, cell=cell, units=4, **options)


def make_critic(envs, *, cell=None, **options):
    options = {"hidden_sizes": (8,), "seed": 2, **options}
    if cell is None:
        return ppo_tf.mlp_critic(envs, **options)
    return ppo_tf.recurrent_critic(envs, cell=cell, units=4, **options)


def observe(space, shape, seed=0):
    """Draws observations [*shape, ...] from a space, flattened as by `spaces.flatten`; masks always
    allow the first action of each choice."""
    space.seed(seed)
    count = int(np.prod(shape))
    rows = [flatten(space, space.sample()) for _ in range(count)]

    def stack(*leaves):
        leaves = np.stack(leaves)
        return leaves.reshape(*shape, *leaves.shape[1:])

    observations = tf.nest.map_structure(stack, *rows)
    if isinstance(observations, dict):
        for path in observations:
            if path.startswith("action_mask"):
                observations[path][...] |= 1 - observations[path].max(-1, keepdims=True)
                observations[path][..., 0] = 1
    return observations


def seen(space, shape, seed=0):
    """Draws `observe`'s observations in the dtypes in which a collector hands them to a policy."""
    drawn = observe(space, shape, seed)
    return tf.nest.map_structure(lambda x: x.astype(observed_dtype(x.dtype)), drawn)


def merge(nest):
    """Reshapes [T, B, ...] to [T * B, ...]."""
    return tf.nest.map_structure(lambda x: x.reshape(-1, *x.shape[2:]), nest)


def contained(space, actions):
    """Whether all flat actions of a batch are in the space."""
    count = len(tf.nest.flatten(actions)[0])
    each = [tf.nest.map_structure(lambda x, i=i: np.asarray(x[i]), actions) for i in range(count)]
    return all(space.contains(unflatten(space, action)) for action in each)


def assert_close(one, other, **tolerance):
    """Asserts that nests have the same structure and close numbers."""
    tf.nest.assert_same_structure(one, other)
    for a, b in zip(tf.nest.flatten(one), tf.nest.flatten(other), strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


def trajectory(envs, policy, horizon=8, num_envs=2, seed=0):
    """Returns random data with the policy's actions, both kinds of ends and invalid rows."""
    rng = np.random.default_rng(seed)
    shape = (horizon, num_envs)
    observations = observe(envs.single_observation_space, shape, seed)
    terminated = rng.random(shape) < 0.2
    truncated = (rng.random(shape) < 0.2) & ~terminated
    valid = np.ones(shape, bool)
    valid[1:] = ~(terminated | truncated)[:-1]  # as with auto-resets in the mode NEXT_STEP
    starts = np.concatenate([np.ones((1, num_envs), bool), ~valid[:-1]])
    state = policy.initial_state(num_envs)
    parameters, _ = policy.unroll(
        tf.nest.map_structure(tf.constant, observations), state, tf.constant(starts)
    )
    merged = tf.nest.map_structure(lambda x: tf.reshape(x, (-1, *x.shape[2:])), parameters)
    actions = policy.draw(merged, np.array([seed, 7], np.int32))
    return ppo_tf.Trajectory(
        observations=observations,
        actions=tf.nest.map_structure(lambda a: a.numpy().reshape(*shape, *a.shape[1:]), actions),
        rewards=rng.normal(size=shape).astype(np.float32) * valid,
        next_observations=observe(envs.single_observation_space, shape, seed + 1),
        terminated=terminated & valid,
        truncated=truncated & valid,
        valid=valid,
        starts=starts,
    )


def free_traced_functions():
    """Frees the memory of traced functions that nobody uses any more.

    Two tables keep their graphs alive: TFP's cache of what bijectors have computed, and
    TensorFlow's registry of custom gradients, to which every traced function adds its own. TFP's
    own traces of `lbeta` would miss theirs.
    """
    tfp.bijectors.Bijector._cache.storage.clear()
    tfp.math.lbeta._function_cache.clear()
    registry = gradient_registry._registry
    for name in [name for name in registry if name.startswith("CustomGradient")]:
        del registry[name]
    gc.collect()
    if sys.platform == "linux":  # glibc keeps freed memory for itself
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def numbers(learner):
    """Returns everything an update changes, as NumPy arrays."""
    return [np.array(tf.convert_to_tensor(v)) for v in learner.variables]


LOADER = """
import sys
sys.modules["ppo_tf"] = sys.modules["tensorflow_probability"] = sys.modules["keras"] = None
import numpy as np, pathlib, tensorflow as tf
tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": sys.argv[2] == "True"})
for path in pathlib.Path(sys.argv[1]).glob("*.npz"):
    signatures = dict(tf.saved_model.load(str(path.with_suffix(""))).signatures)
    given = {**np.load(path), "seed": np.array([1, 2], np.int32)}
    if initial_state := signatures.pop("initial_state", None):
        state = initial_state(batch_size=tf.constant(5))
        given |= {name: x.numpy() + 0.1 for name, x in state.items()}
    out = {}
    for name, signature in signatures.items():
        wanted = signature.structured_input_signature[1]
        results = signature(**{k: tf.constant(given[k]) for k in wanted})
        out |= {f"{name}:{k}": x.numpy() for k, x in results.items()}
    with open(path.with_suffix(".out"), "wb") as file:
        np.savez(file, **out)
"""


def act_elsewhere(learners, folder):
    """Exports policies and critics and runs all in one process without ppo_tf, TFP and Keras.

    Args:
        learners: {name: (environment, learner)}.
        folder: folder to write to.

    Returns:
        {name: {"signature:result": array}}: results for `observe(space, (5,))`, seed (1, 2) and,
        with a memory, a state of 0.1.
    """
    for name, (envs, learner) in learners.items():
        ppo_tf.export_policy(learner.policy, folder / name, critic=learner.critic)
        observations = observe(envs.single_observation_space, (5,))
        leaves = observations if isinstance(observations, dict) else {"": observations}
        names = ppo_tf.spaces.argument_names(leaves)
        np.savez(
            folder / f"{name}.npz",
            **{names[path]: leaf for path, leaf in leaves.items()},
        )
    # TFP's samplers of Gamma and Beta differ where Grappler chooses one for the processor.
    off = tf.config.optimizer.get_experimental_options()["disable_meta_optimizer"]
    command = [sys.executable, "-c", LOADER, str(folder), str(off)]
    subprocess.run(command, check=True, timeout=500)
    return {name: dict(np.load(folder / f"{name}.out")) for name in learners}
