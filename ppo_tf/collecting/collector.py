"""From an environment to trajectories, right in each of Gymnasium's auto-reset modes."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from ppo_tf import spaces
from ppo_tf.collecting.autoreset import make_autoreset
from ppo_tf.collecting.checks import find_empty_mask, find_non_finite, mask_sizes
from ppo_tf.collecting.episodes import EpisodeSums
from ppo_tf.collecting.rows import Final, Rows
from ppo_tf.environments.backends import environment_seeds, reset
from ppo_tf.environments.failures import failure_of
from ppo_tf.policies.acting import EngineName, make_acting
from ppo_tf.policies.log_probs import make_log_probs
from ppo_tf.policies.policy import Policy
from ppo_tf.spaces.masks import MASK_KEY
from ppo_tf.support.checks import check_at_least_one
from ppo_tf.types import Arrays, EnvironmentFailure, Episode, Nest, NonFiniteError, Trajectory


class VectorCollector:
    """Steps a Gymnasium vector environment with a policy; episodes run on across rollouts.

    The three auto-reset modes give the same transitions. NEXT_STEP costs one row per episode, in
    which the environment ignores the action and resets: it is marked as not valid.

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
        self._autoreset = make_autoreset(envs, policy.recurrent)
        self._mask_sizes = mask_sizes(envs, mask_key)
        self.envs = envs
        self.num_envs = envs.num_envs
        self.horizon = horizon
        self.acting = make_acting(policy, envs, acting)
        self._log_probs = make_log_probs(policy) if log_probs else None
        self._composite = any(
            spaces.is_composite(space)
            for space in (envs.single_observation_space, envs.single_action_space)
        )
        self._seed = seed
        self._iterations = self._first_iteration = iterations
        self._observations: Arrays | None = None
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
        self._observations = self._flat(reset(self.envs, seeds))
        self._autoreset.begin_episodes()
        self._episodes = EpisodeSums(self.num_envs)

    @np.errstate(over="ignore")  # what float32 can't hold is infinite, and reported so
    def collect(self) -> tuple[Trajectory, list[Episode]]:
        """Returns the next `horizon` steps and the episodes that finished in them.

        Raises:
            NonFiniteError: a NaN or infinite reward or observation; names the first one by its
                environment and step, counted in rows since the first rollout. An observation
                belongs to the step that acts on it, a reward to the one that earned it.
            EnvironmentFailure: an environment raised an exception or gave something that does not
                fit, counted likewise.
            ValueError: an invalid-action mask without a valid action, counted likewise.
        """
        rows = self._fill_rows()
        rewards = rows.rewards.astype(np.float32)
        self._check_finite(rows.seen, rewards, rows.finals)
        done = rows.terminated | rows.truncated
        valid, starts = self._autoreset.finish(done)
        self._check_masks(rows.seen, valid)
        episodes = self._episodes.add(rows.rewards, done, valid)
        self._iterations += 1
        trajectory = Trajectory(
            observations=spaces.map_leaves(lambda x: x[:-1], rows.seen),
            actions=spaces.map_leaves(lambda *x: np.stack(x), *rows.actions),
            rewards=rewards,
            next_observations=rows.successors(),
            terminated=rows.terminated,
            truncated=rows.truncated,
            valid=valid,
            starts=starts,
            layer_noise=self.acting.layer_noise,
        )
        if self._log_probs is not None:
            trajectory = trajectory._replace(log_probs=self._log_probs(trajectory))
        return trajectory, episodes

    def _fill_rows(self) -> Rows:
        """Takes the steps of a rollout."""
        if self._observations is None:
            self._observations = self._flat(self.envs.reset()[0])
        rows = Rows(self.horizon, self._observations)
        self.acting.begin(self.horizon, self._seed, self._iterations)
        act, after = self.acting, self._autoreset.after
        step_envs = self._step_composite if self._composite else self.envs.step
        rewards, terminated, truncated = rows.rewards, rows.terminated, rows.truncated
        observations, starting = self._observations, self._autoreset.starting
        t = 0
        try:
            for t in range(self.horizon):
                raw, action = act(rows.see(t, observations), t, starting)
                rows.actions.append(raw)
                observations, rewards[t], terminated[t], truncated[t], infos = step_envs(action)
                observations, starting = after(t, rows, observations, infos)
        except (Exception, SystemExit) as error:
            # A policy that saw a NaN acts on it: name the cause, not what came of it.
            before = spaces.map_leaves(lambda x: x[: t + 1], rows.seen)
            self._check_finite(before, rewards[:t], rows.finals, cause=error)
            step = self._rows_before + t
            if isinstance(error, EnvironmentFailure):
                error.step = step
            elif len(rows.actions) > t:  # not the policy's
                raise failure_of(error, None, step) from error
            raise
        rows.see(self.horizon, observations)
        self._observations = observations
        return rows

    def _step_composite(self, action: Nest) -> tuple[Any, ...]:
        """`envs.step` with one-level dicts in place of Gymnasium's own nests."""
        nested = spaces.unflatten(self.envs.single_action_space, action)
        observations, *rest = self.envs.step(nested)
        return self._flat(observations), *rest

    def _flat(self, observations: Any) -> Arrays:
        return spaces.flatten(self.envs.single_observation_space, observations)

    def _check_finite(
        self,
        seen: Arrays,
        rewards: np.ndarray,
        finals: list[Final],
        cause: BaseException | None = None,
    ) -> None:
        """Raises NonFiniteError if there is a NaN or an infinity."""
        if bad := find_non_finite(seen, rewards, finals):
            raise NonFiniteError(
                f"environment {bad.env} gave a non-finite {bad.field} at its step "
                f"{self._rows_before + bad.step}: {bad.value}"
            ) from cause

    def _check_masks(self, seen: Arrays, valid: np.ndarray) -> None:
        """Raises ValueError where an agent had no valid action."""
        if bad := find_empty_mask(self._mask_sizes, seen, valid):
            raise ValueError(
                f"environment {bad.env} gave an action mask without a valid action at its step "
                f"{self._rows_before + bad.step}: observation {bad.path!r}"
            )

    @property
    def _rows_before(self) -> int:
        """Rows collected before this rollout."""
        return (self._iterations - self._first_iteration) * self.horizon
