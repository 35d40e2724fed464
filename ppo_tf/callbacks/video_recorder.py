"""`VideoRecorder`: videos of the policy during training."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import keras

from ppo_tf.evaluating.evaluation import make_act
from ppo_tf.evaluating.video import MAX_STEPS, check_video_path, drawing_envs, record_video
from ppo_tf.support.checks import check_at_least_one
from ppo_tf.support.folders import remove_link
from ppo_tf.support.schema import COUNT, check
from ppo_tf.support.steps import passes_multiple


class VideoRecorder(keras.callbacks.Callback):
    """Records a video of the current policy every `every` environment steps.

    Args:
        folder: folder of the files, named by the environment steps so far: steps-000012288.mp4.
            Existing files are replaced.
        env_id: id of the environment.
        every: environment steps between videos; one is recorded after the first iteration that ends
            at or after each multiple.
        seed, deterministic, max_steps, kwargs: as in `record_video`. All videos start alike.

    Raises:
        ValueError: every is below 1.
        ImportError, RuntimeError, ...: as in `record_video`, when training begins.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        env_id: str,
        every: int,
        *,
        seed: int = 0,
        deterministic: bool = True,
        max_steps: int = MAX_STEPS,
        **kwargs: Any,
    ):
        super().__init__()
        check_at_least_one(every=every)
        self._folder, self._env_id, self._every = Path(folder), env_id, every
        self._deterministic = deterministic
        self._options: dict[str, Any] = {"seed": seed, "max_steps": max_steps, **kwargs}
        self._kwargs = kwargs
        self._recorded = 0  # environment steps at the last video
        self._linked = self._folder.is_symlink()  # by the user; later ones are not followed

    def state(self) -> dict[str, Any]:
        """Returns the steps at the last video."""
        return {"recorded": self._recorded}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restores them, so that the next video comes when it would have come."""
        check(state, {"recorded": COUNT}, "the state of videos")
        self._recorded = state["recorded"]

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Checks that videos can be recorded, before any training."""
        check_video_path(self._folder / "steps.mp4", overwrite=True)
        envs = drawing_envs(self._env_id, self._kwargs)
        # Compiled once for all videos; it reads the current weights when it acts.
        self._act = make_act(self.model, envs, self._deterministic)
        envs.close()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Records if it is time."""
        steps = int((logs or {})["rollout/steps"])
        if passes_multiple(self._every, self._recorded, steps):
            self._recorded = steps
            if not self._linked:
                remove_link(self._folder)
            path = self._folder / f"steps-{steps:09d}.mp4"
            record_video(self._act, self._env_id, path, overwrite=True, **self._options)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Resets the count: the next training counts its steps from 0."""
        self._recorded = 0
