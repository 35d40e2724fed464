"""`PeriodicEvaluation`: evaluates the policy during training and keeps the best one on disk."""

from __future__ import annotations

import gc
import os
from typing import Any

import gymnasium
import keras
import numpy as np

from ppo_tf.artefacts.saved_model import export_policy
from ppo_tf.environments.stepping import close
from ppo_tf.evaluating.evaluation import MAX_STEPS, Act, make_act, make_evaluation_envs, play
from ppo_tf.support.checks import check_at_least_one
from ppo_tf.support.schema import COUNT, NUMBER, check, optional
from ppo_tf.support.steps import passes_multiple

LOGS = ("mean_return", "std_return", "mean_length")  # from `Evaluation.summary`, logged as eval/*


class PeriodicEvaluation(keras.callbacks.Callback):
    """Evaluates the policy during training and exports the best one so far.

    In each iteration that reaches a multiple of `every`, the logs get `eval/mean_return`,
    `eval/std_return` and `eval/mean_length` from `evaluate`, on the same episodes each time; in all
    other iterations they are NaN. Only callbacks later in the list see them. The environments are
    made and the policy compiled once. The training's own random numbers are not touched: all other
    metrics are the same with and without this callback.

    When resumed from a checkpoint, it continues with the best score up to then. A policy exported
    between that checkpoint and the interruption is exported again when training reaches it again.

    Args:
        env_id: id of the environment.
        every: environment steps between evaluations.
        episodes: number of episodes per evaluation.
        max_steps: number of steps after which an episode is cut off.
        seed: seed of the episodes and of sampled actions.
        deterministic: whether the policy takes its mode instead of sampling.
        num_envs: maximum number of environments run in parallel.
        best_path: folder for the policy with the highest mean return so far, the earlier one if
            equal; replaced by each better one. With None nothing is written.
        metadata: JSON values to keep with it; "env", "steps", "episodes" and the logs are added.
        critic: critic to export with it.
        kwargs: further arguments of the environment.

    Attributes:
        best: highest mean return so far; None before the first evaluation.

    Raises:
        ValueError: an argument is out of range. During `fit`, whatever `evaluate` and
            `export_policy` raise.
    """

    def __init__(
        self,
        env_id: str,
        every: int,
        *,
        episodes: int = 10,
        max_steps: int = MAX_STEPS,
        seed: int = 0,
        deterministic: bool = True,
        num_envs: int = 32,
        best_path: str | os.PathLike[str] | None = None,
        metadata: dict[str, Any] | None = None,
        critic: keras.Model | None = None,
        **kwargs: Any,
    ):
        super().__init__()
        counts = {"every": every, "episodes": episodes, "max_steps": max_steps}
        check_at_least_one(**counts, num_envs=num_envs)
        self.best: float | None = None
        self._env_id, self._kwargs = env_id, kwargs
        self._every, self._episodes, self._seed = every, episodes, seed
        self._deterministic, self._max_steps = deterministic, max_steps
        self._num_envs = min(num_envs, episodes)
        self._best_path, self._critic = best_path, critic
        self._metadata = {**(metadata or {}), "env": env_id, "episodes": episodes}
        self._evaluated = 0  # environment steps at the last evaluation
        self._envs: gymnasium.vector.VectorEnv | None = None
        self._act: Act | None = None

    def state(self) -> dict[str, Any]:
        """Returns the best score, and the steps at the last evaluation."""
        return {"best": self.best, "evaluated": self._evaluated}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restores them."""
        check(state, {"best": optional(NUMBER), "evaluated": COUNT}, "the state of evaluations")
        self.best, self._evaluated = state["best"], state["evaluated"]

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Makes the environments."""
        self._envs = make_evaluation_envs(self._env_id, self._num_envs, **self._kwargs)
        self._act = make_act(self.model, self._envs, self._deterministic)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        """Evaluates if it is time, and adds to the logs."""
        steps = int(logs["rollout/steps"])
        summary: dict[str, Any] = dict.fromkeys(LOGS, np.nan)
        if passes_multiple(self._every, self._evaluated, steps):
            assert self._envs is not None and self._act is not None
            result = play(self._envs, self._act, self._episodes, self._seed, self._max_steps)
            summary = result.summary()
            self._evaluated = steps
            if self.best is None or summary["mean_return"] > self.best:
                self.best = summary["mean_return"]
                self._export(steps, summary)
        logs.update({f"eval/{name}": summary[name] for name in LOGS})

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Closes the environments."""
        self._evaluated = 0  # the next training counts its steps from 0
        if self._envs is not None:
            close(self._envs)
            self._envs = self._act = None

    def _export(self, steps: int, summary: dict[str, Any]) -> None:
        if self._best_path is not None:
            export_policy(
                self.model,
                self._best_path,
                critic=self._critic,
                metadata={**self._metadata, "steps": steps, **{n: summary[n] for n in LOGS}},
                replace=True,
            )
            # An export leaves reference cycles of over a MB, which Python is slow to collect: it
            # had not done so after 50 exports.
            gc.collect()
