"""How the learner's process talks to a worker, wherever that is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from ppo_tf.collecting.workers.worker import MakePart, Worker


class Lost(Exception):
    """A worker that is gone or doesn't answer; the message says how.

    Args:
        how: such as "was killed by SIGKILL".
        steps: that it had taken in all; None: unknown.
    """

    def __init__(self, how: str, steps: int | None = None):
        super().__init__(how)
        self.steps = steps


class Handle(Protocol):
    """A worker's, for calls of its methods one at a time. The first result is its facts."""

    def call(self, method: str, *arguments: Any) -> None:
        """Calls a method, without waiting for it."""
        ...

    def result(self) -> Any:
        """Waits for the call and returns its result.

        Raises:
            Lost: the worker is gone.
            Exception: what the method raised.
        """
        ...

    def end(self) -> None:
        """Ends the worker, at once."""
        ...


class LocalHandle:
    """A worker in this process, which works when its result is asked for.

    Args:
        make: makes the environments.
        first: index of the first one.
        count: how many.

    Attributes:
        worker: the worker.
    """

    def __init__(self, make: MakePart, first: int, count: int):
        self.worker = Worker(make, first, count)
        self._call: Callable[[], Any] = self.worker.facts

    def call(self, method: str, *arguments: Any) -> None:
        """See `Handle`."""
        self._call = lambda: getattr(self.worker, method)(*arguments)

    def result(self) -> Any:
        """See `Handle`."""
        return self._call()

    def end(self) -> None:
        """See `Handle`."""
        self.worker.close()
