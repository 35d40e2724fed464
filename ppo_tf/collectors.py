"""From an environment to trajectories, right in each of Gymnasium's auto-reset modes."""

from __future__ import annotations

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode

from ppo_tf.acting import Engine, make_acting
from ppo_tf.policy import Policy
from ppo_tf.types import Episode, NonFiniteError, Trajectory


class VectorCollector:
    """Steps a Gymnasium vector environment with a policy; episodes run on across rollouts.

    The three auto-reset modes give the same transitions. NEXT_STEP costs one row per episode, in
    which the environment ignores the action and resets: it is marked as not valid.

    Args:
        envs: the environments; their metadata say the auto-reset mode.
        policy: what acts.
        horizon: steps per environment and rollout.
        seed: of the actions.
        rollouts: collected before with this seed; the noise of those is not drawn again.
        acting: which engine computes the actions, see `acting.make_acting`.

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
        rollouts: int = 0,
        acting: Engine = "auto",
    ):
        if horizon < 1:
            raise ValueError(f"horizon must be at least 1. Received: horizon={horizon}")
        mode = envs.metadata.get("autoreset_mode")
        if not isinstance(mode, AutoresetMode):
            raise ValueError(
                "The environment's metadata must say its gymnasium.vector.AutoresetMode. "
                f"Received: autoreset_mode={mode!r} from {envs}"
            )
        self.envs = envs
        self.num_envs = envs.num_envs
        self.horizon = horizon
        self.acting = make_acting(policy, envs, acting)
        self._mode = mode
        self._seed = seed
        self._rollouts = self._first_rollout = rollouts
        space = envs.single_observation_space
        # Models compute in float32: storing more would only be copied.
        is_float = np.issubdtype(space.dtype, np.floating)
        self._observation_dtype = np.float32 if is_float else space.dtype
        self._observations: np.ndarray | None = None
        self._resetting = np.zeros(self.num_envs, bool)  # NEXT_STEP: the coming step is a reset
        self._returns = np.zeros(self.num_envs)  # of the episodes under way
        self._lengths = np.zeros(self.num_envs, np.int64)

    def collect(self) -> tuple[Trajectory, list[Episode]]:
        """Returns the next `horizon` steps and the episodes that finished in them.

        Raises:
            NonFiniteError: a NaN or infinite reward or observation; names the first one by its
                environment and step, counted in rows since the first rollout. An observation
                belongs to the step that acts on it, a reward to the one that earned it.
        """
        with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and reported so
            return self._collect()

    def _collect(self) -> tuple[Trajectory, list[Episode]]:
        if self._observations is None:
            self._observations, _ = self.envs.reset()
        shape = (self.horizon, self.num_envs)
        element = self._observations.shape[1:]
        # Row t + 1 is what the agent sees next: after an auto-reset, the new episode's observation.
        seen = np.empty((self.horizon + 1, self.num_envs, *element), self._observation_dtype)
        rewards = np.empty(shape)
        terminated, truncated = np.empty(shape, bool), np.empty(shape, bool)
        actions: list[np.ndarray] = []
        final: list[tuple[int, np.ndarray, np.ndarray]] = []  # step, environments, observations
        self.acting.begin(self.horizon, self._seed, self._rollouts)
        act, step_envs, observations = self.acting, self.envs.step, self._observations
        resets = self._mode is not AutoresetMode.NEXT_STEP

        step = 0
        try:
            for step in range(self.horizon):
                seen[step] = observations
                raw, action = act(observations, step)
                actions.append(raw)
                observations, rewards[step], terminated[step], truncated[step], infos = step_envs(
                    action
                )
                if resets and (done := terminated[step] | truncated[step]).any():
                    observations = self._reset(step, done, observations, infos, final)
        except Exception as error:
            # A policy that saw a NaN acts on it: name the cause, not what came of it.
            if problem := self._non_finite(seen[: step + 1], rewards[:step], final):
                raise NonFiniteError(problem) from error
            raise
        seen[-1] = self._observations = observations
        rewards32 = rewards.astype(np.float32)
        if problem := self._non_finite(seen, rewards32, final):
            raise NonFiniteError(problem)
        next_observations = seen[1:].copy()
        for step, environments, successors in final:
            next_observations[step, environments] = successors
        valid = np.ones(shape, bool)
        if not resets:
            done = terminated | truncated
            valid[0], valid[1:], self._resetting = ~self._resetting, ~done[:-1], done[-1].copy()
        episodes = self._finished(rewards, terminated | truncated, valid)
        self._rollouts += 1
        trajectory = Trajectory(
            seen[:-1], np.stack(actions), rewards32, next_observations, terminated, truncated, valid
        )
        return trajectory, episodes

    def _reset(self, step, done, observations, infos, final):
        """Keeps the final observations and returns what the agent sees next."""
        if self._mode is AutoresetMode.SAME_STEP:
            environments = np.flatnonzero(infos["_final_obs"])
            successors = np.stack([infos["final_obs"][env] for env in environments])
        else:
            environments = np.flatnonzero(done)
            successors = observations[environments]
            observations, _ = self.envs.reset(options={"reset_mask": done})
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
        if np.issubdtype(seen.dtype, np.floating):
            for step, env, *_ in np.argwhere(~np.isfinite(seen)):
                found.append((step, env, "observation", seen[step, env]))
                break
            for step, environments, successors in final:
                for env, successor in zip(environments, successors, strict=True):
                    if not np.isfinite(successor.astype(seen.dtype)).all():
                        found.append((step + 1, env, "observation", successor))
        for step, env in np.argwhere(~np.isfinite(rewards))[:1]:
            found.append((step, env, "reward", rewards[step, env]))
        if not found:
            return None
        step, env, field, value = min(found, key=lambda item: item[:2])
        bad = np.ravel(value)[~np.isfinite(np.ravel(value).astype(np.float32))][0]
        step += (self._rollouts - self._first_rollout) * self.horizon
        return f"environment {env} gave a non-finite {field} at its step {step}: {bad}"
