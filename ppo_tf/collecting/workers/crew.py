"""Workers that collect together, and what happens when one of them fails.

From an episode boundary on, recorded actions bring any deterministic environment back to where it
was. So a worker that is gone is replaced by one that repeats them, and then collects what the first
one owed, with the same weights and the same noise: nothing that is learned changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ppo_tf.collecting.workers.handles import Handle, Lost
from ppo_tf.collecting.workers.worker import Collected, Facts
from ppo_tf.policies.engines import Order
from ppo_tf.spaces import map_leaves
from ppo_tf.support.telling import tell
from ppo_tf.types import EnvironmentFailure, Nest

Hire = Callable[[int, int], Handle]  # (index of the first environment, how many) -> a new worker
RECORD_BYTES = 2**30  # of actions per worker, beyond which it can't be replayed


class Assignment(NamedTuple):
    """What all workers are to collect.

    Attributes:
        orders: for each worker, its weights and its noise.
        rows_before: rows of earlier rollouts, from which errors count.
        new_seeds: function of a number of attempts, which gives seeds, one per environment, for
            episodes that begin in place of others that can't go on.
        give_up: function of (index of the first environment, how many), which forgets their
            episodes under way and returns how many steps these have.
    """

    orders: Sequence[Order]
    rows_before: int
    new_seeds: Callable[[int], Sequence[int]]
    give_up: Callable[[int, int], int]


class _Record:
    """What brings new environments to where others are.

    Args:
        seeds: with which episodes began, the boundary; None: as the environments were made.
    """

    def __init__(self, seeds: Sequence[int] | None):
        self.seeds = seeds
        self.rollouts: list[tuple[Nest, int]] | None = []  # None: too many to keep
        self.state: list[np.ndarray] | None = None  # the engine's memory; None: it is empty
        self.steps = self._bytes = 0

    def add(self, part: Collected) -> None:
        """Adds a rollout."""
        actions = part.rollout.env_actions
        self.state = [np.array(x) for x in part.state]
        self.steps += len(part.rollout.rewards)
        if self.rollouts is None:
            return
        kept: Any = map_leaves(np.array, actions)
        self._bytes += sum(x.nbytes for x in (kept.values() if isinstance(kept, dict) else [kept]))
        self.rollouts.append((kept, part.digest))
        if self._bytes > RECORD_BYTES:
            self.rollouts = None


class _Place:
    """A place in the crew: some of the environments, whoever steps them."""

    def __init__(self, number: int, first: int, count: int):
        self.number, self.first, self.count = number, first, count
        self.handle: Any = None  # a Handle, once there is one
        self.preparation: tuple[Any, ...] = ("facts",)
        self.record = _Record(None)
        self.busy = False  # a call is under way

    def own(self, values: Sequence[int]) -> list[int]:
        """Those of its environments."""
        return list(values[self.first : self.first + self.count])


class Crew:
    """Workers, each with its share of the environments, who are replaced when they fail.

    A worker that is lost, or whose environment raises, is replaced by one that repeats the actions
    since the last boundary. If the environments then show something else, or fail at the same step
    again, new episodes begin in place of those of this worker.

    Args:
        hire: starts a worker, whose first result is its facts.
        count: number of workers.
        num_envs: number of environments, over all workers; a multiple of count.
        max_restarts: how often in a row a worker is replaced before its failure is raised.

    Attributes:
        facts: of the environments.
        restarts: number of workers replaced so far.
        lost_steps: steps of the episodes given up so far.

    Raises:
        EnvironmentFailure: a worker is gone before it has begun.
        Exception: what a worker raises when it makes its environments.
    """

    def __init__(self, hire: Hire, count: int, num_envs: int, max_restarts: int):
        self.num_envs = num_envs
        self.restarts = self.lost_steps = 0
        self._hire, self._max_restarts = hire, max_restarts
        share = num_envs // count
        self.places = [_Place(number, number * share, share) for number in range(count)]
        self._assignment: Assignment | None = None
        try:
            for place in self.places:
                place.handle = hire(place.first, share)
            facts: list[Facts] = [self._settle(place, None, Lost) for place in self.places]
        except BaseException:
            self.close()
            raise
        self.facts = facts[0]

    def prepare(self, *preparation: Any) -> None:
        """Calls a method, with arguments, of all workers and of each that replaces one."""
        for place in self.places:
            place.preparation = preparation
            place.handle.call(*preparation)
        for place in self.places:
            self._settle(place, None, Lost)

    def begin_episodes(self, seeds: Sequence[int]) -> None:
        """Starts new episodes everywhere, a boundary; what is being collected is dropped."""
        for place in self.places:
            if place.busy:
                self._drop(place)
            place.record = _Record(place.own(seeds))
            place.handle.call("begin_episodes", place.record.seeds)
        for place in self.places:
            self._settle(place, None)

    def assign(self, assignment: Assignment) -> None:
        """Has a rollout collected, without waiting for it."""
        self._assignment = assignment
        for place in self.places:
            place.handle.call(
                "collect", assignment.orders[place.number], assignment.rows_before, None
            )
            place.busy = True

    def collected(self) -> list[Collected]:
        """Waits for the rollout and returns its parts, by worker; see `Worker.collect`.

        Raises:
            EnvironmentFailure: a worker has failed too often in a row.
            NonFiniteError, ValueError: as `Stepper.rollout`.
        """
        parts = []
        for place in self.places:
            parts.append(self._settle(place, self._assignment))
            place.busy = False
            if self._max_restarts:  # otherwise nobody repeats it
                place.record.add(parts[-1])
        return parts

    def close(self) -> None:
        """Ends all workers."""
        for place in self.places:
            if place.handle is not None:
                place.handle.end()

    def _drop(self, place: _Place) -> None:
        """Waits for a rollout that nobody wants."""
        place.busy = False
        try:
            place.handle.result()
        except (Lost, EnvironmentFailure):
            place.handle.end()  # and it will be found lost

    def _settle(self, place: _Place, assignment: Assignment | None, *errors: Any) -> Any:
        """Waits for a worker, and replaces it until one has done what it was to do.

        Args:
            place: the worker's.
            assignment: what it was to collect; None: it collects nothing yet.
            errors: for which it is replaced; none given: for all failures.
        """
        failures: list[Lost | EnvironmentFailure] = []
        caught = errors or (Lost, EnvironmentFailure)
        while True:
            try:
                if failures:
                    self._replace(place, assignment, failures)
                return place.handle.result()
            except caught as error:
                failures.append(error)
                if len(failures) > self._max_restarts:
                    raise self._failure(place, error) from None

    def _replace(
        self,
        place: _Place,
        assignment: Assignment | None,
        failures: Sequence[Lost | EnvironmentFailure],
    ) -> None:
        """Has a new worker take a place, and do again what the last one has not."""
        failure = failures[-1]
        who = f"{self._name(place)} " if isinstance(failure, Lost) else ""
        tell(f"{who}{' '.join(str(failure).split())}: replaced")
        self.restarts += 1
        place.handle.end()
        place.handle = self._hire(place.first, place.count)
        place.handle.result()
        place.handle.call(*place.preparation)
        place.handle.result()
        record, repeated = place.record, False
        if assignment is None:  # there is nothing to repeat
            begun = record.seeds is not None
            place.handle.call(*(("begin_episodes", record.seeds) if begun else ("facts",)))
            return
        stuck = _stuck(failures, record.steps, len(failures) == self._max_restarts)
        if record.rollouts is not None and not stuck:
            rows_before = assignment.rows_before - record.steps
            place.handle.call("replay", record.seeds, record.rollouts, rows_before)
            repeated = place.handle.result()
        if not repeated:
            seeds = place.own(assignment.new_seeds(len(failures)))
            steps = assignment.give_up(place.first, place.count)
            self.lost_steps += steps
            tell(
                f"{self._name(place)}: new episodes begin, as those under way can't be repeated; "
                f"{steps:,} steps are lost"
            )
            place.record = _Record(seeds)
            place.handle.call("begin_episodes", seeds)
            place.handle.result()
        order = assignment.orders[place.number]
        place.handle.call("collect", order, assignment.rows_before, place.record.state)

    def _failure(self, place: _Place, error: Lost | EnvironmentFailure) -> EnvironmentFailure:
        if isinstance(error, EnvironmentFailure):
            return error
        return EnvironmentFailure(None, "lost its collector", f"{self._name(place)} {error}", 0)

    def _name(self, place: _Place) -> str:
        last = place.first + place.count - 1
        return f"collector {place.number} (environments {place.first} to {last})"


def _stuck(failures: Sequence[Lost | EnvironmentFailure], steps: int, last: bool) -> bool:
    """Whether the last two failures came at the same step, inside a rollout after `steps`.

    Where nobody knows at which step workers were lost, it is assumed at the last attempt.
    """
    if len(failures) < 2:
        return False
    one, other = failures[-2:]
    if isinstance(one, Lost) and isinstance(other, Lost):
        if one.steps is None or other.steps is None:
            return last
        return one.steps == other.steps and (other.steps or 0) > steps
    if isinstance(one, Lost) or isinstance(other, Lost):
        return False
    return (one.environment, one.step, one.what) == (other.environment, other.step, other.what)
