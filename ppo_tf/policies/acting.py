"""Acting in microseconds: observations to actions, with little around the arithmetic.

One call of a compiled TensorFlow function costs over 100 microseconds whatever it computes. LiteRT
runs the same graph in 5: the actor, the distribution's sample and the action map are converted
once. The weights are inputs that are set before each rollout, and the random numbers of a whole
rollout are drawn in one go. What LiteRT or this way of sampling can't serve takes the general way,
a compiled TensorFlow function. Both draw from the same distribution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import gymnasium
import numpy as np

from ppo_tf.networks.models import has_convolutions
from ppo_tf.policies.agreement import check_actions
from ppo_tf.policies.engines import Engine
from ppo_tf.policies.litert_conversion import CannotServeError, make_litert_engine
from ppo_tf.policies.policy import Policy
from ppo_tf.policies.policy_step import PolicyStep
from ppo_tf.policies.tensorflow_engine import TensorFlowEngine
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
        engine: as given.
        description: as given.
        layer_noise: what the actor's layers with noise draw in the rollout, [T, B, ...] each.
    """

    def __init__(self, step: PolicyStep, engine: Engine, description: str):
        self.engine = engine
        self.description = description
        self.layer_noise: Sequence[np.ndarray] = ()
        self._step = step

    def begin(self, steps: int, seed: int, iteration: int) -> None:
        """Gives the engine the policy's present weights and the noise of a rollout.

        Args:
            steps: of the rollout.
            seed: the run's.
            iteration: of the run; with the seed it decides the noise.
        """
        generator = seeds.derive_generator(seed, "acting", iteration)
        noise = self._step.draw_noise(generator, steps)
        generator = seeds.derive_generator(seed, "layer noise", iteration)
        self.layer_noise = self._step.draw_layer_noise(generator, steps)
        noise = self._step.joined(noise, self.layer_noise)
        self.engine.begin(self._step.read_weights(), noise)

    def __call__(self, observations: Nest, step: int, starts: np.ndarray) -> tuple[Nest, Nest]:
        """Raw actions and the environment's actions [B, ...], see `Engine`."""
        return self.engine(observations, step, starts)


def make_acting(
    policy: Policy, envs: gymnasium.vector.VectorEnv, engine: EngineName = "auto"
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
    step = PolicyStep(policy, envs)

    def general(reason: object) -> Acting:
        return Acting(step, TensorFlowEngine(step), f"TensorFlow ({reason})")

    if engine == "tensorflow":
        return general("as requested")
    if engine == "auto" and has_convolutions(policy):
        # With weights as inputs LiteRT has no fast convolutions: a Nature CNN on 8 images takes
        # three times as long as in TensorFlow.
        return general("faster for convolutions")
    try:
        return Acting(step, make_litert_engine(step), "LiteRT")
    except CannotServeError as reason:
        if engine == "litert":
            raise ValueError(f"acting='litert' can't serve this policy: {reason}") from reason
        return general(reason)
