"""Atari games in the Arcade Learning Environment's own vector class, with its preprocessing.

The agent sees what it does in Machado et al. 2018 (arXiv 1709.06009) and Mnih et al. 2015: every
action is held for 4 frames; the brighter pixels of the last two become a grey image of 84 x 84; the
last 4 images are stacked. A game starts with 1 to 30 frames without action, and with the fire
button if the game has one. This equals Gymnasium's AtariPreprocessing and FrameStackObservation
pixel by pixel.

The id sets how sticky actions are: "ALE/Breakout-v5" repeats the previous action with probability
0.25 (Machado et al.), "BreakoutNoFrameskip-v4" never does, as in the DQN and PPO papers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

MODES = (AutoresetMode.SAME_STEP, AutoresetMode.DISABLED)

_SCREEN = {"img_height": 210, "img_width": 160, "grayscale": False, "stack_num": 1}  # the console's
_RENDER_SCALE = 2  # pixels of a rendered image per pixel of the screen, each way


def is_atari(spec: EnvSpec) -> bool:
    """Whether `AtariEnvs` makes the environment: ids ALE/Game-v5 and GameNoFrameskip-v4.

    The ALE's other ids skip a random number of frames; they are made as Gymnasium makes them.
    """
    from_ale = str(spec.entry_point).startswith("ale_py.")
    return from_ale and isinstance(spec.kwargs.get("frameskip"), int)


class AtariEnvs(gymnasium.vector.VectorEnv):
    """Games side by side, stepped by threads. Observations: uint8 [B, 4, 84, 84], 0 to 255.

    Args:
        spec: spec of the game, see `is_atari`.
        num_envs: number of games side by side.
        training: whether a lost life counts as termination, though the game continues (Mnih et al.
            2015), and each reward is clipped to -1, 0 or 1, so that all games have the same scale.
            Otherwise episodes are whole games with the game's own rewards, as in reported scores.
        autoreset_mode: SAME_STEP or DISABLED.
        render_mode: None, or "rgb_array", with which `render` returns the screen in colour. It
            comes from the same games played a second time, with the same seeds and actions.
        kwargs: arguments of ale_py.vector_env.AtariVectorEnv, which override the id's and those
            above; for instance repeat_action_probability, noop_max, full_action_space.

    Raises:
        ValueError: the auto-reset or render mode is not supported.
    """

    def __init__(
        self,
        spec: EnvSpec,
        num_envs: int,
        *,
        training: bool = False,
        autoreset_mode: AutoresetMode = AutoresetMode.SAME_STEP,
        render_mode: str | None = None,
        **kwargs: Any,
    ):
        from ale_py.vector_env import AtariVectorEnv

        if autoreset_mode not in MODES:
            raise ValueError(
                f"autoreset_mode of an Atari game must be one of {[str(mode) for mode in MODES]}. "
                f"Received: autoreset_mode={autoreset_mode}"
            )
        if render_mode not in (None, "rgb_array"):
            raise ValueError(
                f"render_mode must be None or 'rgb_array'. Received: render_mode={render_mode!r}"
            )
        settings = {"reward_clipping": training, **spec.kwargs, "frameskip": 4, **kwargs}
        # The class's mode NEXT_STEP leaves a finished game alone until the next step, so it can be
        # reset here. In its SAME_STEP, the final observation of a life is not the one seen last.
        settings |= {"num_envs": num_envs, "autoreset_mode": AutoresetMode.NEXT_STEP}
        self._games = AtariVectorEnv(**settings)
        self._shown = None if render_mode is None else AtariVectorEnv(**settings | _SCREEN)
        self.spec = spec
        self.num_envs = num_envs
        self.single_observation_space = self._games.single_observation_space
        self.single_action_space = self._games.single_action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.render_mode = render_mode
        self.metadata = {
            "autoreset_mode": autoreset_mode,
            "render_modes": ["rgb_array"],
            "render_fps": 15,  # 60 frames per second, of which the agent sees every fourth
        }
        self._training = training
        self._resets = autoreset_mode is AutoresetMode.SAME_STEP
        self._over = np.ones(num_envs, bool)  # the game is over, not just a life
        self._lives = np.zeros(num_envs, np.int32)
        self._screens: np.ndarray = np.zeros((num_envs, 4, 84, 84), np.uint8)
        self._pictures: np.ndarray = np.zeros((num_envs, 1, 210, 160, 3), np.uint8)
        self._info: dict[str, Any] = {}

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts new episodes; with a mask, a game that only lost a life continues unless seeded.

        Args:
            seed: seed for all games, or one per game (None: the game keeps its random stream).
            options: {"reset_mask": bool [B]} resets only these games.
        """
        mask = (options or {}).get("reset_mask")
        chosen = np.ones(self.num_envs, bool) if mask is None else mask
        seeds = range(seed, seed + self.num_envs) if isinstance(seed, int) else seed
        words = np.full(self.num_envs, -1) if seeds is None else _words(seeds)
        if mask is not None:  # a full reset always starts new games
            chosen = chosen & (self._over | (words >= 0))
        if chosen.any():
            request: dict[str, Any] = {"seed": words[chosen], "options": {"reset_mask": chosen}}
            observations, info = self._games.reset(**request)
            if self._shown is not None:
                self._pictures, _ = self._shown.reset(**request)
            self._screens, self._lives, self._info = observations, info["lives"].copy(), info
            self._over[chosen] = False
        return self._screens, self._info

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Steps all games as in Gymnasium; info has "lives" and the frames played, int [B] each."""
        actions = np.asarray(actions)
        if actions.dtype.kind == "i":
            actions = actions.astype(np.int32, copy=False)
        observations, rewards, terminated, truncated, info = self._games.step(actions)
        if self._shown is not None:
            self._pictures = self._shown.step(actions)[0]
        self._over = terminated | truncated
        if self._training:
            terminated = terminated | ((info["lives"] < self._lives) & ~truncated)
        done = terminated | truncated
        self._screens, self._lives, self._info = observations, info["lives"].copy(), info
        if self._resets and done.any():
            info = {**info, "final_obs": observations, "_final_obs": done}
            observations, _ = self.reset(options={"reset_mask": done})
        return observations, rewards.astype(np.float64), terminated, truncated, info

    def render(self) -> tuple[np.ndarray, ...] | None:
        """Returns images, uint8 [420, 320, 3], one per game; None without render_mode."""
        if self._shown is None:
            return None
        large = self._pictures[:, -1].repeat(_RENDER_SCALE, axis=1).repeat(_RENDER_SCALE, axis=2)
        return tuple(large)


def _words(seeds: Sequence[int | None]) -> np.ndarray:
    return np.array([-1 if seed is None else seed for seed in seeds])
