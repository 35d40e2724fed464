"""Keras callbacks that send the logs of `fit` to Weights & Biases and MLflow.

The step is the number of environment steps. Both can resume from a checkpoint; see
`types.Resumable`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import keras

from ppo_tf.callbacks.logs import Logs, is_missing
from ppo_tf.support.extras import needs
from ppo_tf.support.schema import check, matching, optional

_ID = optional(matching("an id of letters, digits, - and _", r"[\w-]{1,128}"))


class WandbLogger(keras.callbacks.Callback):
    """Logs to a run of Weights & Biases, with environment steps as its step.

    When resumed from a checkpoint, it continues the run of the same id. Online, steps that the
    server already has are not logged again. Offline (`WANDB_MODE=offline`) there is no knowing what
    the previous process wrote after the checkpoint: a second folder with the same id is written,
    `wandb sync` uploads both into one run, and steps after the checkpoint may be in both.

    Args:
        project: name of the project.
        name: name of the run; by default W&B chooses one.
        config: the run's settings by name.
        directory: folder in which the folder `wandb` is created; by default the working directory.
        options: further arguments of `wandb.init`, such as entity, group, tags or mode.

    Raises:
        ImportError: wandb is not installed.
        ValueError: W&B refuses the project's name.
    """

    def __init__(
        self,
        project: str,
        name: str | None = None,
        config: dict[str, Any] | None = None,
        directory: str | os.PathLike[str] | None = None,
        **options: Any,
    ):
        super().__init__()
        try:
            import wandb
        except ImportError:
            raise ImportError(needs("WandbLogger", "wandb")) from None
        try:
            wandb.Settings(project=project)
        except wandb.Error as error:
            raise ValueError(f"{error}. Received: project={project!r}") from error
        self._wandb = wandb
        self._directory = directory
        self._options: dict[str, Any] = {"project": project, "name": name, "config": config}
        self._options |= options
        self._id: str | None = None
        self._session = Session()

    def state(self) -> dict[str, Any]:
        """Returns the id of the run."""
        return {"id": self._id}

    def load_state(self, state: dict[str, Any]) -> None:
        """Sets the run to resume."""
        check(state, {"id": _ID}, "the state of a tracker")
        self._id = state["id"]

    def on_train_begin(self, logs: Logs = None) -> None:
        """Starts or resumes the run.

        Raises:
            ConnectionError: W&B can't, for instance because nobody is logged in.
        """
        self._session.begin()
        if self._directory is not None:
            os.makedirs(self._directory, exist_ok=True)
        resume = {} if self._id is None else {"id": self._id, "resume": "allow"}
        try:
            self._run = self._wandb.init(
                **{**self._options, **resume},
                dir=self._directory,
                reinit="create_new",
                settings=self._wandb.Settings(silent=True, console="off"),
            )
        except self._wandb.Error as error:
            raise ConnectionError(f"Weights & Biases: {error}") from error
        self._id = self._run.id
        self._first = self._run.starting_step  # of a resumed run: after its last step

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Logs the iteration."""
        steps, values = steps_and_values(logs)
        if steps >= self._first:
            self._run.log(values, step=steps)

    def on_train_end(self, logs: Logs = None) -> None:
        """Finishes the run, as failed if an exception ended the training."""
        self._run.finish(exit_code=int(self._session.failed()))
        self._id = None


class MLflowLogger(keras.callbacks.Callback):
    """Logs to an MLflow run, with environment steps as its step.

    When resumed from a checkpoint, it continues the same run. Steps already in it are not logged
    again: the resumed training repeats them bit for bit.

    Args:
        experiment: name of the experiment, created if needed.
        name: name of the run; by default MLflow chooses one.
        config: the run's settings by name, logged as its parameters; nested dicts are flattened.
        tracking_uri: a server or a database, such as "sqlite:///mlflow.db"; by default MLflow's.

    Raises:
        ImportError: MLflow is not installed.
        ValueError: MLflow refuses the experiment's name.
    """

    def __init__(
        self,
        experiment: str,
        name: str | None = None,
        config: dict[str, Any] | None = None,
        tracking_uri: str | None = None,
    ):
        super().__init__()
        try:
            import mlflow
        except ImportError:
            raise ImportError(needs("MLflowLogger", "mlflow")) from None
        if not 0 < len(experiment) <= 500:  # MLflow says so only when training starts
            raise ValueError(
                "The name of an MLflow experiment must have 1 to 500 characters. "
                f"Received: experiment={experiment!r}"
            )
        self._mlflow = mlflow
        self._experiment, self._run_name, self._uri = experiment, name, tracking_uri
        self._config = flat_settings(config)
        self._id: Any = None
        self._session = Session()

    def state(self) -> dict[str, Any]:
        """Returns the id of the run."""
        return {"id": self._id}

    def load_state(self, state: dict[str, Any]) -> None:
        """Sets the run to resume."""
        check(state, {"id": _ID}, "the state of a tracker")
        self._id = state["id"]

    def on_train_begin(self, logs: Logs = None) -> None:
        """Starts or resumes the run.

        Raises:
            ConnectionError: MLflow can't, for instance because there is no server.
        """
        self._session.begin()
        with self._errors(), _warnings_only("mlflow"):  # it reports how it creates a database
            self._client = self._mlflow.MlflowClient(self._uri)
            self._last = self._start() if self._id is None else self._resume(self._id)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Logs the iteration.

        Raises:
            ConnectionError: MLflow can't.
        """
        steps, values = steps_and_values(logs)
        if steps <= self._last:
            return
        now = int(1000 * time.time())
        metric = self._mlflow.entities.Metric
        metrics = [metric(name, value, now, steps) for name, value in values.items()]
        with self._errors():
            self._client.log_batch(self._id, metrics=metrics)

    def on_train_end(self, logs: Logs = None) -> None:
        """Ends the run, as failed if an exception ended the training."""
        status = "FAILED" if self._session.failed() else "FINISHED"
        with self._errors():
            self._client.set_terminated(self._id, status)
        self._id = None

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except self._mlflow.MlflowException as error:
            raise ConnectionError(f"MLflow: {error}") from error

    def _start(self) -> int:
        """Creates the run; returns its last step, 0."""
        found = self._client.get_experiment_by_name(self._experiment)
        if found is None:
            experiment_id = self._client.create_experiment(self._experiment)
        else:
            experiment_id = found.experiment_id
        self._id = self._client.create_run(experiment_id, run_name=self._run_name).info.run_id
        params = [self._mlflow.entities.Param(k, str(v)) for k, v in self._config.items()]
        self._client.log_batch(self._id, params=params)
        return 0

    def _resume(self, run_id: str) -> int:
        """Reopens the run; returns its last step."""
        self._client.update_run(run_id, status="RUNNING")
        return int(self._client.get_run(run_id).data.metrics.get("rollout/steps", 0))


def flat_settings(settings: dict[str, Any] | None) -> dict[str, bool | int | float | str]:
    """Flattens settings for trackers: {"outer/inner": number, bool or text}."""
    flat: dict[str, Any] = {}
    for name, value in (settings or {}).items():
        if isinstance(value, dict):
            flat |= {f"{name}/{k}": v for k, v in flat_settings(value).items()}
        elif isinstance(value, list | tuple):
            flat[name] = ",".join(map(str, value))
        elif isinstance(value, bool | int | float | str):
            flat[name] = value
        else:
            flat[name] = "none" if value is None else str(value)
    return flat


class Session:
    """One training run, from its beginning to its end."""

    def begin(self) -> None:
        """Marks the beginning."""
        self._handled = sys.exc_info()[1]  # fit may be called inside an exception handler

    def failed(self) -> bool:
        """Whether an exception is ending the run; to be called in `on_train_end`."""
        return sys.exc_info()[1] is not self._handled


def steps_and_values(logs: Logs) -> tuple[int, dict[str, float]]:
    """Returns the environment steps, and the logs that have a value."""
    values = {name: value for name, value in (logs or {}).items() if not is_missing(value)}
    return int(values["rollout/steps"]), values


@contextlib.contextmanager
def _warnings_only(name: str) -> Iterator[None]:
    """Silences a logger's messages below warnings."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
