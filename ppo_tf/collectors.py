"""From an environment to trajectories, right in each of Gymnasium's auto-reset modes."""

from __future__ import annotations

import gymnasium
import numpy as np
import tensorflow as tf
from gymnasium.vector import AutoresetMode

from ppo_tf import ops
from ppo_tf.policy import Policy
from ppo_tf.types import Episode, NonFiniteError, Trajectory


class VectorCollector:
    """Steps a Gymnasium vector environment with a policy; episodes run on across rollouts.

    The three auto-reset modes give the same transitions. NEXT_STEP costs one row per episode, in
    which
    the environment ignores the action and resets: it is marked as not valid.

    Args:
        envs: the environments; their metadata say the auto-reset mode.
        policy: what acts.
        horizon: steps per environment and rollout.
        seed: of the actions.
        rollouts: collected before with this seed; the noise of those is not drawn again.
        jit_compile: whether XLA compiles the policy.

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
        jit_compile: bool = True,
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
        self._mode = mode
        self._seed = seed
        self._rollouts = rollouts
        self._first_rollout = rollouts
        self._act = acting_function(policy, envs, jit_compile=jit_compile)
        space = envs.single_observation_space
        # Models compute in float32: storing more would only be copied.
        is_float = np.issubdtype(space.dtype, np.floating)
        self._observation_dtype = np.float32 if is_float else space.dtype
        self._observations: np.ndarray | None = None
        self._resetting = np.zeros(self.num_envs, bool)  # NEXT_STEP: the coming step is a reset
        self._returns = np.zeros(self.num_envs)
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
        observations = np.empty((*shape, *element), self._observation_dtype)
        next_observations = np.empty_like(observations)
        rewards = np.empty(shape, np.float32)
        terminated, truncated, valid = (np.empty(shape, bool) for _ in range(3))
        actions: list[np.ndarray] = []
        episodes: list[Episode] = []
        seeds = ops.derive_words(2 * self.horizon, self._seed, "acting", self._rollouts)

        step = 0
        try:
            for step, seed in enumerate(seeds.reshape(-1, 2)):
                observations[step] = self._observations
                raw, action = self._act(self._observations, seed)
                actions.append(raw)
                valid[step] = ~self._resetting
                self._observations, reward, terminated[step], truncated[step], infos = (
                    self.envs.step(action)
                )
                rewards[step] = reward
                next_observations[step] = self._observations
                done = terminated[step] | truncated[step]
                self._returns += reward
                self._lengths += valid[step]
                if done.any():
                    self._finish(done, infos, next_observations[step], episodes)
                if self._mode is AutoresetMode.NEXT_STEP:
                    self._resetting = done
        except Exception as error:
            # A policy that saw a NaN acts on it: name the cause, not what came of it.
            seen = slice(step + 1)
            problem = self._non_finite(observations[seen], observations[seen][:0], rewards[:step])
            if problem:
                raise NonFiniteError(problem) from error
            raise
        if problem := self._non_finite(observations, next_observations, rewards):
            raise NonFiniteError(problem)
        self._rollouts += 1
        trajectory = Trajectory(
            observations,
            np.stack(actions),
            rewards,
            next_observations,
            terminated,
            truncated,
            valid,
        )
        return trajectory, episodes

    def _finish(self, done, infos, successors, episodes) -> None:
        """Notes the episodes that ended and starts the next ones; mends the successors in place."""
        for env in np.flatnonzero(done):
            episodes.append(Episode(float(self._returns[env]), int(self._lengths[env])))
        self._returns[done] = 0.0
        self._lengths[done] = 0
        if self._mode is AutoresetMode.SAME_STEP:
            for env in np.flatnonzero(infos["_final_obs"]):
                successors[env] = infos["final_obs"][env]
        elif self._mode is AutoresetMode.DISABLED:
            self._observations, _ = self.envs.reset(options={"reset_mask": done})

    def _non_finite(self, observations, next_observations, rewards) -> str | None:
        """Says where the first NaN or infinity is, or None."""
        found = []
        for field, array, shift in (
            ("observation", observations, 0),
            ("observation", next_observations, 1),  # the successor is the next step's observation
            ("reward", rewards, 0),
        ):
            if not np.issubdtype(array.dtype, np.floating):
                continue
            bad = np.argwhere(~np.isfinite(array))
            if len(bad):
                step, env = bad[0][:2]
                found.append((step + shift, env, field, array[tuple(bad[0])]))
        if not found:
            return None
        step, env, field, value = min(found, key=lambda item: item[:2])
        step += (self._rollouts - self._first_rollout) * self.horizon
        return f"environment {env} gave a non-finite {field} at its step {step}: {value}"


def acting_function(policy: Policy, envs: gymnasium.vector.VectorEnv, *, jit_compile: bool = True):
    """Compiles acting for one batch of observations.

    Returns:
        Callable from (observations [B, ...], seed int32 [2]) to NumPy arrays (raw actions [B, ...],
        actions for `envs.step`).
    """
    space = envs.single_observation_space

    def act(observations, seed):
        raw = policy.sample(observations, seed)
        return raw, policy.action_map(raw)

    # The concrete function skips tf.function's work on every call's arguments.
    compiled = tf.function(act, jit_compile=jit_compile, autograph=False).get_concrete_function(
        tf.TensorSpec((envs.num_envs, *(space.shape or ())), space.dtype),
        tf.TensorSpec((2,), tf.int32),
    )

    def call(observations, seed):
        raw, action = compiled(tf.constant(observations), tf.constant(seed))
        return raw.numpy(), action.numpy()

    return call
