"""Workers as actors of a Ray cluster, on whichever machine Ray places them."""

from __future__ import annotations

import os
import pickle
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import ray
from ray.exceptions import ActorDiedError, GetTimeoutError, RayError, RayTaskError

from ppo_tf.collecting.workers.handles import Lost
from ppo_tf.collecting.workers.worker import MakePart, Worker
from ppo_tf.policies.engines import Order
from ppo_tf.support.telling import tell

_LOOK_EVERY = 1.0  # seconds


class RayActors:
    """Hires workers on the Ray cluster that this process is connected to.

    Args:
        make: makes the environments; functions and classes that no module has are sent along.
        timeout: seconds without a step after which a worker counts as lost; None: never. Likewise
            of a worker that Ray can't place.
        options: Ray's options of an actor: num_cpus, num_gpus, memory in bytes, resources.

    Attributes:
        timeout: as given.
    """

    def __init__(
        self, make: MakePart, timeout: float | None = None, options: Mapping[str, Any] | None = None
    ):
        self.timeout = timeout
        self._options = dict(options or {"num_cpus": 1})
        self._make = ray.cloudpickle.dumps(make)
        self._paths = [path or os.getcwd() for path in sys.path]
        self._weights: tuple[Any, Any] = (None, None)

    def __call__(self, first: int, count: int) -> RayHandle:
        """Starts a worker for `count` environments from `first` on."""
        actor = _ACTOR.options(**self._options).remote(self._paths, self._make, first, count)
        return RayHandle(actor, self)

    @property
    def wish(self) -> str:
        """What a worker asks the cluster for."""
        return ", ".join(f"{name}={value}" for name, value in self._options.items() if value)

    def stored(self, weights: Any) -> Any:
        """Returns a reference to weights in the object store, where all workers read them."""
        kept, reference = self._weights
        if kept is not weights:
            reference = ray.put([np.asarray(array) for array in weights])
            self._weights = weights, reference
        return reference


class RayHandle:
    """A worker that is an actor. The first result is its facts.

    Args:
        actor: the actor.
        hirer: who hired it.
    """

    def __init__(self, actor: Any, hirer: RayActors):
        self._actor, self._hirer = actor, hirer
        self._steps: int | None = None
        self._placed = False
        self._result = actor.facts.remote()

    @property
    def pid(self) -> int:
        """The process's, on its machine."""
        return int(ray.get(self._actor.pid.remote()))

    def call(self, method: str, *arguments: Any) -> None:
        """See `Handle`."""
        weights = None
        if arguments and isinstance(arguments[0], Order):
            order, *others = arguments
            weights = self._hirer.stored(order.weights)
            arguments = (order._replace(weights=()), *others)
        self._result = self._actor.work.remote(method, weights, *arguments)

    def result(self) -> Any:
        """See `Handle`."""
        steps, since = None, time.monotonic()
        mention = since + 10.0
        while True:
            try:
                return self._get(self._result, _LOOK_EVERY)
            except GetTimeoutError:
                self._look()
            now = time.monotonic()
            if self._steps != steps:
                steps, since = self._steps, now
            elif self._hirer.timeout is not None and now - since >= self._hirer.timeout:
                what = "took no step for" if self._placed else "found no place in the cluster in"
                raise Lost(f"{what} {self._hirer.timeout:g} s", self._steps)
            elif not self._placed and now > mention:
                free = ray.available_resources()
                tell(
                    f"waiting for the Ray cluster to place collectors: each asks for "
                    f"{self._hirer.wish}; free are CPU={free.get('CPU', 0):g}, "
                    f"GPU={free.get('GPU', 0):g}"
                )
                mention = now + 60.0

    def _get(self, reference: Any, seconds: float) -> Any:
        """The value of a reference; raises what the worker raised, or GetTimeoutError."""
        try:
            return ray.get(reference, timeout=seconds)
        except GetTimeoutError:
            raise
        except RayTaskError as error:
            cause = error.cause
            if isinstance(cause, Exception) and not isinstance(cause, RayError):
                raise cause from None
            raise RuntimeError(" ".join(str(cause).split())) from None
        except ActorDiedError as error:
            if error.actor_init_failed:
                raise RuntimeError(f"a Ray actor can't start: {_last_line(error)}") from None
            raise Lost(f"(Ray actor) {_how(error)}") from None
        except RayError as error:  # what it has sent is lost with its machine
            raise Lost(f"(Ray actor) {_how(error)}") from None

    def _look(self) -> None:
        """Asks how many steps the worker has taken, for as long as it answers at once."""
        try:
            self._steps = self._get(self._actor.steps.remote(), _LOOK_EVERY)
            self._placed = True
        except (GetTimeoutError, Lost):
            pass

    def end(self) -> None:
        """See `Handle`."""
        ray.kill(self._actor)


def _how(error: RayError) -> str:
    """How an actor ended, in a line; Ray explains it over many, with advice."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = [line for line in lines if line.startswith(("The actor", "The node", "Worker exit"))]
    return " ".join((said or lines)[0].split(". ")[0].split())[:200]


def _last_line(error: RayError) -> str:
    return [line.strip() for line in str(error).splitlines() if line.strip()][-1][:300]


class _Actor:
    """A worker in a process of Ray's."""

    def __init__(self, paths: Sequence[str], make: bytes, first: int, count: int):
        self._paths, self._make, self._share = paths, make, (first, count)
        self._progress = np.zeros(1, np.int64)
        self._worker: Any = None

    def facts(self) -> Any:
        """Makes the environments and returns their facts."""
        # Where the learner's modules are, as far as this machine has the same folders.
        sys.path += [p for p in self._paths if p not in sys.path and os.path.exists(p)]
        self._worker = Worker(pickle.loads(self._make), *self._share, self._progress)
        return self._worker.facts()

    def work(self, method: str, weights: Any, *arguments: Any) -> Any:
        """Calls a method; an order's weights come by themselves."""
        if weights is not None:
            order, *others = arguments
            arguments = (order._replace(weights=weights), *others)
        return getattr(self._worker, method)(*arguments)

    @ray.method(concurrency_group="watch")
    def steps(self) -> int:
        """How many steps it has taken."""
        return int(self._progress[0])

    @ray.method(concurrency_group="watch")
    def pid(self) -> int:
        """Its process."""
        return os.getpid()


_ACTOR: Any = ray.remote(max_restarts=0, concurrency_groups={"watch": 1})(_Actor)
