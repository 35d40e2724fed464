"""From a crew's rollouts to trajectories and finished episodes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ppo_tf import spaces
from ppo_tf.collecting.episodes import EpisodeSums
from ppo_tf.collecting.stepper import Rollout
from ppo_tf.collecting.workers.crew import Assignment, Crew
from ppo_tf.environments.backends import environment_seeds
from ppo_tf.policies.acting import draw_orders
from ppo_tf.policies.log_probs import make_log_probs
from ppo_tf.policies.policy import Policy
from ppo_tf.policies.policy_step import PolicyStep
from ppo_tf.types import Episode, Trajectory


class CrewCollector:
    """Collects trajectories with a crew of workers; episodes run on across rollouts.

    Args:
        crew: the workers, ready to collect.
        policy: what acts.
        step: its step, in all environments.
        horizon: steps per environment and rollout.
        seed: seed of the actions.
        iterations: rollouts collected before with this seed; their noise is not drawn again.
        log_probs: whether trajectories say how probable their actions were.
        staleness: 1: workers collect the next rollout while the learner learns from the last, with
            weights that are one update old; 0: they wait for the new ones.

    Attributes:
        logs: of the last rollout: `time/collect_seconds`, what the slowest worker took;
            `time/wait_seconds`, how long `collect` waited; `time/restarts`, workers replaced so
            far; `rollout/lost_steps`, steps so far of episodes that were given up because they
            could not be repeated. As with all logs, those under `time/` may differ between two
            runs that are the same.
    """

    def __init__(
        self,
        crew: Crew,
        policy: Policy,
        step: PolicyStep,
        horizon: int,
        *,
        seed: int,
        iterations: int,
        log_probs: bool,
        staleness: int = 0,
    ):
        self.crew = crew
        self.num_envs = crew.num_envs
        self.horizon = horizon
        self.logs: dict[str, float] = {}
        self._step = step
        self._log_probs = make_log_probs(policy) if log_probs or staleness else None
        self._staleness = staleness
        self._seed = seed
        self._iterations = self._first_iteration = iterations
        self._episodes = EpisodeSums(self.num_envs)
        self._pending: _Pending | None = None

    def begin_episodes(self, iterations: int) -> None:
        """Starts new episodes everywhere, with seeds that follow from the run's and `iterations`.

        What comes next is then the same in this process as in a new one. The episodes under way
        end unfinished: they are in no statistics.

        Args:
            iterations: rollouts collected so far in the run.
        """
        self._iterations = iterations
        self._pending = None
        self.crew.begin_episodes(self._seeds("restart", iterations))
        self._episodes = EpisodeSums(self.num_envs)

    def collect(self) -> tuple[Trajectory, list[Episode]]:
        """Returns the next `horizon` steps and the episodes that finished in them.

        Raises:
            NonFiniteError: a NaN or infinite reward or observation; see `Stepper.rollout`.
            EnvironmentFailure: an environment raised an exception or gave something that does not
                fit, likewise; or a worker is gone.
            ValueError: an invalid-action mask without a valid action, likewise.
        """
        start = time.perf_counter()
        pending = self._pending or self._assign(self._iterations)
        self._pending = None
        parts = self.crew.collected()
        waited = time.perf_counter() - start
        rollout = self._joined([part.rollout for part in parts])
        done = rollout.terminated | rollout.truncated
        episodes = self._episodes.add(rollout.rewards, done, rollout.valid)
        fields = {name: getattr(rollout, name) for name in Trajectory._fields[:8]}
        fields["rewards"] = rollout.rewards.astype(np.float32)
        trajectory = Trajectory(**fields, layer_noise=pending.layer_noise)
        if self._log_probs is not None:
            log_probs = self._log_probs(trajectory, pending.weights)
            trajectory = trajectory._replace(log_probs=log_probs)
        self._iterations += 1
        if self._staleness:
            self._pending = self._assign(self._iterations)
        self.logs = {
            "time/collect_seconds": max(part.seconds for part in parts),
            "time/wait_seconds": waited,
            "time/restarts": self.crew.restarts,
            "rollout/lost_steps": self.crew.lost_steps,
        }
        return trajectory, episodes

    def _assign(self, iteration: int) -> _Pending:
        """Has a rollout collected with the policy's present weights."""
        count = len(self.crew.places)
        orders, layer_noise = draw_orders(self._step, self.horizon, self._seed, iteration, count)
        self.crew.assign(
            Assignment(
                orders,
                (iteration - self._first_iteration) * self.horizon,
                lambda attempts: self._seeds("replacement", iteration, attempts),
                self._episodes.give_up,
            )
        )
        return _Pending(orders[0].weights, layer_noise)

    def _joined(self, parts: Sequence[Rollout]) -> Rollout:
        """The rollouts of all workers, side by side."""
        (*names, _) = Rollout._fields
        fields: dict[str, Any] = {
            name: spaces.map_leaves(
                lambda *x: np.concatenate(x, axis=1), *(getattr(part, name) for part in parts)
            )
            for name in names
        }
        return Rollout(**fields, env_actions=())

    def _seeds(self, *purpose: int | str) -> list[int]:
        return environment_seeds(self._seed, self.num_envs, *purpose)


class _Pending(NamedTuple):
    """A rollout that is being collected.

    Attributes:
        weights: those that act.
        layer_noise: what the actor's layers with noise draw in it.
    """

    weights: Sequence[np.ndarray]
    layer_noise: Sequence[np.ndarray]
