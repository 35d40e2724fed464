"""Acting in microseconds: observations to actions, and as little as possible around the arithmetic.

One call of a compiled TensorFlow function costs over 100 microseconds whatever it computes. LiteRT
runs the same graph in 5: the actor, the distribution's sample and the action map are converted
once, with the weights as inputs that are set anew after each update, and the random numbers of a
whole rollout are drawn in one go. What LiteRT or this way of sampling can't serve takes the general
way, a compiled TensorFlow function. Both draw from the same distribution.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Literal, Protocol

import gymnasium
import keras
import numpy as np
import tensorflow as tf

from ppo_tf import ops
from ppo_tf.actions.distributions import Noise, noise_of
from ppo_tf.networks.models import has_convolutions
from ppo_tf.policies.agreement import check_actions, example_observations, observed_paths
from ppo_tf.policies.policy import Policy
from ppo_tf.support import quiet, seeds
from ppo_tf.types import Nest

Engine = Literal["auto", "litert", "tensorflow"]


class Acting(Protocol):
    """What a collector acts with. Of a policy with a memory it keeps the state."""

    description: str  # which engine, and why

    def begin(self, steps: int, seed: int, rollout: int) -> None:
        """Takes the policy's present weights and the randomness of a rollout of `steps` steps."""
        ...

    def __call__(self, observations: Nest, step: int, starts: np.ndarray) -> tuple[Nest, Nest]:
        """Raw actions and the environment's actions for observations [B, ...] at step.

        starts, bool [B], are the environments in which an episode begins.
        """
        ...


def make_acting(
    policy: Policy, envs: gymnasium.vector.VectorEnv, engine: Engine = "auto"
) -> Acting:
    """Chooses how to act.

    Args:
        policy: what acts.
        envs: the environments it acts in.
        engine: "litert", "tensorflow", or "auto": LiteRT where it can serve the policy.

    Raises:
        ValueError: an unknown engine, "litert" for a policy that it can't serve, or a policy whose
            actions are not those of the environment.
    """
    if engine not in ("auto", "litert", "tensorflow"):
        raise ValueError(
            f"acting must be 'auto', 'litert' or 'tensorflow'. Received: acting={engine!r}"
        )
    check_actions(policy, envs)
    if engine == "tensorflow":
        return CompiledActing(policy, envs, "as asked")
    if engine == "auto" and has_convolutions(policy):
        # With weights as inputs LiteRT has no fast convolutions: a Nature CNN on 8 images takes
        # three times as long as in TensorFlow.
        return CompiledActing(policy, envs, "faster for convolutions")
    try:
        return LiteActing(policy, envs)
    except _CannotServe as reason:
        if engine == "litert":
            raise ValueError(f"acting='litert' can't serve this policy: {reason}") from reason
        return CompiledActing(policy, envs, str(reason))


class CompiledActing:
    """The general way: one compiled TensorFlow function.

    It samples from the same noise as `LiteActing` where the distribution can be sampled so, else by
    TFP from a seed for each step.

    Args:
        policy: what acts.
        envs: the environments it acts in.
        reason: why this way, for the log.
    """

    def __init__(self, policy: Policy, envs: gymnasium.vector.VectorEnv, reason: str):
        self.description = f"TensorFlow ({reason})"
        self._state = policy.initial_state(envs.num_envs)
        self._leaves = observed_paths(policy, envs)
        self._draw, from_noise = _sampling(policy)
        generator = np.random.default_rng(0)
        example = example_observations(envs, generator, self._leaves)
        # Only the shapes are used, to draw noise that fits them.
        self._parameters, _ = policy.step(example, self._state)
        first = tf.nest.map_structure(lambda x: x[0], self._draw(generator, 1, self._parameters))

        def act(observations, state, starts, noise):
            state = ops.emptied(starts, state)
            parameters, state = policy.step(observations, state)
            raw = from_noise(parameters, noise)
            return raw, policy.action_map(raw), state

        def spec(nest):
            return tf.nest.map_structure(lambda x: tf.TensorSpec(x.shape, x.dtype), nest)

        # The concrete function skips tf.function's work on every call's arguments.
        self._function = tf.function(act, jit_compile=True, autograph=False).get_concrete_function(
            spec(example),
            spec(self._state),
            tf.TensorSpec((envs.num_envs,), tf.bool),
            spec(first),
        )

    def begin(self, steps: int, seed: int, rollout: int) -> None:
        """Draws the noise of the rollout; the weights are read when acting."""
        generator = seeds.derive_generator(seed, "acting", rollout)
        self._noise = self._draw(generator, steps, self._parameters)

    def __call__(self, observations: Nest, step: int, starts: np.ndarray) -> tuple[Nest, Nest]:
        """Raw actions and the environment's actions for observations [B, ...] at step."""
        if isinstance(observations, dict):
            observations = {path: tf.constant(observations[path]) for path in self._leaves}
        else:
            observations = tf.constant(observations)
        noise = tf.nest.map_structure(lambda x: tf.constant(x[step]), self._noise)
        raw, action, self._state = self._function(
            observations, self._state, tf.constant(starts), noise
        )
        return tf.nest.map_structure(lambda x: x.numpy(), (raw, action))


class LiteActing:
    """The fast way: the actor, the sample and the action map as one LiteRT graph, on one thread.

    Args:
        policy: what acts; its distribution must be one that `distributions.noise_of` serves.
        envs: the environments it acts in.
    """

    def __init__(self, policy: Policy, envs: gymnasium.vector.VectorEnv):
        noise = _noise_of(policy)
        if noise is None:
            raise _CannotServe("its distribution is sampled by TFP")
        if importlib.util.find_spec("ai_edge_litert") is None:
            raise _CannotServe("ai-edge-litert is not installed")
        self._draw, self._from_noise = noise.draw, noise.from_noise
        self._state = [s.numpy() for s in policy.initial_state(envs.num_envs)]
        generator = np.random.default_rng(0)
        example = example_observations(envs, generator, observed_paths(policy, envs))
        # Only the shapes are used, to draw noise that fits them.
        self._parameters, _ = policy.step(example, self._state)
        first = tf.nest.map_structure(lambda x: x[0], self._draw(generator, 1, self._parameters))
        variables = policy.actor.variables

        def act(arguments):
            mapping = list(zip(variables, arguments["weight"], strict=True))
            with keras.StatelessScope(state_mapping=mapping):
                parameters, state = policy.step(arguments["observation"], arguments["state"])
            raw = self._from_noise(parameters, arguments["noise"])
            return {"raw": raw, "action": policy.action_map(raw), "state": state}

        values = [v.value for v in variables]
        arguments = {"observation": example, "noise": first, "state": self._state, "weight": values}
        try:
            with quiet.held_back(show_if_failed=False):
                self._interpreter, inputs, outputs = _convert(act, arguments)
        except Exception as error:  # the converter's own, of many kinds
            first_line = str(error).strip().split("\n")[0][:80]
            raise _CannotServe(f"LiteRT can't convert it: {first_line}") from error
        self._observations = _pairs(inputs["observation"])
        self._noise_inputs = tf.nest.flatten(inputs["noise"])
        self._state_inputs, self._state_outputs = inputs["state"], outputs["state"]
        self._weights = [
            (index, v.handle, v.dtype) for index, v in zip(inputs["weight"], values, strict=True)
        ]
        self._raw, self._action = outputs["raw"], outputs["action"]
        self.description = "LiteRT"
        self._check(policy, example)

    def begin(self, steps: int, seed: int, rollout: int) -> None:
        """Copies the policy's weights and draws the noise of the rollout."""
        for index, handle, dtype in self._weights:
            # A third of the time of variable.numpy(), which names, watches and copies.
            weight = tf.raw_ops.ReadVariableOp(resource=handle, dtype=dtype)
            self._interpreter.set_tensor(index, weight.numpy())
        generator = seeds.derive_generator(seed, "acting", rollout)
        noise = tf.nest.flatten(self._draw(generator, steps, self._parameters))
        self._noise = list(zip(self._noise_inputs, noise, strict=True))

    def __call__(self, observations: Nest, step: int, starts: np.ndarray) -> tuple[Nest, Nest]:
        """Raw actions and the environment's actions for observations [B, ...] at step."""
        interpreter = self._interpreter
        for index, path in self._observations:
            interpreter.set_tensor(index, observations if path is None else observations[path])
        for index, noise in self._noise:
            interpreter.set_tensor(index, noise[step])
        if self._state:
            for index, state in zip(self._state_inputs, self._state, strict=True):
                state[starts] = 0.0
                interpreter.set_tensor(index, state)
        interpreter.invoke()
        if self._state:
            self._state = [interpreter.get_tensor(index) for index in self._state_outputs]
        return self._read(self._raw), self._read(self._action)

    def _read(self, outputs):
        if isinstance(outputs, dict):
            return {path: self._interpreter.get_tensor(index) for path, index in outputs.items()}
        return self._interpreter.get_tensor(outputs)

    def _check(self, policy: Policy, example: Nest) -> None:
        """Compares with Keras once; a conversion that is off must not act."""
        self.begin(1, 0, 0)
        none = np.zeros(len(tf.nest.flatten(example)[0]), bool)
        noise = tf.nest.pack_sequence_as(
            self._draw(np.random.default_rng(0), 1, self._parameters),
            [tf.constant(noise[0]) for _, noise in self._noise],
        )
        parameters, state = policy.step(example, self._state)
        raw = self._from_noise(parameters, noise)
        expected = (raw, policy.action_map(raw), state)
        before = [s.copy() for s in self._state]
        got = (*self(example, 0, none), self._state)
        self._state = before
        for one, other in zip(tf.nest.flatten(got), tf.nest.flatten(expected), strict=True):
            other = other.numpy()
            if one.dtype != other.dtype or not np.allclose(one, other, rtol=1e-4, atol=1e-4):
                raise _CannotServe("LiteRT's actions differ from Keras'")


def _sampling(policy: Policy) -> tuple[Callable, Callable]:
    """How noise is drawn and made into raw actions; for TFP's sampling the noise is a seed."""
    noise = _noise_of(policy)
    if noise is not None:
        return noise.draw, noise.from_noise

    def draw(generator, steps, parameters):
        # No negative words, see `seeds.derive_words`.
        return generator.integers(2**31, size=(steps, 2), dtype=np.int32)

    return draw, policy.draw


def _noise_of(policy: Policy) -> Noise | None:
    return noise_of(policy.family) if type(policy).draw is Policy.draw else None


class _CannotServe(Exception):
    """Why LiteRT is not used."""


def _pairs(inputs: Nest) -> list[tuple[int, str | None]]:
    """(index, path) of each observation; the path of a plain one is None."""
    if isinstance(inputs, dict):
        return [(index, path) for path, index in inputs.items()]
    return [(inputs, None)]


def _convert(function, arguments):
    """The interpreter of a function of one nest, and the indices of its tensors, nested alike."""
    from ai_edge_litert.interpreter import Interpreter

    structures = {}

    def flat(**tensors):
        nest = tf.nest.pack_sequence_as(
            arguments, [tensors[f"in_{i}"] for i in range(len(tensors))]
        )
        structures["out"] = result = function(nest)
        return {f"out_{i}": tf.identity(x) for i, x in enumerate(tf.nest.flatten(result))}

    specs = {
        f"in_{i}": tf.TensorSpec(x.shape, x.dtype, name=f"in_{i}")
        for i, x in enumerate(tf.nest.flatten(arguments))
    }
    concrete = tf.function(flat, autograph=False).get_concrete_function(**specs)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], tf.Module())
    interpreter = Interpreter(model_content=converter.convert(), num_threads=1)
    interpreter.allocate_tensors()
    runner = interpreter.get_signature_runner()
    inputs, outputs = runner.get_input_details(), runner.get_output_details()
    return (
        interpreter,
        tf.nest.pack_sequence_as(arguments, [inputs[n]["index"] for n in specs]),
        tf.nest.pack_sequence_as(
            structures["out"], [outputs[f"out_{i}"]["index"] for i in range(len(outputs))]
        ),
    )
