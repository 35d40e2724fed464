"""A policy's step as a pure function, which engines compile or convert."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import keras
import numpy as np
import tensorflow as tf

from ppo_tf.actions.distributions import Noise, noise_of
from ppo_tf.policies.agreement import example_observations, observed_paths
from ppo_tf.policies.engines import Arguments, Results
from ppo_tf.policies.policy import Policy
from ppo_tf.types import Nest, Tensor


class PolicyStep:
    """One step of a policy in an environment, its weights and its noise given from outside.

    Args:
        policy: what acts.
        envs: the environments it acts in.

    Attributes:
        sampled_by_tfp: whether only TFP can sample the distribution. The noise is then a seed for
            each step, int32 [2].
        example: arguments of the right shapes, NumPy arrays.
        draws_by_itself: whether layers have drawn random numbers that were not given as noise.
    """

    def __init__(self, policy: Policy, envs: gymnasium.vector.VectorEnv):
        noise = noise_of(policy.family) if type(policy).draw is Policy.draw else None
        self.sampled_by_tfp = noise is None
        self._sampling = noise or Noise(_draw_seeds, policy.draw)
        self._policy = policy
        self._num_envs = envs.num_envs
        self._layer_noise = policy.layer_noise
        self._weights = policy.actor.weights
        weights = {id(weight) for weight in self._weights}
        self._seeds = [v for v in policy.actor.variables if id(v) not in weights]
        self.draws_by_itself = False
        generator = np.random.default_rng(0)
        observations = example_observations(envs, generator, observed_paths(policy, envs))
        state = policy.initial_state(envs.num_envs)
        # Only the shapes are used, to draw noise that fits them.
        self._parameters, _ = policy.step(observations, state)
        drawn = self.joined(self.draw_noise(generator, 1), self.draw_layer_noise(generator, 1))
        noise_of_step = tf.nest.map_structure(lambda x: x[0], drawn)
        self.example = Arguments(
            self.read_weights(), observations, [np.array(part) for part in state], noise_of_step
        )

    def read_weights(self) -> list[np.ndarray]:
        """Copies of the actor's present weights, its layers' statistics among them."""
        return [_read(weight.value) for weight in self._weights]

    def draw_noise(self, generator: np.random.Generator, steps: int) -> Nest:
        """The noise of a rollout's samples, [steps, B, ...] or nested such."""
        return self._sampling.draw(generator, steps, self._parameters)

    def draw_layer_noise(self, generator: np.random.Generator, steps: int) -> Sequence[np.ndarray]:
        """What the actor's layers with noise draw in a rollout, [steps, B, ...] each."""
        return self._layer_noise.draw(generator, steps, self._num_envs)

    def joined(self, noise: Nest, layer_noise: Sequence[Tensor]) -> Nest:
        """All noise of a rollout: that of `draw_noise`, with a draw for each of the layers."""
        layers = {f"layer_{i}": drawn for i, drawn in enumerate(layer_noise)}
        return {"sample": noise, **layers} if layers else noise

    def _parted(self, noise: Any) -> tuple[Nest, list[Tensor]]:
        """The inverse of `joined`."""
        count = len(self._layer_noise.sites)
        if not count:
            return noise, []
        return noise["sample"], [noise[f"layer_{i}"] for i in range(count)]

    def __call__(self, arguments: Arguments) -> Results:
        """Computes the step with TensorFlow."""
        mapping = list(zip(self._weights, arguments.weights, strict=True))
        noise, layer_noise = self._parted(arguments.noise)
        with keras.StatelessScope(state_mapping=mapping) as scope:
            parameters, state = self._policy.step(
                arguments.observations, arguments.state, layer_noise
            )
            raw = self._sampling.from_noise(parameters, noise)
            action = self._policy.action_map(raw)
        for seed in self._seeds:  # of a layer that draws random numbers: other ones next time
            if (value := scope.get_current_value(seed)) is not None:
                seed.assign(value)
                self.draws_by_itself = True
        return Results(raw, action, state)


def _read(variable: tf.Variable) -> np.ndarray:
    # A third of the time of variable.numpy(), which names, watches and copies.
    return tf.raw_ops.ReadVariableOp(resource=variable.handle, dtype=variable.dtype).numpy()


def _draw_seeds(
    generator: np.random.Generator, steps: int, parameters: Mapping[str, Any]
) -> np.ndarray:
    # No negative words, see `seeds.derive_words`.
    return generator.integers(2**31, size=(steps, 2), dtype=np.int32)
