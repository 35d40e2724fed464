"""From an environment to trajectories, right in each of Gymnasium's auto-reset modes."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import tensorflow as tf
from gymnasium.vector import AutoresetMode

from ppo_tf import spaces
from ppo_tf.environments.backends import environment_seeds, reset
from ppo_tf.policies.acting import Engine, make_acting
from ppo_tf.policies.policy import Policy
from ppo_tf.spaces.masks import MASK_KEY, find_empty, masked_leaves, segment_sizes
from ppo_tf.types import Episode, Nest, NonFiniteError, Trajectory


class VectorCollector:
    """Steps a Gymnasium vector environment with a policy; episodes run on across rollouts.

    The three auto-reset modes give the same transitions. NEXT_STEP costs one row per episode, in
    which the environment ignores the action and resets: it is marked as not valid.

    Args:
        envs: the environments; their metadata say the auto-reset mode.
        policy: what acts.
        horizon: steps per environment and rollout.
        seed: of the actions.
        iterations: collected before with this seed; the noise of those is not drawn again.
        acting: which engine computes the actions, see `acting.make_acting`.
        mask_key: key of invalid-action masks in the observations, see `masks`.

    Attributes:
        acting: the engine; its `description` says which and why.

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
        acting: Engine = "auto",
        mask_key: str | None = MASK_KEY,
    ):
        if horizon < 1:
            raise ValueError(f"horizon must be at least 1. Received: horizon={horizon}")
        mode = envs.metadata.get("autoreset_mode")
        if not isinstance(mode, AutoresetMode):
            raise ValueError(
                "The environment's metadata must say its gymnasium.vector.AutoresetMode. "
                f"Received: autoreset_mode={mode!r} from {envs}"
            )
        actions: Any = spaces.leaves(envs.single_action_space)
        self._masks = [
            (path, segment_sizes(actions[action] if action else actions))
            for action, path in masked_leaves(
                envs.single_observation_space, envs.single_action_space, mask_key
            ).items()
        ]
        self.envs = envs
        self.num_envs = envs.num_envs
        self.horizon = horizon
        self.acting = make_acting(policy, envs, acting)
        self._mode = mode
        self._seed = seed
        self._iterations = self._first_iteration = iterations
        self._space = envs.single_observation_space
        self._plain = not spaces.is_composite(self._space)
        self._remembers = policy.recurrent
        self._plain_actions = not spaces.is_composite(envs.single_action_space)
        self._observations: Nest = None
        self._starting = np.ones(self.num_envs, bool)  # the coming step is an episode's first
        self._resetting = np.zeros(self.num_envs, bool)  # NEXT_STEP: the coming step is a reset
        self._returns = np.zeros(self.num_envs)  # of the episodes under way
        self._lengths = np.zeros(self.num_envs, np.int64)

    def begin_episodes(self, iterations: int) -> None:
        """Starts new episodes everywhere, with seeds that follow from the run's and `iterations`.

        What comes next is then the same in this process as in a new one. The episodes under way
        end unfinished: they are in no statistics.

        Args:
            iterations: collected so far in the run.
        """
        self._iterations = iterations
        seeds = environment_seeds(self._seed, self.num_envs, "restart", iterations)
        self._observations = self._flat(reset(self.envs, seeds))
        self._starting = np.ones(self.num_envs, bool)
        self._resetting = np.zeros(self.num_envs, bool)
        self._returns = np.zeros(self.num_envs)
        self._lengths = np.zeros(self.num_envs, np.int64)

    def collect(self) -> tuple[Trajectory, list[Episode]]:
        """Returns the next `horizon` steps and the episodes that finished in them.

        Raises:
            NonFiniteError: a NaN or infinite reward or observation; names the first one by its
                environment and step, counted in rows since the first rollout. An observation
                belongs to the step that acts on it, a reward to the one that earned it.
            ValueError: an invalid-action mask without a valid action, counted likewise.
        """
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and reported so
            return self._collect()

    def _collect(self) -> tuple[Trajectory, list[Episode]]:
        if self._observations is None:
            self._observations = self._flat(self.envs.reset()[0])
        shape = (self.horizon, self.num_envs)
        # Row t + 1 is what the agent sees next: after an auto-reset, the new episode's observation.
        seen = tf.nest.map_structure(self._storage, self._observations)
        rewards = np.empty(shape)
        terminated, truncated = np.empty(shape, bool), np.empty(shape, bool)
        actions: list[Nest] = []
        final: list[tuple[int, np.ndarray, Nest]] = []  # step, environments, observations
        self.acting.begin(self.horizon, self._seed, self._iterations)
        act, step_envs, observations = self.acting, self.envs.step, self._observations
        resets = self._mode is not AutoresetMode.NEXT_STEP

        starting, resetting = self._starting, self._resetting
        step = 0
        try:
            for step in range(self.horizon):
                self._store(seen, step, observations)
                raw, action = act(observations, step, starting)
                actions.append(raw)
                if not self._plain_actions:
                    action = spaces.unflatten(self.envs.single_action_space, action)
                observations, rewards[step], terminated[step], truncated[step], infos = step_envs(
                    action
                )
                if not self._plain:
                    observations = spaces.flatten(self._space, observations)
                if resets:
                    starting = terminated[step] | truncated[step]
                    if starting.any():
                        observations = self._reset(step, starting, observations, infos, final)
                elif self._remembers:  # the row after done is the reset, the one after it the first
                    starting, resetting = resetting, terminated[step] | truncated[step]
        except Exception as error:
            # A policy that saw a NaN acts on it: name the cause, not what came of it.
            before = tf.nest.map_structure(lambda x: x[: step + 1], seen)
            if problem := self._non_finite(before, rewards[:step], final):
                raise NonFiniteError(problem) from error
            raise
        self._store(seen, self.horizon, observations)
        self._observations = observations
        rewards32 = rewards.astype(np.float32)
        if problem := self._non_finite(seen, rewards32, final):
            raise NonFiniteError(problem)
        next_observations = tf.nest.map_structure(lambda x: x[1:].copy(), seen)
        for step, environments, successors in final:
            self._store(next_observations, (step, environments), successors)
        valid, starts, done = np.ones(shape, bool), np.empty(shape, bool), terminated | truncated
        if not resets:
            valid[0], valid[1:], self._resetting = ~self._resetting, ~done[:-1], done[-1].copy()
        ended = done if resets else ~valid  # an episode starts in the row after
        starts[0], starts[1:], self._starting = self._starting, ended[:-1], ended[-1].copy()
        self._check_masks(seen, valid)
        episodes = self._finished(rewards, done, valid)
        self._iterations += 1
        trajectory = Trajectory(
            tf.nest.map_structure(lambda x: x[:-1], seen),
            tf.nest.map_structure(lambda *x: np.stack(x), *actions),
            rewards32,
            next_observations,
            terminated,
            truncated,
            valid,
            starts,
        )
        return trajectory, episodes

    def _check_masks(self, seen: Nest, valid: np.ndarray) -> None:
        """Raises ValueError where an agent had no valid action; after the last one it may."""
        for path, sizes in self._masks:
            empty = find_empty(seen[path][:-1][valid], sizes)
            if empty is not None:
                step, env = np.argwhere(valid)[empty]
                raise ValueError(
                    f"environment {env} gave an action mask without a valid action at its step "
                    f"{self._rows_before() + step}: observation {path!r}"
                )

    def _rows_before(self) -> int:
        """Rows collected before this rollout."""
        return (self._iterations - self._first_iteration) * self.horizon

    def _flat(self, observations: Any) -> Nest:
        return observations if self._plain else spaces.flatten(self._space, observations)

    def _storage(self, batch: np.ndarray) -> np.ndarray:
        """Room for a rollout. Models compute in float32: storing more would only be copied."""
        dtype = np.float32 if np.issubdtype(batch.dtype, np.floating) else batch.dtype
        return np.empty((self.horizon + 1, *batch.shape), dtype)

    def _store(self, arrays: Nest, index: Any, values: Nest) -> None:
        if self._plain:
            arrays[index] = values
        else:
            for path, array in arrays.items():
                array[index] = values[path]

    def _reset(self, step, done, observations, infos, final):
        """Keeps the final observations and returns what the agent sees next."""
        if self._mode is AutoresetMode.SAME_STEP:
            environments = np.flatnonzero(infos["_final_obs"])
            each = [self._flat(infos["final_obs"][env]) for env in environments]
            successors = tf.nest.map_structure(lambda *x: np.stack(x), *each)
        else:
            environments = np.flatnonzero(done)
            successors = tf.nest.map_structure(lambda x: x[environments], observations)
            reset, _ = self.envs.reset(options={"reset_mask": done})
            observations = self._flat(reset)
        final.append((step, environments, successors))
        return observations

    def _finished(self, rewards, done, valid) -> list[Episode]:
        """The episodes that ended, in the order of their ends; carries the others on."""
        returns = self._returns + np.cumsum(rewards, axis=0)
        lengths = self._lengths + np.cumsum(valid, axis=0)
        before_return, before_length = np.zeros(self.num_envs), np.zeros(self.num_envs, np.int64)
        episodes = []
        for step, env in np.argwhere(done):
            episode_return = returns[step, env] - before_return[env]
            episodes.append(
                Episode(float(episode_return), int(lengths[step, env] - before_length[env]))
            )
            before_return[env], before_length[env] = returns[step, env], lengths[step, env]
        self._returns, self._lengths = returns[-1] - before_return, lengths[-1] - before_length
        return episodes

    def _non_finite(self, seen, rewards, final) -> str | None:
        """Says where the first NaN or infinity is, or None."""
        found = []
        for path, leaf in [("", seen)] if self._plain else seen.items():
            name = f"observation {path!r}" if path else "observation"
            if not np.issubdtype(leaf.dtype, np.floating):
                continue
            for step, env, *_ in np.argwhere(~np.isfinite(leaf)):
                found.append((step, env, name, leaf[step, env]))
                break
            for step, environments, successors in final:
                rows = successors if self._plain else successors[path]
                for env, successor in zip(environments, rows, strict=True):
                    if not np.isfinite(successor.astype(leaf.dtype)).all():
                        found.append((step + 1, env, name, successor))
        for step, env in np.argwhere(~np.isfinite(rewards))[:1]:
            found.append((step, env, "reward", rewards[step, env]))
        if not found:
            return None
        step, env, field, value = min(found, key=lambda item: item[:2])
        bad = np.ravel(value)[~np.isfinite(np.ravel(value).astype(np.float32))][0]
        step += self._rows_before()
        return f"environment {env} gave a non-finite {field} at its step {step}: {bad}"
