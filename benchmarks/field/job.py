"""What an adapter is asked to do, and the clock that it ticks."""

import time
from dataclasses import dataclass, field

WARM_UP = 3  # iterations before timing: everything is compiled then; torch.compile needs more
HIDDEN_SIZES = (64, 64)  # tanh, for actor and critic each


@dataclass(frozen=True)
class Job:
    """One measurement.

    Attributes:
        library: name of the adapter.
        env: Gymnasium id.
        num_envs: number of environments.
        horizon: steps of each environment in an iteration.
        epochs: passes over the data of an iteration.
        minibatch: samples of a gradient step.
        iterations: iterations that are timed.
        started: time at which the process was started, in seconds since the epoch.
        options: what is chosen by trial: threads, vector class, framework, compilation.
    """

    library: str
    env: str
    num_envs: int
    horizon: int
    epochs: int
    minibatch: int
    iterations: int
    started: float
    options: dict = field(default_factory=dict)

    @property
    def steps(self):
        """Environment steps of an iteration."""
        return self.num_envs * self.horizon

    @property
    def minibatches(self):
        """Gradient steps of an epoch."""
        return self.steps // self.minibatch

    @property
    def all_iterations(self):
        """Iterations with those of the warm-up."""
        return WARM_UP + self.iterations


class Clock:
    """Times the iterations after the warm-up."""

    def __init__(self):
        self.iterations = 0
        self.start = self.end = self.timed = None

    def tick(self, iterations=1):
        """Takes note that iterations have ended."""
        self.iterations += iterations
        self.end = time.perf_counter()
        if self.start is None and self.iterations >= WARM_UP:
            self.start, self.timed = self.end, -self.iterations

    def rate(self, job):
        """Returns environment steps per second after the warm-up.

        Raises:
            RuntimeError: if the adapter ticked too few or too many iterations.
        """
        if self.iterations != job.all_iterations:
            raise RuntimeError(
                f"{job.library} must end {job.all_iterations} iterations. "
                f"Received: {self.iterations}"
            )
        return (self.iterations + self.timed) * job.steps / (self.end - self.start)
