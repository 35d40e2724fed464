"""EnvPool behind Gymnasium's vector interface: the same spaces, seeds and reset rules."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from ppo_tf.spaces import is_composite
from ppo_tf.support.extras import needs


class EnvPoolEnvs(gymnasium.vector.VectorEnv):
    """A pool of EnvPool's C++ environments (auto-reset mode NEXT_STEP).

    EnvPool declares some spaces with other bounds and dtypes than Gymnasium does; this class
    declares Gymnasium's, and casts observations and actions.

    Args:
        env_id: id of the environment, the same in EnvPool and Gymnasium.
        num_envs: number of environments side by side.
        seeds: one per environment.

    Raises:
        ImportError: EnvPool is not installed.
        ValueError: EnvPool does not have the environment, or not its Dict or Tuple spaces.
    """

    def __init__(self, env_id: str, num_envs: int, seeds: Sequence[int]):
        try:
            import envpool
        except ImportError as error:
            raise ImportError(needs("backend='envpool'", "envpool")) from error
        if env_id not in envpool.list_all_envs():
            raise ValueError(f"EnvPool does not have the environment. Received: env={env_id!r}")
        reference = gymnasium.make(env_id)
        reference.close()
        if not has_plain_spaces(reference):
            raise ValueError(
                f"EnvPool does not keep Gymnasium's Dict and Tuple spaces. Received: env={env_id!r}"
            )
        self._env_id = env_id
        self._pool = self._make_pool(num_envs, seeds)
        self.single_observation_space = reference.observation_space
        self.single_action_space = reference.action_space
        self.num_envs = num_envs
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
        self._action_dtype = self._pool.single_action_space.dtype
        self._observation_dtype = self.single_observation_space.dtype

    def _make_pool(self, num_envs: int, seeds: Sequence[int]) -> Any:
        import envpool

        with warnings.catch_warnings():  # about bounds of EnvPool's spaces, which are not used
            warnings.simplefilter("ignore")
            pool = envpool.make(
                self._env_id, env_type="gymnasium", num_envs=num_envs, env_seed=list(seeds)
            )
            pool.reset()
        return pool

    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts new episodes in all environments; new seeds (one each) make a new pool."""
        if seed is not None:
            self._pool.close()
            seeds = range(seed, seed + self.num_envs) if isinstance(seed, int) else seed
            self._pool = self._make_pool(self.num_envs, seeds)
        observations, info = self._pool.reset()
        return observations.astype(self._observation_dtype, copy=False), info

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Steps all environments as in Gymnasium, in auto-reset mode NEXT_STEP."""
        observations, *rest = self._pool.step(actions.astype(self._action_dtype, copy=False))
        return observations.astype(self._observation_dtype, copy=False), *rest

    def close_extras(self, **kwargs: Any) -> None:
        """Stops EnvPool's threads."""
        self._pool.close()


def has_plain_spaces(env: gymnasium.Env) -> bool:
    """Whether neither space of an environment is a Dict or Tuple."""
    return not (is_composite(env.observation_space) or is_composite(env.action_space))
