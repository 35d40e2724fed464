"""Acting in microseconds: observations to actions, and as little as possible around the arithmetic.

One call of a compiled TensorFlow function costs over 100 microseconds whatever it computes. LiteRT
runs the same graph in 5: the actor, the distribution's sample and the action map are converted
once, with the weights as inputs that are set anew after each update, and the random numbers of a
whole rollout are drawn in one go. What LiteRT or this way of sampling can't serve takes the general
way, a compiled TensorFlow function. Both draw from the same distribution.
"""

from __future__ import annotations

import importlib.util
from typing import Any, Literal, Protocol

import gymnasium
import keras
import numpy as np
import tensorflow as tf

from ppo_tf import _quiet, ops
from ppo_tf.distributions import noise_of
from ppo_tf.models import observation_space
from ppo_tf.policy import Policy

Engine = Literal["auto", "litert", "tensorflow"]


class Acting(Protocol):
    """What a collector acts with."""

    description: str  # which engine, and why

    def begin(self, steps: int, seed: int, rollout: int) -> None:
        """Takes the policy's present weights and the randomness of a rollout of `steps` steps."""
        ...

    def __call__(self, observations: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Raw actions and the environment's actions for observations [B, ...] at step."""
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
        ValueError: an unknown engine, or "litert" for a policy that it can't serve.
    """
    if engine not in ("auto", "litert", "tensorflow"):
        raise ValueError(
            f"acting must be 'auto', 'litert' or 'tensorflow'. Received: acting={engine!r}"
        )
    if engine == "tensorflow":
        return CompiledActing(policy, envs, "as asked")
    try:
        return LiteActing(policy, envs)
    except _CannotServe as reason:
        if engine == "litert":
            raise ValueError(f"acting='litert' can't serve this policy: {reason}") from reason
        return CompiledActing(policy, envs, str(reason))


class CompiledActing:
    """The general way: one compiled TensorFlow function, TFP's own sampling.

    Args:
        policy: what acts.
        envs: the environments it acts in.
        reason: why this way, for the log.
    """

    def __init__(self, policy: Policy, envs: gymnasium.vector.VectorEnv, reason: str):
        self.description = f"TensorFlow ({reason})"
        space = envs.single_observation_space

        def act(observations, seed):
            raw = policy.sample(observations, seed)
            return raw, policy.action_map(raw)

        # The concrete function skips tf.function's work on every call's arguments.
        self._function = tf.function(act, jit_compile=True, autograph=False).get_concrete_function(
            tf.TensorSpec((envs.num_envs, *(space.shape or ())), space.dtype),
            tf.TensorSpec((2,), tf.int32),
        )

    def begin(self, steps: int, seed: int, rollout: int) -> None:
        """Derives a seed for every step; the weights are read when acting."""
        self._seeds = ops.derive_words(2 * steps, seed, "acting", rollout).reshape(steps, 2)

    def __call__(self, observations: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Raw actions and the environment's actions for observations [B, ...] at step."""
        raw, action = self._function(tf.constant(observations), tf.constant(self._seeds[step]))
        return raw.numpy(), action.numpy()


class LiteActing:
    """The fast way: the actor, the sample and the action map as one LiteRT graph, on one thread.

    Args:
        policy: what acts; `distributions.noise_of` must know its distribution.
        envs: the environments it acts in.
    """

    def __init__(self, policy: Policy, envs: gymnasium.vector.VectorEnv):
        noise = noise_of(policy.family)
        if noise is None or type(policy).sample is not Policy.sample:
            raise _CannotServe("its distribution is sampled by TFP")
        if importlib.util.find_spec("ai_edge_litert") is None:
            raise _CannotServe("ai-edge-litert is not installed")
        transform = noise.from_noise
        space = observation_space(envs)
        batch = (envs.num_envs, *(space.shape or ()))
        parameters = policy.parameters(np.zeros(batch, space.dtype))
        self._draw = lambda generator, steps: noise.draw(generator, steps, parameters)
        noise_shape = self._draw(np.random.default_rng(0), 1).shape[1:]
        variables = policy.actor.variables

        def act(observations, noise, *weights):
            mapping = list(zip(variables, weights, strict=True))
            with keras.StatelessScope(state_mapping=mapping):
                parameters = policy.parameters(observations)
            raw = transform(parameters, noise)
            return raw, policy.action_map(raw)

        arguments = [
            tf.TensorSpec(batch, space.dtype, name="observations"),
            tf.TensorSpec(noise_shape, tf.float32, name="noise"),
            *(tf.TensorSpec(v.shape, v.dtype, name=f"weight_{i}") for i, v in enumerate(variables)),
        ]
        try:
            function = tf.function(act, autograph=False).get_concrete_function(*arguments)
            with _quiet.held_back(show_if_failed=False):
                self._interpreter = _interpreter(function)
        except Exception as error:  # the converter's own, of many kinds
            first_line = str(error).strip().split("\n")[0][:80]
            raise _CannotServe(f"LiteRT can't convert it: {first_line}") from error
        inputs = {  # named as in "serving_default_noise:0"
            d["name"].removeprefix("serving_default_").split(":")[0]: d["index"]
            for d in self._interpreter.get_input_details()
        }
        outputs = {d["name"]: d["index"] for d in self._interpreter.get_output_details()}
        self._observations, self._noise_input = inputs["observations"], inputs["noise"]
        self._weights = [
            (inputs[f"weight_{i}"], v.value.handle, v.value.dtype) for i, v in enumerate(variables)
        ]
        self._raw_output, self._action_output = (outputs[name] for name in sorted(outputs))
        self.description = "LiteRT"
        self._check(policy, transform, batch, space)

    def begin(self, steps: int, seed: int, rollout: int) -> None:
        """Copies the policy's weights and draws the noise of the rollout."""
        for index, handle, dtype in self._weights:
            # A third of the time of variable.numpy(), which names, watches and copies.
            weight = tf.raw_ops.ReadVariableOp(resource=handle, dtype=dtype)
            self._interpreter.set_tensor(index, weight.numpy())
        generator = ops.derive_generator(seed, "acting", rollout)
        self._noise = self._draw(generator, steps)

    def __call__(self, observations: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Raw actions and the environment's actions for observations [B, ...] at step."""
        interpreter = self._interpreter
        interpreter.set_tensor(self._observations, observations)
        interpreter.set_tensor(self._noise_input, self._noise[step])
        interpreter.invoke()
        return interpreter.get_tensor(self._raw_output), interpreter.get_tensor(self._action_output)

    def _check(self, policy: Policy, transform: Any, batch, space) -> None:
        """Compares with Keras once; a conversion that is off must not act."""
        self.begin(1, 0, 0)
        generator = np.random.default_rng(0)
        observations = np.stack([_example(space, generator) for _ in range(batch[0])])
        raw, action = self(observations, 0)
        expected = transform(policy.parameters(observations), tf.constant(self._noise[0]))
        for got, wanted in ((raw, expected), (action, policy.action_map(expected))):
            wanted = wanted.numpy()
            if got.dtype != wanted.dtype or not np.allclose(got, wanted, rtol=1e-4, atol=1e-4):
                raise _CannotServe("LiteRT's actions differ from Keras'")


class _CannotServe(Exception):
    """Why LiteRT is not used."""


def _example(space: Any, generator: np.random.Generator) -> np.ndarray:
    """An observation of moderate size, drawn without touching the space's own random state."""
    if isinstance(space, gymnasium.spaces.Discrete):
        return np.asarray(space.start + generator.integers(space.n), space.dtype)
    if np.issubdtype(space.dtype, np.floating):
        return generator.normal(size=space.shape).astype(space.dtype)
    return generator.integers(space.low, space.high, endpoint=True).astype(space.dtype)


def _interpreter(function):
    from ai_edge_litert.interpreter import Interpreter

    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], tf.Module())
    interpreter = Interpreter(model_content=converter.convert(), num_threads=1)
    interpreter.allocate_tensors()
    return interpreter
