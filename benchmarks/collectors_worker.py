"""One measurement of benchmarks/collectors.py, in a separate process: prints a line of JSON."""

import json
import sys
import time
from pathlib import Path

NUM_ENVS = {"sleeping:Sleeping-v0": 32, "Acrobot-v1": 8}
HORIZON = {"sleeping:Sleeping-v0": 32, "Acrobot-v1": 256}


def resident_mb(pid):
    """Returns the resident memory of a process, in MB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(x.split()[1]) for x in lines if x.startswith("Rss:")) / 1024


def collector_of(job):
    """Returns a collector, its learner or None, and the ids of its workers' processes."""
    import ppo_tf

    env, num_envs, horizon = job["env"], NUM_ENVS[job["env"]], HORIZON[job["env"]]
    if job["what"] == "AsyncVectorEnv":
        envs = ppo_tf.make_envs(env, num_envs, backend="async")
    elif job["collectors"]:
        envs = ppo_tf.make_worker_envs(env, num_envs, collectors=job["collectors"], backend="sync")
    else:
        envs = ppo_tf.make_envs(env, num_envs, backend="sync")
    learner = ppo_tf.Learner(
        ppo_tf.mlp_policy(envs, seed=0),
        ppo_tf.mlp_critic(envs, seed=1),
        epochs=4,
        minibatch_size=256,
    )
    if isinstance(envs, ppo_tf.WorkerEnvs):
        collector = ppo_tf.ParallelCollector(
            envs, learner.policy, horizon, staleness=job.get("staleness", 0)
        )
        pids = [place.handle.pid for place in envs.crew.places]
    else:
        collector, pids = ppo_tf.VectorCollector(envs, learner.policy, horizon), []
    return envs, collector, learner if job.get("train") else None, pids


def main():
    """Measures the job given as JSON."""
    job = json.loads(sys.argv[1])
    envs, collector, learner, pids = collector_of(job)

    def iterate():
        trajectory, _ = collector.collect()
        if learner is not None:
            learner.update(trajectory)

    for _ in range(3):
        iterate()
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < 8.0 or count < 3:
        iterate()
        count += 1
    seconds = time.perf_counter() - start
    row = {"steps_per_second": round(count * collector.horizon * collector.num_envs / seconds, 1)}
    if pids:
        row["worker_mb"] = round(sum(map(resident_mb, pids)) / len(pids), 1)
    envs.close()
    print(json.dumps(row))


if __name__ == "__main__":
    main()
