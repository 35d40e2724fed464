"""The loop: collect, update, call back."""

from __future__ import annotations

import collections
import time
from collections.abc import Sequence
from typing import Any

import gymnasium
import keras
import numpy as np

from ppo_tf.collectors import VectorCollector
from ppo_tf.learner import Learner
from ppo_tf.optimizers import count_iterations
from ppo_tf.types import Collector

EPISODE_WINDOW = 100  # the PPO paper scores the last 100 episodes


def fit(
    learner: Learner,
    envs: gymnasium.vector.VectorEnv | Collector,
    *,
    total_steps: int,
    horizon: int = 256,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> dict[str, list[Any]]:
    """Trains until the next iteration would pass `total_steps`.

    Keras callbacks see one iteration (collect and update) as one epoch, `learner.policy` as the
    model, and these logs: `train/*`, the metrics of `Learner.update`; `rollout/steps`, environment
    steps so far; `rollout/episodes`, finished so far; `rollout/episode_return` and
    `rollout/episode_length`, means over the last 100 episodes, None before the first one ends;
    `time/seconds` and `time/steps_per_second`. A callback ends the training by setting
    `model.stop_training`.

    Args:
        learner: what learns.
        envs: environments for a `VectorCollector`, or a collector.
        total_steps: environment steps, over all environments, that are never exceeded.
        horizon: steps per environment and iteration, unless envs is a collector.
        callbacks: of Keras.

    Returns:
        The logs of every iteration: {name: [value per iteration]}.

    Raises:
        ValueError: an argument out of range.
        NonFiniteError: from the collector or the update; the learner keeps its last good weights.
    """
    if isinstance(envs, gymnasium.vector.VectorEnv):
        learner.check_batch(horizon, envs.num_envs)
        collector: Collector = VectorCollector(
            envs, learner.policy, horizon, seed=learner.seed, rollouts=learner.updates
        )
    else:
        collector = envs
    learner.check_batch(collector.horizon, collector.num_envs)
    steps_per_iteration = collector.horizon * collector.num_envs
    iterations = count_iterations(total_steps, collector.horizon, collector.num_envs)
    model = learner.policy
    model.stop_training = False
    history = keras.callbacks.History()
    callback_list = keras.callbacks.CallbackList(
        [history, *callbacks],
        model=model,
        epochs=iterations,
        total_steps=iterations * steps_per_iteration,
    )
    recent: collections.deque = collections.deque(maxlen=EPISODE_WINDOW)
    episodes = 0
    callback_list.on_train_begin()
    try:
        start = time.perf_counter()
        for iteration in range(iterations):
            callback_list.on_epoch_begin(iteration)
            iteration_start = time.perf_counter()
            trajectory, finished = collector.collect()
            metrics = learner.update(trajectory)
            now = time.perf_counter()
            recent.extend(finished)
            episodes += len(finished)
            logs = {
                "rollout/steps": (iteration + 1) * steps_per_iteration,
                "rollout/episodes": episodes,
                "rollout/episode_return": _mean([e.episode_return for e in recent]),
                "rollout/episode_length": _mean([e.length for e in recent]),
                **{f"train/{name}": value for name, value in metrics.items()},
                "time/seconds": now - start,
                "time/steps_per_second": steps_per_iteration / (now - iteration_start),
            }
            callback_list.on_epoch_end(iteration, logs)
            if model.stop_training:
                break
    finally:
        callback_list.on_train_end()
    return history.history


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None
