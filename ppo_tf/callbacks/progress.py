"""`Progress`: the progress of a training run on the terminal."""

from __future__ import annotations

import time

import keras
import rich.console
import rich.progress

from ppo_tf.callbacks.logs import Logs, is_missing


class Progress(keras.callbacks.Callback):
    """Shows steps, steps/s, return and time left: a live line on a terminal, plain lines elsewhere.

    Args:
        interval: minimum time between plain lines, in seconds.
        console: rich console; by default standard output.
    """

    def __init__(self, interval: float = 5.0, console: rich.console.Console | None = None):
        super().__init__()
        self._interval = interval
        self._console = console or rich.console.Console()
        self._bar: rich.progress.Progress | None = None

    def on_train_begin(self, logs: Logs = None) -> None:
        """Starts the clock and, on a terminal, the live line."""
        self._total = self.params["total_steps"]
        self._shown = time.perf_counter()
        self._first: tuple[int, float] | None = None
        if self._console.is_terminal:
            self._bar = rich.progress.Progress(
                rich.progress.TextColumn("{task.completed:,.0f}/{task.total:,.0f} steps"),
                rich.progress.BarColumn(),
                rich.progress.TextColumn("{task.fields[rate]} steps/s  return {task.fields[ret]}"),
                rich.progress.TimeRemainingColumn(),
                console=self._console,
                auto_refresh=False,  # a refresh thread would take time from the environments
            )
            self._bar.start()
            self._task = self._bar.add_task("", total=self._total, rate="-", ret="-")

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Updates the live line, or prints a plain one if it is time."""
        logs = logs or {}
        steps, now = int(logs["rollout/steps"]), time.perf_counter()
        if self._first is None:  # it included compilation, so its speed says nothing
            self._first = (steps, now)
            rate, left = "-", "-"
        else:
            per_second = (steps - self._first[0]) / (now - self._first[1])
            rate, left = f"{per_second:,.0f}", f"{(self._total - steps) / per_second:.0f}"
        value = logs["rollout/episode_return"]
        ret = "-" if is_missing(value) else f"{value:.1f}"
        if self._bar is not None:
            self._bar.update(self._task, completed=steps, rate=rate, ret=ret, refresh=True)
        elif now - self._shown >= self._interval or steps >= self._total:
            self._shown = now
            self._console.print(
                f"{steps:,}/{self._total:,} steps  {rate} steps/s  return {ret}  {left} s left",
                highlight=False,
                soft_wrap=True,
            )

    def on_train_end(self, logs: Logs = None) -> None:
        """Leaves the line as it stands."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
