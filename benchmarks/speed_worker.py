"""One measurement of benchmarks/speed.py, in a separate process: prints a line of JSON.

Peers are used through their public interfaces, with settings that ppo_tf shares: environments,
horizon, epochs, minibatch size, two hidden layers of 64 tanh units for actor and critic each.
"""

import json
import os
import resource
import sys
import time

WARM_UP = 2  # iterations before timing: everything is compiled then


def peak_mb():
    """Returns the peak memory of this process, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


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


def shares(collector, learner, iterations):
    """Returns the shares of wall time in environment, acting, update and bookkeeping."""
    watch = Stopwatch()
    collector.envs.step = watch.wrap("environment", collector.envs.step)
    collector.acting = Timed(collector.acting, watch)
    update = watch.wrap("update", learner.update)
    start = time.perf_counter()
    for _ in range(iterations):
        update(collector.collect()[0])
    total = time.perf_counter() - start
    parts = {name: spent / total for name, spent in watch.spent.items()}
    return parts | {"bookkeeping": 1.0 - sum(parts.values())}


class Timed:
    """An acting engine with its calls timed."""

    def __init__(self, acting, watch):
        self.begin = watch.wrap("acting", acting.begin)
        self._act = watch.wrap("acting", acting)

    def __call__(self, observations, step, starts):
        """Acts like the engine."""
        return self._act(observations, step, starts)


def run_ppo_tf(job):
    """Times ppo_tf."""
    import ppo_tf

    backend, _ = ppo_tf.choose_backend(job["env"], job["num_envs"])
    envs = ppo_tf.make_envs(job["env"], job["num_envs"], backend=backend)
    hidden = tuple(job.get("hidden_sizes", (64, 64)))
    learner = ppo_tf.Learner(
        ppo_tf.mlp_policy(envs, hidden_sizes=hidden, seed=0),
        ppo_tf.mlp_critic(envs, hidden_sizes=hidden, seed=1),
        epochs=job["epochs"],
        minibatch_size=job["minibatch"],
        reward_transformation=ppo_tf.RewardScaling(),
    )
    collector = ppo_tf.VectorCollector(envs, learner.policy, job["horizon"])
    learner.update(collector.collect()[0])
    first = time.time() - job["started"]
    for _ in range(WARM_UP - 1):
        learner.update(collector.collect()[0])
    start = time.perf_counter()
    for _ in range(job["iterations"]):
        learner.update(collector.collect()[0])
    seconds = time.perf_counter() - start
    memory = peak_mb()
    trajectory, _ = collector.collect()
    updates = [timed(lambda: learner.update(trajectory)) for _ in range(5)]
    weights = sum(v.shape.num_elements() for v in learner.trained if len(v.shape) == 2)
    samples = job["num_envs"] * job["horizon"] * job["epochs"]
    return {
        "steps_per_second": job["iterations"] * job["num_envs"] * job["horizon"] / seconds,
        "peak_mb": memory,
        "first_update_s": first,
        "engines": {"backend": backend, "acting": collector.acting.description},
        # 2 per weight and sample forward, 4 backward; the rest of an update is not counted
        "update_flops": 6 * weights * samples / sorted(updates)[2],
        "matmul_flops": matmul_flops(),
        **shares(collector, learner, max(job["iterations"] // 2, 2)),
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


def run_random(job):
    """Times stepping ppo_tf's environments with random actions, and nothing else."""
    import numpy as np

    from ppo_tf.environments.backends import make_envs

    envs = make_envs(job["env"], job["num_envs"])
    envs.reset()
    actions = [
        np.stack([envs.single_action_space.sample() for _ in range(job["num_envs"])])
        for _ in range(job["horizon"])
    ]
    for action in actions:
        envs.step(action)
    start = time.perf_counter()
    for _ in range(job["iterations"]):
        for action in actions:
            envs.step(action)
    seconds = time.perf_counter() - start
    steps = job["iterations"] * job["num_envs"] * job["horizon"]
    return {"steps_per_second": steps / seconds, "peak_mb": peak_mb()}


def run_sb3(job):
    """Times Stable-Baselines3, or SBX, which has its interface."""
    import torch

    torch.set_num_threads(job["threads"])
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

    if job["library"] == "sbx":
        from sbx import PPO

        network = {"net_arch": [64, 64]}
    else:
        from stable_baselines3 import PPO

        network = {"net_arch": {"pi": [64, 64], "vf": [64, 64]}}
    moments = []

    class Moments(BaseCallback):
        """Records when each rollout starts."""

        def _on_rollout_start(self):
            moments.append(time.perf_counter())

        def _on_step(self):
            return True

    envs = make_vec_env(
        job["env"],
        n_envs=job["num_envs"],
        vec_env_cls=SubprocVecEnv if job["subprocesses"] else DummyVecEnv,
    )
    model = PPO(
        "MlpPolicy",
        envs,
        n_steps=job["horizon"],
        batch_size=job["minibatch"],
        n_epochs=job["epochs"],
        policy_kwargs=network,
        device="cpu",
    )
    steps = job["num_envs"] * job["horizon"]
    model.learn(steps * (WARM_UP + job["iterations"]), callback=Moments())
    seconds = time.perf_counter() - moments[WARM_UP]
    return {"steps_per_second": job["iterations"] * steps / seconds, "peak_mb": peak_mb()}


def run_cleanrl(job):
    """Times CleanRL's own script, unchanged, by the moments at which it logs its speed."""
    import runpy
    import types

    import gymnasium
    import torch

    torch.set_num_threads(job["threads"])
    moments = []

    class Writer:
        """Replaces TensorBoard's writer: writes nothing, records when each iteration ends."""

        def __init__(self, folder):
            pass

        def add_text(self, *args):
            pass

        def add_scalar(self, name, *args):
            if name == "charts/SPS":
                moments.append(time.perf_counter())

        def close(self):
            pass

    sys.modules["torch.utils.tensorboard"] = types.SimpleNamespace(SummaryWriter=Writer)
    wrapper = gymnasium.wrappers.TransformObservation
    # Written for Gymnasium 0.29; since 1.0 this wrapper also wants the space after it.
    gymnasium.wrappers.TransformObservation = lambda env, function: wrapper(
        env, function, env.observation_space
    )
    steps = job["num_envs"] * job["horizon"]
    script = "ppo.py" if job["env"].startswith("CartPole") else "ppo_continuous_action.py"
    script = os.path.join(os.path.dirname(sys.executable), os.pardir, "cleanrl", script)
    sys.argv = [script, "--no-capture-video", "--env-id", job["env"]]
    for flag, value in {
        "num-envs": job["num_envs"],
        "num-steps": job["horizon"],
        "update-epochs": job["epochs"],
        "num-minibatches": steps // job["minibatch"],
        "total-timesteps": steps * (WARM_UP + job["iterations"]),
    }.items():
        sys.argv += [f"--{flag}", str(value)]
    runpy.run_path(script, run_name="__main__")
    seconds = moments[-1] - moments[WARM_UP - 1]
    return {"steps_per_second": job["iterations"] * steps / seconds, "peak_mb": peak_mb()}


def main():
    """Runs the job given as JSON."""
    job = json.loads(sys.argv[1])
    if "threads" in job:
        os.environ["OMP_NUM_THREADS"] = str(job["threads"])
        if job["threads"] == 1:  # JAX
            os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    runners = {"ppo_tf": run_ppo_tf, "random": run_random}
    runners |= {"sb3": run_sb3, "sbx": run_sb3, "cleanrl": run_cleanrl}
    result = runners[job["library"]](job)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
