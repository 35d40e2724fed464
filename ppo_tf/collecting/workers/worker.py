"""A worker: some of the environments, and an engine that acts in them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from ppo_tf.collecting.stepper import Rollout, Stepper
from ppo_tf.environments.stepping import close
from ppo_tf.policies.engines import Engine, EngineModel, Order
from ppo_tf.support import quiet
from ppo_tf.types import Arrays, Nest

# (index of the first environment, how many) -> environments, seeded
MakePart = Callable[[int, int], gymnasium.vector.VectorEnv]


class Facts(NamedTuple):
    """What the learner's process knows of environments that live elsewhere.

    Attributes:
        single_observation_space: of one environment.
        single_action_space: of one environment.
        metadata: of the environments.
    """

    single_observation_space: gymnasium.Space[Any]
    single_action_space: gymnasium.Space[Any]
    metadata: dict[str, Any]


class Duty(NamedTuple):
    """What a worker collects, and how it acts.

    Attributes:
        model: of the engine; None: it is given, see `Worker.take_over`.
        horizon: steps of a rollout.
        has_memory: whether the policy has a memory.
        mask_key: of invalid-action masks.
    """

    model: EngineModel | None
    horizon: int
    has_memory: bool
    mask_key: str | None


class Collected(NamedTuple):
    """A worker's rollout.

    Attributes:
        rollout: what happened.
        digest: its checksum.
        state: the engine's memory after it.
        seconds: that it took.
    """

    rollout: Rollout
    digest: int
    state: list[np.ndarray]
    seconds: float


class Worker:
    """Collects rollouts in some of the environments.

    Args:
        make: makes the environments.
        first: index of the first one among all that collect.
        count: how many.
        progress: int64 [1], counts steps where others can see it.

    Attributes:
        envs: the environments.
        engine: who acts.
    """

    def __init__(self, make: MakePart, first: int, count: int, progress: np.ndarray | None = None):
        self.envs = make(first, count)
        self._first = first
        self._progress = np.zeros(1, np.int64) if progress is None else progress
        self.engine: Engine

    def facts(self) -> Facts:
        """Returns what there is to know of the environments."""
        envs = self.envs
        return Facts(envs.single_observation_space, envs.single_action_space, envs.metadata)

    def prepare(self, duty: Duty) -> None:
        """Gets ready to collect; raises what `Stepper` raises."""
        assert duty.model is not None
        with quiet.held_back(show_if_failed=True):  # LiteRT says which delegate it uses
            engine = duty.model.make()
        self.take_over(engine, duty)

    def take_over(self, engine: Engine, duty: Duty, record: bool = True) -> None:
        """Gets ready to collect with an engine of this process.

        Args:
            engine: who acts.
            duty: what to collect; its model is not used.
            record: whether rollouts say what they need to be repeated.
        """
        self.engine, self._recorded = engine, record
        self._stepper = Stepper(
            self.envs,
            duty.horizon,
            has_memory=duty.has_memory,
            mask_key=duty.mask_key,
            first=self._first,
            record=record,
            progress=self._progress,
        )

    def begin_episodes(self, seeds: Sequence[int]) -> None:
        """Starts new episodes, with a seed for each environment; steps count from here."""
        self._progress[0] = 0
        self._stepper.begin_episodes(seeds)

    def collect(
        self, order: Order, rows_before: int, state: Sequence[np.ndarray] | None = None
    ) -> Collected:
        """Collects a rollout.

        Args:
            order: the weights and the noise.
            rows_before: rows of earlier rollouts, from which errors count.
            state: the engine's memory before it; None: as it is.

        Raises:
            NonFiniteError, EnvironmentFailure, ValueError: as `Stepper.rollout`.
        """
        start = time.perf_counter()
        if state is not None and len(state):
            self.engine.state = [np.array(part) for part in state]
        self.engine.begin(order.weights, order.noise)
        rollout = self._stepper.rollout(self.engine, rows_before)
        digest = rollout.digest() if self._recorded else 0
        memory = [np.array(part) for part in self.engine.state]
        return Collected(rollout, digest, memory, time.perf_counter() - start)

    def replay(
        self, seeds: Sequence[int] | None, rollouts: Sequence[tuple[Nest, int]], rows_before: int
    ) -> bool:
        """Brings new environments to where others were; returns whether all came out the same.

        Args:
            seeds: with which episodes began; None: as the environments were made.
            rollouts: since then, each one's (environments' actions [T, B, ...], digest).
            rows_before: rows of rollouts before these, from which errors count.
        """
        self._progress[0] = 0
        if seeds is not None:
            self.begin_episodes(seeds)
        for env_actions, digest in rollouts:
            rollout = self._stepper.rollout(_Repeat(env_actions), rows_before)
            if rollout.digest() != digest:
                return False
            rows_before += len(rollout.rewards)
        return True

    def close(self) -> None:
        """Closes the environments."""
        close(self.envs)


class _Repeat:
    """Acts as was acted before."""

    def __init__(self, env_actions: Any):
        self._actions = env_actions

    def __call__(self, observations: Arrays, step: int, starts: np.ndarray) -> tuple[Nest, Nest]:
        actions = self._actions
        if isinstance(actions, dict):
            action: Nest = {path: leaf[step] for path, leaf in actions.items()}
        else:
            action = actions[step]
        return action, action
