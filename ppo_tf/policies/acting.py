"""Acting in microseconds: observations to actions, with little around the arithmetic.

One call of a compiled TensorFlow function costs over 100 microseconds whatever it computes. LiteRT
runs the same graph in 5: the actor, the distribution's sample and the action map are converted
once. The weights are inputs that are set before each rollout, and the random numbers of a whole
rollout are drawn in one go. What LiteRT or this way of sampling can't serve takes the general way,
a compiled TensorFlow function. Both draw from the same distribution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import gymnasium
import numpy as np
import tensorflow as tf

from ppo_tf.networks.models import has_convolutions
from ppo_tf.policies.agreement import check_actions
from ppo_tf.policies.engines import Engine, EngineModel, Order
from ppo_tf.policies.litert_conversion import CannotServeError, make_litert_model
from ppo_tf.policies.litert_engine import LiteRTModel
from ppo_tf.policies.policy import Policy
from ppo_tf.policies.policy_step import PolicyStep
from ppo_tf.policies.tensorflow_engine import make_tensorflow_engine, save_step
from ppo_tf.support import seeds
from ppo_tf.types import Nest

EngineName = Literal["auto", "litert", "tensorflow"]


class Acting:
    """A policy of this process that acts through an engine.

    Args:
        step: the policy's, whose weights and noise go to the engine.
        engine: what computes the actions.
        description: which engine, and why.

    Attributes:
        step: as given.
        engine: likewise.
        description: likewise.
    """

    def __init__(self, step: PolicyStep, engine: Engine, description: str):
        self.engine = engine
        self.description = description
        self.step = step

    def order(self, steps: int, seed: int, iteration: int) -> Order:
        """Returns the policy's present weights and the noise of a rollout; arguments of `begin`."""
        (order,), _ = draw_orders(self.step, steps, seed, iteration)
        return order

    def begin(self, steps: int, seed: int, iteration: int) -> None:
        """Gives the engine the policy's present weights and the noise of a rollout.

        Args:
            steps: of the rollout.
            seed: the run's.
            iteration: of the run; with the seed it decides the noise.
        """
        self.engine.begin(*self.order(steps, seed, iteration))

    def __call__(self, observations: Nest, step: int, starts: np.ndarray) -> tuple[Nest, Nest]:
        """Raw actions and the environment's actions [B, ...], see `Engine`."""
        return self.engine(observations, step, starts)


def draw_orders(
    step: PolicyStep, steps: int, seed: int, iteration: int, count: int = 1
) -> tuple[list[Order], Sequence[np.ndarray]]:
    """Draws what engines get for a rollout.

    The noise belongs to the environments, not to who steps them: it is the same for any number of
    engines, unless only TFP can sample the distribution, for a whole batch at once.

    Args:
        step: the policy's, in all environments.
        steps: of the rollout.
        seed: the run's.
        iteration: of the run; with the seed it decides the noise.
        count: number of engines, each for the same number of environments.

    Returns:
        (an order for each engine, what the actor's layers with noise draw, [T, B, ...] each).
    """
    weights = step.read_weights()
    noise = step.draw_noise(seeds.derive_generator(seed, "acting", iteration), steps)
    generator = seeds.derive_generator(seed, "layer noise", iteration)
    layer_noise = step.draw_layer_noise(generator, steps)
    if count == 1:
        return [Order(weights, step.joined(noise, layer_noise))], layer_noise
    orders = []
    for engine in range(count):
        if step.sampled_by_tfp:
            own = seeds.derive_generator(seed, "acting", iteration, engine)
            noise_of_engine = step.draw_noise(own, steps)
        else:
            noise_of_engine = _part(noise, engine, count)
        joined = step.joined(noise_of_engine, _part(list(layer_noise), engine, count))
        orders.append(Order(weights, joined))
    return orders, layer_noise


def _part(noise: Any, engine: int, count: int) -> Any:
    """One engine's columns of noise [T, B, ...]."""

    def cut(x: np.ndarray) -> np.ndarray:
        share = x.shape[1] // count
        return np.ascontiguousarray(x[:, engine * share : (engine + 1) * share])

    return tf.nest.map_structure(cut, noise)


def make_acting(
    policy: Policy, envs: gymnasium.vector.VectorEnv, engine: EngineName = "auto"
) -> Acting:
    """Chooses how to act in this process.

    Args:
        policy: what acts.
        envs: the environments it acts in.
        engine: "litert", "tensorflow", or "auto": LiteRT where it can serve the policy.

    Raises:
        ValueError: an unknown engine, "litert" for a policy that it can't serve, or a policy whose
            actions are not those of the environment.
    """
    check_actions(policy, envs)
    step = PolicyStep(policy, envs)
    model, description = _choose(step, policy, engine)
    made = make_tensorflow_engine(step) if model is None else model.make()
    return Acting(step, made, description)


def make_engine_model(
    policy: Policy, envs: gymnasium.vector.VectorEnv, engine: EngineName = "auto"
) -> tuple[EngineModel, str]:
    """Chooses how to act in other processes; arguments and errors as of `make_acting`.

    Returns:
        (what to send there, which engine and why).
    """
    check_actions(policy, envs)
    step = PolicyStep(policy, envs)
    model, description = _choose(step, policy, engine)
    return (save_step(step) if model is None else model), description


def _choose(step: PolicyStep, policy: Policy, engine: EngineName) -> tuple[LiteRTModel | None, str]:
    """Returns the LiteRT model, None for TensorFlow, and a description."""
    if engine not in ("auto", "litert", "tensorflow"):
        raise ValueError(
            f"acting must be 'auto', 'litert' or 'tensorflow'. Received: acting={engine!r}"
        )
    if engine == "tensorflow":
        return None, "TensorFlow (as requested)"
    if engine == "auto" and has_convolutions(policy):
        # With weights as inputs LiteRT has no fast convolutions: a Nature CNN on 8 images takes
        # three times as long as in TensorFlow.
        return None, "TensorFlow (faster for convolutions)"
    try:
        return make_litert_model(step), "LiteRT"
    except CannotServeError as reason:
        if engine == "litert":
            raise ValueError(f"acting='litert' can't serve this policy: {reason}") from reason
        return None, f"TensorFlow ({reason})"
