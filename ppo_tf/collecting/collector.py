"""From an environment to trajectories, in this process."""

from __future__ import annotations

from collections.abc import Sequence

import gymnasium
import numpy as np

from ppo_tf.collecting.episodes import EpisodeSums
from ppo_tf.collecting.stepper import Rollout, Stepper
from ppo_tf.environments.backends import environment_seeds
from ppo_tf.policies.acting import EngineName, make_acting
from ppo_tf.policies.log_probs import make_log_probs
from ppo_tf.policies.policy import Policy
from ppo_tf.spaces.masks import MASK_KEY
from ppo_tf.support.checks import check_at_least_one
from ppo_tf.types import Episode, Trajectory


class VectorCollector:
    """Steps a Gymnasium vector environment with a policy; episodes run on across rollouts.

    Args:
        envs: the environments; their metadata say the auto-reset mode.
        policy: what acts.
        horizon: steps per environment and rollout.
        seed: seed of the actions.
        iterations: rollouts collected before with this seed; their noise is not drawn again.
        acting: which engine computes the actions, see `acting.make_acting`.
        mask_key: key of invalid-action masks in the observations, see `masks`.
        log_probs: whether trajectories say how probable their actions were, for estimators that
            need it, such as `VTrace`.

    Attributes:
        acting: the policy with its engine; its `description` says which engine and why.

    Raises:
        ValueError: an argument out of range, or an environment that does not say how it resets.
    """

    def __init__(
        self,
        envs: gymnasium.vector.VectorEnv,
        policy: Policy,
        horizon: int,
        *,
        seed: int = 0,
        iterations: int = 0,
        acting: EngineName = "auto",
        mask_key: str | None = MASK_KEY,
        log_probs: bool = False,
    ):
        check_at_least_one(horizon=horizon)
        self._stepper = Stepper(envs, horizon, has_memory=policy.recurrent, mask_key=mask_key)
        self.envs = envs
        self.num_envs = envs.num_envs
        self.horizon = horizon
        self.acting = make_acting(policy, envs, acting)
        self._log_probs = make_log_probs(policy) if log_probs else None
        self._seed = seed
        self._iterations = self._first_iteration = iterations
        self._episodes = EpisodeSums(self.num_envs)

    def begin_episodes(self, iterations: int) -> None:
        """Starts new episodes everywhere, with seeds that follow from the run's and `iterations`.

        What comes next is then the same in this process as in a new one. The episodes under way
        end unfinished: they are in no statistics.

        Args:
            iterations: rollouts collected so far in the run.
        """
        self._iterations = iterations
        seeds = environment_seeds(self._seed, self.num_envs, "restart", iterations)
        self._stepper.begin_episodes(seeds)
        self._episodes = EpisodeSums(self.num_envs)

    def collect(self) -> tuple[Trajectory, list[Episode]]:
        """Returns the next `horizon` steps and the episodes that finished in them.

        Raises:
            NonFiniteError: a NaN or infinite reward or observation; see `Stepper.rollout`.
            EnvironmentFailure: an environment raised an exception or gave something that does not
                fit; likewise.
            ValueError: an invalid-action mask without a valid action, likewise.
        """
        self.acting.begin(self.horizon, self._seed, self._iterations)
        rollout = self._stepper.rollout(self.acting, self._rows_before)
        episodes = self._episodes.add(
            rollout.rewards, rollout.terminated | rollout.truncated, rollout.valid
        )
        self._iterations += 1
        trajectory = to_trajectory(rollout, self.acting.layer_noise)
        if self._log_probs is not None:
            trajectory = trajectory._replace(log_probs=self._log_probs(trajectory))
        return trajectory, episodes

    @property
    def _rows_before(self) -> int:
        """Rows collected before this rollout."""
        return (self._iterations - self._first_iteration) * self.horizon


def to_trajectory(rollout: Rollout, layer_noise: Sequence[np.ndarray]) -> Trajectory:
    """Returns a rollout as the learner wants it.

    Args:
        rollout: what happened.
        layer_noise: what the actor's layers with noise drew.
    """
    fields = {name: getattr(rollout, name) for name in Trajectory._fields[:8]}
    fields["rewards"] = rollout.rewards.astype(np.float32)
    return Trajectory(**fields, layer_noise=layer_noise)
