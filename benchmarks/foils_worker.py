"""Trains an algorithm of Stable-Baselines3, run by benchmarks/foils.py."""

import json
import sys
import time

import stable_baselines3
import torch
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecNormalize


def main():
    """Runs the job of the first argument; the last line printed is the result."""
    job = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    envs = make_vec_env(job["env"], n_envs=job["num_envs"], seed=job["seed"])
    raw = envs
    options = dict(job.get("options", {}))
    if job.get("normalize"):
        envs = VecNormalize(envs, gamma=options.get("gamma", 0.99))
    rate = options.get("learning_rate")
    if isinstance(rate, str):
        first = float(rate.removeprefix("linear "))
        options["learning_rate"] = lambda left: left * first
    algorithm = getattr(stable_baselines3, job["algorithm"])
    model = algorithm("MlpPolicy", envs, seed=job["seed"], device="cpu", **options)
    start = time.perf_counter()
    model.learn(job["steps"])
    seconds = time.perf_counter() - start
    episodes = []  # (steps of all environments, return), by steps
    for number in range(job["num_envs"]):
        monitor = raw.envs[number]
        steps = 0
        lengths, returns = monitor.get_episode_lengths(), monitor.get_episode_rewards()
        for length, value in zip(lengths, returns, strict=True):
            steps += length
            episodes.append((steps * job["num_envs"], value))
    test = make_vec_env(job["env"], n_envs=1, seed=job["seed"] + 10_000)
    if job.get("normalize"):
        test = VecNormalize(test, training=False, norm_reward=False)
        test.obs_rms = envs.obs_rms
    returns, _ = evaluate_policy(model, test, n_eval_episodes=100, return_episode_rewards=True)
    found = {"episodes": sorted(episodes), "returns": list(map(float, returns))}
    print(json.dumps({**found, "seconds": seconds}))


if __name__ == "__main__":
    main()
