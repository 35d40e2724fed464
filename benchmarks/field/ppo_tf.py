"""This library, as README installs it or with the extra `envpool`, and stepping alone."""

import resource
import sys
import time

from field.job import HIDDEN_SIZES


class Stopwatch:
    """Wraps callables and adds up the time spent in them, by name."""

    def __init__(self):
        self.spent = {}

    def wrap(self, name, function):
        """Returns the same callable, timed."""
        self.spent[name] = 0.0

        def timed(*args, **kwargs):
            start = time.perf_counter()
            result = function(*args, **kwargs)
            self.spent[name] += time.perf_counter() - start
            return result

        return timed


class Timed:
    """An acting engine with its calls timed; everything else is the engine's own."""

    def __init__(self, acting, watch):
        self._engine = acting
        self.begin = watch.wrap("acting", acting.begin)
        self._act = watch.wrap("acting", acting)

    def __call__(self, *args, **kwargs):
        """Acts like the engine."""
        return self._act(*args, **kwargs)

    def __getattr__(self, name):
        return getattr(self._engine, name)


def shares(collector, learner, iterations):
    """Returns the shares of wall time in environment, acting, update and bookkeeping."""
    watch = Stopwatch()
    collector.envs.step = watch.wrap("environment", collector.envs.step)
    worker = collector.crew.places[0].handle.worker
    worker.engine = Timed(worker.engine, watch)
    update = watch.wrap("update", learner.update)
    start = time.perf_counter()
    for _ in range(iterations):
        update(collector.collect()[0])
    total = time.perf_counter() - start
    parts = {name: spent / total for name, spent in watch.spent.items()}
    return parts | {"bookkeeping": 1.0 - sum(parts.values())}


def without_envpool(job):
    """Makes EnvPool look missing, unless the job asks for it."""
    if not job.options.get("envpool"):
        sys.modules["envpool"] = None  # the import system's own sign of a module that is not there


def train(job, clock):
    """Trains; also returns the engines, the time to the first update and shares of wall time."""
    without_envpool(job)
    import ppo_tf

    backend, _ = ppo_tf.choose_backend(job.env, job.num_envs)
    envs = ppo_tf.make_envs(job.env, job.num_envs, backend=backend)
    hidden = tuple(job.options.get("hidden_sizes", HIDDEN_SIZES))
    learner = ppo_tf.Learner(
        ppo_tf.mlp_policy(envs, hidden_sizes=hidden, seed=0),
        ppo_tf.mlp_critic(envs, hidden_sizes=hidden, seed=1),
        epochs=job.epochs,
        minibatch_size=job.minibatch,
        reward_transformation=ppo_tf.RewardScaling(),
    )
    collector = ppo_tf.VectorCollector(envs, learner.policy, job.horizon)
    for iteration in range(job.all_iterations):
        learner.update(collector.collect()[0])
        if not iteration:
            first = time.time() - job.started
        clock.tick()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    trajectory, _ = collector.collect()
    updates = [timed(lambda: learner.update(trajectory)) for _ in range(5)]
    weights = sum(v.shape.num_elements() for v in learner.trained if len(v.shape) == 2)
    return {
        "peak_mb": memory,
        "first_update_s": first,
        "engines": {"backend": backend, "acting": collector.acting.description},
        # 2 per weight and sample forward, 4 backward; the rest of an update is not counted
        "update_flops": 6 * weights * job.steps * job.epochs / sorted(updates)[2],
        "matmul_flops": matmul_flops(),
        **shares(collector, learner, max(job.iterations // 2, 2)),
    }


def timed(function):
    """Returns the seconds that a call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def matmul_flops(size=2048):
    """Returns the FLOP/s of a large float32 matrix product in TensorFlow, the best of 5."""
    import tensorflow as tf

    a = tf.random.normal((size, size))
    return 2 * size**3 / min(timed(lambda: (a @ a).numpy()) for _ in range(5))
