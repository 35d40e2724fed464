"""Where a run begins new episodes: after steps, after a time, or where an earlier run did.

A checkpoint is such a boundary, so its place is part of what a run computes. Places that follow
from the settings need no record. The others, such as those that the clock gave, are recorded: a run
that is given them is the same bit for bit, whatever its own clock says.
"""

from __future__ import annotations

import bisect
import math
import time
from collections.abc import Callable, Iterable
from typing import Any, Literal, NamedTuple

from ppo_tf.support.schema import COUNT, Rule, check
from ppo_tf.support.steps import passes_multiple
from ppo_tf.support.telling import tell

STEPS_PER_ENVIRONMENT = 12_500  # between boundaries; a multiple of most time limits

Reason = Literal["steps", "place", "time", "end"]

SCHEMA = {"places": [COUNT], "told": Rule("true or false", lambda v: isinstance(v, bool))}


def default_every(num_envs: int) -> int:
    """Returns the default of `every`: it grows with the environments, or long episodes starve."""
    return STEPS_PER_ENVIRONMENT * num_envs


class _Last(NamedTuple):
    """The newest boundary, or the start of the run."""

    steps: int = 0
    episodes: int = 0  # finished up to then
    by_steps: bool = True


class Boundaries:
    """The boundaries of a run: which iterations end with one, and where they were.

    Args:
        every: environment steps between boundaries; None: 12,500 of each environment; 0: none.
        minutes: minutes after which the next iteration ends with one; 0: never by time.
        at: environment steps of further ones; there are none by time before the last of these.
        say: called with a line, once per run, if no episode finishes between two boundaries.
        clock: returns seconds.

    Attributes:
        places: environment steps of the boundaries so far that do not follow from `every`.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        every: int | None = None,
        minutes: float = 0.0,
        at: Iterable[int] = (),
        say: Callable[[str], Any] = tell,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.at = sorted(at)
        if every is not None and every < 0:
            raise ValueError(f"every must be at least 0. Received: every={every}")
        if not 0 <= minutes < math.inf:
            raise ValueError(f"minutes must be at least 0 and finite. Received: minutes={minutes}")
        if self.at and self.at[0] < 1:
            raise ValueError(f"at must be steps of at least 1. Received: at={self.at}")
        self.every = every
        self.minutes = minutes
        self.places: list[int] = []
        self._say, self._clock = say, clock
        self._told = False
        self._since = clock()
        self._last = _Last()
        self._num_envs = 1

    @property
    def known(self) -> list[int]:
        """The places and the newest boundary: what a run needs to be given to be the same."""
        return sorted({*self.places, self._last.steps} - {0})

    def begin(self, num_envs: int, total_steps: int, steps: int, episodes: int) -> None:
        """Starts the clock.

        Args:
            num_envs: number of environments.
            total_steps: environment steps to train for; places after them are left out.
            steps: environment steps so far.
            episodes: episodes finished so far.
        """
        self._num_envs = num_envs
        if self.every is None:
            self.every = default_every(num_envs)
        self.at = [place for place in self.at if place <= total_steps]
        self._last = _Last(steps, episodes, steps not in self.places)
        self._since = self._clock()

    def due(self, steps: int, previous: int) -> Reason | None:
        """Returns why an iteration ends with a boundary, or None if it does not.

        Args:
            steps: environment steps after the iteration.
            previous: environment steps before it.
        """
        if self.every and passes_multiple(self.every, previous, steps):
            return "steps"
        index = bisect.bisect_right(self.at, previous)
        if index < len(self.at):
            return "place" if self.at[index] <= steps else None
        late = self.minutes and self._clock() - self._since >= 60.0 * self.minutes
        return "time" if late else None

    def passed(self, steps: int, reason: Reason, episodes: int) -> None:
        """Records a boundary.

        Args:
            steps: environment steps so far.
            reason: what `due` returned; "end": training has ended.
            episodes: episodes finished so far.
        """
        by_steps = reason == "steps"
        if not by_steps:
            self.places.append(steps)
        # An interval that was cut short for another reason says nothing about episodes.
        starved = "checkpoint_minutes" if reason == "time" else ""
        if by_steps and self._last.by_steps:
            starved = "checkpoint_every"
        if starved and episodes == self._last.episodes and not self._told:
            self._told = True
            each = (steps - self._last.steps) // self._num_envs
            self._say(
                f"no episode finished in {each:,} steps of each environment, and new ones start at "
                f"the checkpoint after them: if episodes are longer, raise `{starved}`"
            )
        self._last = _Last(steps, episodes, by_steps)
        self._since = self._clock()

    def state(self) -> dict[str, Any]:
        """Returns the places so far, as JSON values."""
        return {"places": self.places, "told": self._told}

    def load_state(self, state: dict[str, Any], damaged: Iterable[int] = ()) -> None:
        """Restores what `state` returned.

        Args:
            state: the state in a checkpoint.
            damaged: environment steps of newer checkpoints that are passed over; as the run went on
                from there, they are boundaries of what comes again.
        """
        check(state, SCHEMA, "its state.boundaries")
        self.places, self._told = list(state["places"]), state["told"]
        self.at = sorted({*self.at, *damaged})
