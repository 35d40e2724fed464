"""The report of a dry run: the models and the expected memory, from shapes alone."""

from __future__ import annotations

import collections
import math
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import rich.console
import tensorflow as tf

from ppo_tf import spaces
from ppo_tf.learning.batch import Batch
from ppo_tf.learning.learner import Learner
from ppo_tf.learning.updates.minibatch import total_loss
from ppo_tf.networks import recurrent
from ppo_tf.networks.models import observation_space
from ppo_tf.policies.agreement import example_observations, observed_paths
from ppo_tf.training.checkpoints import learner_variables
from ppo_tf.types import Trajectory

# Bytes that a process takes before it holds any data: Python, TensorFlow, Keras and TFP, with the
# update and acting compiled. Measured on Linux x86-64 with TensorFlow 2.21, CartPole-v1: 0.72 GB
# after the imports, the rest for the compiler.
RUNTIME = {True: 1_200_000_000, False: 850_000_000}  # by whether XLA compiles the update
# Likewise of a collector's process, by whether it acts through LiteRT, without TensorFlow.
COLLECTOR = {True: 55_000_000, False: 900_000_000}

_VIEWS = {"Identity", "Reshape", "ExpandDims", "Squeeze", "StopGradient"}  # of their first input
_OUTSIDE = {"Placeholder", "ReadVariableOp"}  # counted elsewhere


def dry_run_report(learner: Learner, envs: gymnasium.vector.VectorEnv, horizon: int) -> str:
    """Describes the models' layers and the memory that training is expected to take.

    Nothing is collected or compiled; graphs are traced for their shapes. The memory of the
    environments themselves is not included.

    Args:
        learner: learner that has not started training.
        envs: vector environment to train in.
        horizon: steps per environment and iteration.

    Returns:
        Lines of at most 100 columns.

    Raises:
        ValueError: the minibatch size does not divide horizon * num_envs.
    """
    # Keras draws the table with rich, which truncates lines wider than its console.
    width = min(rich.console.Console().width, 100)
    lines: list[str] = []
    for name, model in (("actor", learner.policy.actor), ("critic", learner.critic)):
        if model is not None:
            lines += [f"{name}:"]
            model.summary(line_length=width, print_fn=lines.append, expand_nested=True)
    parts = expected_memory(learner, envs, horizon)
    count = sum(math.prod(v.shape) for v in _parameters(learner))
    lines += [
        f"{count:,} parameters in actor and critic",
        "",
        f"expected memory for trajectories of [{horizon}, {envs.num_envs}], "
        "without the environments themselves:",
        *(f"  {name:50}{size / 1e6:10,.1f} MB" for name, size in parts.items()),
        f"  {'total':50}{sum(parts.values()) / 1e6:10,.1f} MB",
        f"a checkpoint on disk: {checkpoint_bytes(learner) / 1e6:,.1f} MB",
    ]
    return "\n".join(lines)


def expected_memory(
    learner: Learner, envs: gymnasium.vector.VectorEnv, horizon: int
) -> dict[str, int]:
    """Estimates the peak memory of training, in bytes by part.

    See `dry_run_report` for the arguments and errors.
    """
    num_envs = envs.num_envs
    learner.check_batch(horizon, num_envs)
    learner.begin_episodes(num_envs)  # creates the per-environment variables
    specs = trajectory_specs(learner, envs, horizon)  # of the rollouts that are learned from
    states = [
        _specs(recurrent.initial_state(model, num_envs))
        for model in (learner.policy.actor, learner.critic)
    ]
    seen = (specs.observations, specs.starts)
    acted, acting = _trace(learner.policy.unroll, seen[0], states[0], seen[1])
    _, values = _trace(learner.objective.values, seen[0], states[1], seen[1])
    numbers = tf.TensorSpec(specs.rewards.shape, tf.float32)
    results = (acted[0], *[numbers] * 4)  # old parameters, values, advantages, targets, next values
    _, step = _trace(_gradients(learner), _minibatch_specs(learner, specs, results))
    # Independent computations run at the same time; XLA puts those that it can in sequence.
    forward = acting + values if learner.jit_compile else acting + 2 * values
    parameters, optimizer = nbytes(_parameters(learner)), nbytes(learner.optimizer.variables)
    return {
        "Python, TensorFlow and its compiler": RUNTIME[learner.jit_compile],
        "parameters": parameters,
        "optimiser": optimizer,
        "snapshot to undo an update": nbytes(learner.variables),
        "trajectory, observations and next observations": nbytes(specs),
        "its copy in TensorFlow": nbytes(specs),
        "old distributions, values, advantages, targets": nbytes(results),
        "activations and gradients of a minibatch": max(forward, step),
    }


def trajectory_specs(
    learner: Learner, envs: gymnasium.vector.VectorEnv, horizon: int
) -> Trajectory:
    """Returns a tf.TensorSpec for each field of the rollouts that `VectorCollector` makes, those
    that are kept beside the newest."""
    shape = (horizon, learner.rollouts.count * envs.num_envs)

    def observed(space: Any) -> tf.TensorSpec:
        return tf.TensorSpec((*shape, *space.shape), spaces.observed_dtype(space.dtype))

    leaves = spaces.leaves(observation_space(envs))
    observations = tf.nest.map_structure(observed, leaves)
    policy = learner.policy
    example = example_observations(envs, np.random.default_rng(0), observed_paths(policy, envs))
    parameters, _ = policy.step(example, policy.initial_state(envs.num_envs))
    actions = tf.nest.map_structure(
        lambda action: tf.TensorSpec((*shape, *action.shape[1:]), action.dtype),
        policy.draw(parameters, np.array([0, 0], np.int32)),
    )
    flags = tf.TensorSpec(shape, tf.bool)
    rewards = tf.TensorSpec(shape, tf.float32)
    drawn = learner.objective.layer_noise.draw(np.random.default_rng(0), 1, 1)
    noise = tuple(tf.TensorSpec((*shape, *x.shape[2:]), x.dtype) for x in drawn)
    known = (observations, actions, rewards, observations)
    return Trajectory(*known, flags, flags, flags, flags, noise)


def _minibatch_specs(learner: Learner, specs: Trajectory, results: tuple[Any, ...]) -> Batch:
    length = learner.sequence_length
    samples = math.prod(specs.rewards.shape)  # for a rule without minibatches, all at once
    count = getattr(learner.update_rule, "minibatch_size", samples) // length
    steps: Any = tf.nest.map_structure(
        lambda spec: tf.TensorSpec((length, count, *spec.shape[2:]), spec.dtype),
        (
            *(specs.observations, specs.actions, specs.valid, specs.starts),
            *(*results[:4], specs.layer_noise),
            results[1] if learner.rollouts.count > 1 else (),  # importance weights
        ),
    )
    models = (learner.policy.actor, learner.critic)
    states: Any = [_specs(recurrent.initial_state(model, count)) for model in models]
    return Batch(*steps, *states)


def _gradients(learner: Learner) -> Callable[[Batch], Any]:
    def gradients(batch: Batch) -> Any:
        with tf.GradientTape() as tape:
            total, _ = total_loss(learner.objective, batch)
        return tape.gradient(total, tape.watched_variables())

    return gradients


def checkpoint_bytes(learner: Learner) -> int:
    """Returns the size of a checkpoint's arrays; the file is a few kB larger."""
    return sum(array.nbytes for array in learner_variables(learner).values())


def nbytes(nest: Any) -> int:
    """Returns the size in bytes of all tensors, variables or specs in a nest."""
    return sum(
        math.prod(leaf.shape) * tf.as_dtype(leaf.dtype).size for leaf in tf.nest.flatten(nest)
    )


def peak_bytes(graph: tf.Graph) -> int:
    """Returns the peak memory of a graph's tensors, in bytes.

    Operations are assumed to run one by one in the order of their creation, and each result to be
    kept until its last use. Variables, inputs and the inside of loops are not counted.
    """
    operations = graph.get_operations()
    memory: dict[str, str] = {}  # {tensor: the tensor that it is a view of, or itself}
    last_use: dict[str, int] = {}
    for index, operation in enumerate(operations):
        for output in operation.outputs:
            view = operation.type in _VIEWS
            memory[output.name] = memory[operation.inputs[0].name] if view else output.name
        used = (
            operation.outputs
            if operation.type in _OUTSIDE
            else [*operation.inputs, *operation.outputs]
        )
        last_use.update({memory[tensor.name]: index for tensor in used})
    last_use.update({memory[tensor.name]: len(operations) for tensor in graph.outputs})
    ends: dict[int, list[str]] = collections.defaultdict(list)
    for name, index in last_use.items():
        ends[index].append(name)
    sizes: dict[str, int] = {}
    peak = 0
    for index, operation in enumerate(operations):
        if operation.type not in _VIEWS | _OUTSIDE:
            sizes.update({output.name: _size(output) for output in operation.outputs})
        peak = max(peak, sum(sizes.values()))
        for name in ends[index]:
            sizes.pop(name, None)
    return peak


def _size(tensor: tf.Tensor) -> int:
    if tensor.dtype in (tf.resource, tf.variant, tf.string) or not tensor.shape.is_fully_defined():
        return 0
    return nbytes(tensor)


def _trace(function: Callable[..., Any], *arguments: Any) -> tuple[Any, int]:
    """Traces a function; returns the specs of its results and its `peak_bytes`."""
    concrete = tf.function(function, autograph=False).get_concrete_function(*arguments)
    return concrete.structured_outputs, peak_bytes(concrete.graph)


def _specs(tensors: Any) -> Any:
    return tf.nest.map_structure(lambda x: tf.TensorSpec(x.shape, x.dtype), tensors)


def _parameters(learner: Learner) -> list[Any]:
    """Variables of actor and critic, shared ones once; includes normalisation statistics."""
    found = [*learner.policy.variables, *getattr(learner.critic, "variables", ())]
    return list({id(variable): variable for variable in found}.values())
