"""The training loop: collect, update, call back; and resume from a checkpoint."""

from __future__ import annotations

import collections
import contextlib
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import keras
import numpy as np
import tensorflow as tf

from ppo_tf.collecting.collector import VectorCollector
from ppo_tf.collecting.parallel import ParallelCollector
from ppo_tf.collecting.workers.envs import WorkerEnvs
from ppo_tf.learning import diagnostics
from ppo_tf.learning.learner import Learner
from ppo_tf.learning.schedules import count_iterations
from ppo_tf.support.schema import ANY, COUNT, NUMBER, OBJECT, TEXT, Named, Rule, check
from ppo_tf.training.boundaries import Reason
from ppo_tf.training.checkpoints import (
    Checkpoints,
    check_arrays,
    learner_variables,
    restore_learner,
)
from ppo_tf.types import Collector, Episode, NonFiniteError, Resumable

EPISODE_WINDOW = 100  # the PPO paper scores the last 100 episodes

Logs = dict[str, Any]


def fit(
    learner: Learner,
    envs: gymnasium.vector.VectorEnv | Collector,
    *,
    total_steps: int,
    horizon: int | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    checkpoints: Checkpoints | None = None,
) -> dict[str, list[Any]]:
    """Trains until the next iteration would exceed `total_steps`.

    Keras callbacks see one iteration (collect and update) as one epoch of one batch,
    `learner.policy` as the model, and the learner's `loss` as the batch's. The logs are: `train/*`,
    the metrics of `Learner.update`; `rollout/steps`, environment steps so far; `rollout/episodes`,
    episodes finished so far; `rollout/episode_return` and `rollout/episode_length`, means over the
    last 100 episodes; `rollout/saturated_actions` and `rollout/dead_actions`, where the spaces have
    them, see `diagnostics.rollout`; the collector's own, see `CrewCollector`; `time/seconds` and
    `time/steps_per_second`. A log without a value, such as the mean return before the first episode
    ends, is NaN. A callback stops training by setting `model.stop_training`.

    All Keras callbacks work. During training `model.optimizer` is the learner's; a callback that
    sets its learning rate, such as ReduceLROnPlateau, needs an optimizer without a schedule. A
    callback that monitors a log needs `mode`, and has no best value until the log has one.
    BackupAndRestore saves the policy alone: to resume a run, use checkpoints.

    With checkpoints, the run resumes from the newest one in their folder, if any. At each
    checkpoint new episodes start in all environments, with seeds derived from the run's seed and
    the iteration, so that a resumed run is bit for bit the same as an uninterrupted one. Callbacks
    with the methods of `types.Resumable` resume too; those of Keras start over.

    Args:
        learner: learner to train.
        envs: environments, for a `VectorCollector` or, if they live with workers, a
            `ParallelCollector`; or a collector.
        total_steps: upper bound of the environment steps, over all environments.
        horizon: steps per environment and iteration, by default 256; a collector has its own.
        callbacks: Keras callbacks.
        checkpoints: where and how often to save; needs a collector with `begin_episodes`.

    Returns:
        The logs of every iteration of this call, with what callbacks added to them: {name: [value
        per iteration]}.

    Raises:
        ValueError: an argument is out of range, horizon is given although envs is a collector, or
            there are checkpoints, but none can be used.
        NonFiniteError: the collector or the update met a NaN or an infinity; the learner keeps its
            last good weights. An update raises it only if no callback, such as Keras'
            TerminateOnNaN, stops training. Or a callback made a variable so: no checkpoint is
            written.
        OSError: a checkpoint can't be written.
    """
    if isinstance(envs, gymnasium.vector.VectorEnv):
        horizon = 256 if horizon is None else horizon
        learner.check_batch(horizon, envs.num_envs)
        make: Any = ParallelCollector if isinstance(envs, WorkerEnvs) else VectorCollector
        collector: Collector = make(
            envs,
            learner.policy,
            horizon,
            seed=learner.seed,
            iterations=learner.iterations,
            log_probs=learner.objective.weighs_steps,
        )
        learner.begin_episodes(envs.num_envs)  # the collector starts new ones as well
    elif horizon is not None:
        raise ValueError(f"horizon is the collector's own. Received: horizon={horizon}")
    else:
        collector = envs
    learner.check_batch(collector.horizon, collector.num_envs)
    steps_per_iteration = collector.horizon * collector.num_envs
    iterations = count_iterations(total_steps, collector.horizon, collector.num_envs)
    state = _RunState()
    if checkpoints is not None:
        if not hasattr(collector, "begin_episodes"):
            raise ValueError(
                "checkpoints needs a collector with the method begin_episodes. "
                f"Received: envs={collector}"
            )
        state = _restore(checkpoints, learner, collector, callbacks)
        checkpoints.boundaries.begin(
            collector.num_envs,
            total_steps,
            state.iterations * steps_per_iteration,
            state.episodes,
        )
        if state.iterations > iterations:
            raise ValueError(
                f"The newest checkpoint in {checkpoints.folder} was saved after "
                f"{state.iterations * steps_per_iteration} steps. "
                f"Received: total_steps={total_steps}"
            )
    rate = float(tf.convert_to_tensor(learner.optimizer.learning_rate))
    if rate == 0.0 and state.iterations < iterations:
        warnings.warn(
            "The learning rate is 0, so nothing will be learned: its schedule has ended. "
            "Give the learner an optimizer with a longer schedule or a constant rate.",
            stacklevel=2,
        )
    model = learner.policy
    model.stop_training = False
    history = keras.callbacks.History()
    callback_list = _Callbacks(
        [*callbacks, history],  # history last: it sees what the others add to the logs
        model=model,
        epochs=iterations,
        steps=1,
        verbose=1,
        total_steps=iterations * steps_per_iteration,
    )
    with callback_list.training(learner.optimizer):
        start = time.perf_counter() - state.seconds
        saved = state.iterations
        while state.iterations < iterations and not model.stop_training:
            logs = _iterate(learner, collector, state, start, callback_list)
            if logs is None:
                break
            callback_list.on_epoch_end(state.iterations - 1, logs)
            _forget_nan(callbacks)
            if checkpoints is not None:
                checkpoints.watch(logs)
                steps = state.iterations * steps_per_iteration
                if reason := checkpoints.boundaries.due(steps, steps - steps_per_iteration):
                    _save(checkpoints, steps, reason, learner, collector, callbacks, state)
                    saved = state.iterations
        if checkpoints is not None and saved < state.iterations:
            steps = state.iterations * steps_per_iteration
            _save(checkpoints, steps, "end", learner, collector, callbacks, state)
        # As Keras' own fit does: an optimizer with use_ema leaves the averages of the weights. The
        # checkpoint has the weights themselves, so that a longer run goes on from those.
        learner.optimizer.finalize_variable_values(learner.trained)
    return history.history


class _Callbacks(keras.callbacks.CallbackList):
    """Keras' list without its conversion of the logs to numbers, which ours already are.

    The conversion copies the logs, so that `fit` would not see what callbacks add; it is slow; and
    its bare `except` swallows Ctrl-C.
    """

    @contextlib.contextmanager
    def training(self, optimizer: keras.optimizers.Optimizer) -> Iterator[None]:
        """Calls on_train_begin, and at the end on_train_end of all callbacks that began."""
        begun = []
        self._model.optimizer = optimizer  # where Keras' own fit keeps it
        try:
            for callback in self.callbacks:
                callback.on_train_begin(None)
                begun.append(callback)
            yield
        finally:
            for callback in begun:
                callback.on_train_end(None)
            del self._model.optimizer

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Passes the same logs to each callback in turn."""
        for callback in self.callbacks:
            callback.on_epoch_end(epoch, logs)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Passes the same logs to each callback in turn."""
        for callback in self.callbacks:
            callback.on_train_batch_end(batch, logs=logs)


_EPISODE = Rule(
    "an episode, [return, length]",
    lambda v: isinstance(v, list) and len(v) == 2 and NUMBER.allows(v[0]) and COUNT.allows(v[1]),
)
_SCHEMA = {"iterations": COUNT, "episodes": COUNT, "seconds": NUMBER, "recent": [_EPISODE]}


@dataclass
class _RunState:
    """The progress of a run, apart from the learner's variables."""

    iterations: int = 0  # completed so far
    episodes: int = 0  # finished so far
    seconds: float = 0.0  # time spent training so far
    recent: collections.deque[Episode] = field(
        default_factory=lambda: collections.deque(maxlen=EPISODE_WINDOW)
    )

    def values(self) -> dict[str, Any]:
        """Returns the state as JSON values."""
        return {**vars(self), "recent": list(self.recent)}

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> _RunState:
        """The inverse of `values`.

        Raises:
            ValueError: they are not values that it returned.
        """
        check(values, _SCHEMA, "its state.run")
        state = cls(**{name: values[name] for name in _SCHEMA})
        state.recent = cls().recent
        state.recent.extend(Episode(*episode) for episode in values["recent"])
        return state


def _iterate(
    learner: Learner,
    collector: Collector,
    state: _RunState,
    start: float,
    callback_list: _Callbacks,
) -> Logs | None:
    """Runs one iteration; returns its logs, or None if the update failed and a callback stopped
    training."""
    callback_list.on_epoch_begin(state.iterations)
    callback_list.on_train_batch_begin(0)
    iteration_start = time.perf_counter()
    trajectory, finished = collector.collect()
    try:
        metrics = learner.update(trajectory)
    except NonFiniteError:
        callback_list.on_train_batch_end(0, {"loss": np.nan})
        if learner.policy.stop_training:
            return None
        raise
    now = time.perf_counter()
    # Not every update rule has one loss.
    callback_list.on_train_batch_end(0, {"loss": metrics["loss"]} if "loss" in metrics else {})
    state.seconds = now - start
    state.iterations += 1
    state.episodes += len(finished)
    state.recent.extend(finished)
    steps = collector.horizon * collector.num_envs
    return {
        "rollout/steps": state.iterations * steps,
        "rollout/episodes": state.episodes,
        "rollout/episode_return": _mean([e.episode_return for e in state.recent]),
        "rollout/episode_length": _mean([e.length for e in state.recent]),
        **getattr(collector, "logs", {}),
        **diagnostics.rollout(trajectory, learner.policy.action_map),
        **{f"train/{name}": np.nan if m is None else m for name, m in metrics.items()},
        "time/seconds": state.seconds,
        "time/steps_per_second": steps / (now - iteration_start),
    }


def _save(
    checkpoints: Checkpoints,
    steps: int,
    reason: Reason,
    learner: Learner,
    collector: Any,  # a Collector with begin_episodes
    callbacks: Sequence[keras.callbacks.Callback],
    state: _RunState,
) -> None:
    """Starts new episodes, then saves everything that the next iteration depends on."""
    checkpoints.boundaries.passed(steps, reason, state.episodes)
    collector.begin_episodes(learner.iterations)
    learner.begin_episodes(collector.num_envs)
    values: dict[str, Any] = {"run": state.values(), "seed": learner.seed, "callbacks": {}}
    for name, callback in _resumable(callbacks):
        values["callbacks"][name] = callback.state()
    checkpoints.save(steps, learner_variables(learner), values)


def _restore(
    checkpoints: Checkpoints,
    learner: Learner,
    collector: Any,  # a Collector with begin_episodes
    callbacks: Sequence[keras.callbacks.Callback],
) -> _RunState:
    """Restores the newest usable checkpoint and returns its run state; without one, the initial
    state."""

    def load(variables: dict[str, np.ndarray], values: dict[str, Any]) -> _RunState:
        check(values, {"run": OBJECT, "callbacks": Named(TEXT, OBJECT), "seed": ANY}, "its state")
        state = _RunState.from_values(values["run"])
        steps = state.iterations * collector.horizon * collector.num_envs
        if (values["seed"], values["steps"]) != (learner.seed, steps):
            raise ValueError(
                f"it is of seed {values['seed']} after {values['steps']} steps; here its "
                f"{state.iterations} iterations are {steps} steps, of seed {learner.seed}"
            )
        learner.begin_episodes(collector.num_envs)  # creates the per-environment variables
        check_arrays(learner, variables, least=state.iterations)
        for name, callback in _resumable(callbacks):
            if name in values["callbacks"]:
                callback.load_state(values["callbacks"][name])
        restore_learner(learner, variables)
        return state

    start = learner_variables(learner)
    checkpoints.begin(start)
    state = checkpoints.restore(load, sum(array.nbytes for array in start.values()))
    if state is None:
        return _RunState()
    collector.begin_episodes(learner.iterations)
    return state


def _resumable(
    callbacks: Sequence[keras.callbacks.Callback],
) -> list[tuple[str, Resumable]]:
    """The callbacks that can resume, with names that stay the same in the next process."""
    counts: collections.Counter[str] = collections.Counter()
    found = []
    for callback in callbacks:
        if hasattr(callback, "load_state"):
            name = type(callback).__name__
            counts[name] += 1
            found.append((f"{name}/{counts[name]}", callback))
    return found


def _forget_nan(callbacks: Sequence[keras.callbacks.Callback]) -> None:
    """Resets a callback's best value if it is NaN.

    Keras' EarlyStopping and similar callbacks take the first value as the best so far; if that is
    NaN, because the log had no value, nothing is ever better.
    """
    for callback in callbacks:
        best = getattr(callback, "best", None)
        if isinstance(best, float) and np.isnan(best):
            callback.best = None


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else np.nan
