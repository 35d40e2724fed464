"""`TensorBoardScalars`: a Keras callback that writes a run's logs and settings for TensorBoard."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any

import keras
from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, types_pb2
from tensorboard.plugins.hparams import api as hparams_api
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2
from tensorboard.plugins.hparams import metadata as hparams_metadata
from tensorboard.plugins.scalar import metadata as scalar_metadata
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.record_writer import RecordWriter

from ppo_tf.callbacks.logs import Logs
from ppo_tf.callbacks.trackers import Session, flat_settings, steps_and_values
from ppo_tf.support.appended_file import AppendedFile
from ppo_tf.support.schema import COUNT, Named, Rule, check, matching
from ppo_tf.support.telling import tell

# Metrics by which TensorBoard's HPARAMS page compares runs; one that a run lacks stays empty.
HPARAMS_METRICS = ("rollout/episode_return", "eval/mean_return")

_SUFFIX = ".ppo_tf"  # tells our event files from others in the same folder
# The folder is ours to cut and delete in, and only what has such a name.
_NAME = matching(
    "the name of one of our event files", r"events\.out\.tfevents\.\d{10}\.[^/\\\0:]*\.ppo_tf"
)
_STEPS = Rule("an integer of at least -1", lambda v: v == -1 or COUNT.allows(v))


class TensorBoardScalars(keras.callbacks.Callback):
    """Writes the logs as TensorBoard scalars over environment steps, grouped by prefix.

    With settings, also writes the hyperparameters for TensorBoard's HPARAMS page and a table of
    them for its TEXT page. When resumed from a checkpoint, the event files are cut to what they
    held then, and a server that has already read more is told to drop it. A new run in a used
    folder hides the previous one.

    Args:
        logdir: folder of the event files, created if needed.
        settings: the run's settings by name; nested dicts are flattened.
    """

    def __init__(self, logdir: str | os.PathLike[str], settings: dict[str, Any] | None = None):
        super().__init__()
        self._logdir = Path(logdir)
        self._settings = flat_settings(settings)
        self._sizes: dict[str, int] = {}  # bytes of the run's event files before this one
        self._steps = -1  # the last environment step in them
        self._session = Session()

    def state(self) -> dict[str, Any]:
        """Returns the names and sizes of the event files, and the last step in them."""
        return {"sizes": {**self._sizes, self._name: self._file.sync()}, "steps": self._steps}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continues after that step; the files are cut when training begins."""
        check(state, {"sizes": Named(_NAME, COUNT), "steps": _STEPS}, "the state of event files")
        self._sizes, self._steps = dict(state["sizes"]), state["steps"]

    def on_train_begin(self, logs: Logs = None) -> None:
        """Opens a new event file, because a server does not follow a file that was cut."""
        self._session.begin()
        self._logdir.mkdir(parents=True, exist_ok=True)
        self._name = self._new_name()
        self._cut()
        self._begin_file()
        if self._settings and not self._sizes:
            for summary in _settings_summaries(self._settings):
                self._write(event_pb2.Event(step=0, summary=summary))

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Writes the iteration's scalars."""
        if not self._file.is_ours():
            self._go_on_elsewhere()
        self._steps, values = steps_and_values(logs)
        values.pop("rollout/steps")
        summary = summary_pb2.Summary(value=[_scalar(name, v) for name, v in values.items()])
        self._write(event_pb2.Event(step=self._steps, summary=summary))

    def on_train_end(self, logs: Logs = None) -> None:
        """Records how the run ended and closes the event file."""
        failed = self._session.failed()
        if self._settings:
            status = api_pb2.STATUS_FAILURE if failed else api_pb2.STATUS_SUCCESS
            end = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=time.time())
            tag = hparams_metadata.SESSION_END_INFO_TAG
            try:
                self._write(event_pb2.Event(summary=_hparams(tag, session_end_info=end)))
            except OSError:
                if not failed:  # otherwise the file's first error is already being raised
                    raise
        self._file.close()
        self._sizes, self._steps = {}, -1

    def _begin_file(self) -> None:
        self._file = AppendedFile(self._logdir / self._name)
        self._file.open()
        self._records = RecordWriter(self._file)
        self._write(event_pb2.Event(file_version="brain.Event:2"))
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(event_pb2.Event(step=self._steps + 1, session_log=start))

    def _go_on_elsewhere(self) -> None:
        """Begins a new event file: in one that others cut, a server reads nothing after the cut."""
        tell(f"warning: {self._file.path} was removed or changed by others; its log goes on anew")
        self._file.close()
        self._logdir.mkdir(parents=True, exist_ok=True)
        left = self._file.path
        if left.is_file() and not left.is_symlink():
            self._sizes[self._name] = left.stat().st_size
        self._name = self._new_name()
        self._begin_file()

    def _write(self, event: Any) -> None:
        event.wall_time = time.time()
        self._records.write(event.SerializeToString())

    def _ours(self) -> list[str]:
        """The names of our event files in the order in which TensorBoard reads them."""
        return sorted(p.name for p in self._logdir.iterdir() if _NAME.allows(p.name))

    def _cut(self) -> None:
        """Restores the folder to its state at the checkpoint."""
        for name, size in list(self._sizes.items()):
            if not os.path.lexists(self._logdir / name):
                tell(f"warning: {self._logdir / name} was there at the checkpoint and is missing")
                del self._sizes[name]
                continue
            file = AppendedFile(self._logdir / name)
            file.cut(size)
            file.open()
            self._sizes[name] = file.sync()  # less than it was if others shortened it
            file.close()
        if self._sizes:
            for name in self._ours():
                if name not in self._sizes and name > min(self._sizes):
                    (self._logdir / name).unlink()

    def _new_name(self) -> str:
        """A name that sorts after all our files in the folder, including those to be deleted."""
        seconds = int(time.time())
        if ours := self._ours():
            seconds = max(seconds, int(ours[-1].split(".")[3]) + 1)
        return f"events.out.tfevents.{seconds:010d}.{socket.gethostname()}{_SUFFIX}"


_SCALAR = scalar_metadata.create_summary_metadata(display_name=None, description=None)


def _scalar(name: str, value: float) -> Any:
    """A scalar in the form that `tf.summary.scalar` writes."""
    tensor = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, float_val=[value])
    return summary_pb2.Summary.Value(tag=name, tensor=tensor, metadata=_SCALAR)


def _settings_summaries(settings: dict[str, Any]) -> list[Any]:
    """Summaries of the hyperparameters, the metrics to compare runs by, and a table of settings."""
    experiment = api_pb2.Experiment(
        # With types, so that numbers get an axis; `hparams_config_pb` sets them only with a domain.
        hparam_infos=[api_pb2.HParamInfo(name=n, type=_type(v)) for n, v in settings.items()],
        metric_infos=[hparams_api.Metric(name).as_proto() for name in HPARAMS_METRICS],
    )
    cells = [(name, str(value).replace("|", "\\|")) for name, value in settings.items()]
    rows = [
        f"| {name} | {value} |" for name, value in [("setting", "value"), ("---", "---"), *cells]
    ]
    return [
        _hparams(hparams_metadata.EXPERIMENT_TAG, experiment=experiment),
        hparams_api.hparams_pb(settings),
        text_pb("settings", "\n".join(rows)),
    ]


def _hparams(tag: str, **data: Any) -> Any:
    """A summary for the HParams plugin."""
    metadata = hparams_metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(**data))
    value = {"tag": tag, "metadata": metadata, "tensor": hparams_metadata.NULL_TENSOR}
    return summary_pb2.Summary(value=[summary_pb2.Summary.Value(**value)])


def _type(value: bool | int | float | str) -> Any:
    if isinstance(value, bool):
        return api_pb2.DATA_TYPE_BOOL
    return api_pb2.DATA_TYPE_STRING if isinstance(value, str) else api_pb2.DATA_TYPE_FLOAT64
