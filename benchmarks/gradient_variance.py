"""The policy gradient's noise by advantage estimator, at policies that PPO passes through.

    python benchmarks/gradient_variance.py

For each seed, PPO learns with its preset. After the first update, early and late it stops, and 256
trajectory pieces of one environment each, as long as the longest episode, are collected. Each piece
gives the gradient g of mean(log pi(a|s) A) by each estimator, with the same actions, rewards and
critic. Printed is the noise scale of McCandlish et al. 2018 (arXiv 1812.06162), in steps:

    B = steps of a piece * trace(cov(g)) / |E[g]|^2

a batch of B steps has as much noise as signal. |E[g]|^2 is estimated without bias, as |mean(g)|^2 -
trace(cov(g)) / pieces; where that is not positive, the noise hides the gradient, and B is infinite.
"""

import ppo_tf  # first, so that TensorFlow loads without its start-up messages

# isort: split
import argparse
import csv
from pathlib import Path

import numpy as np
import tensorflow as tf

from ppo_tf.command.presets import resolve

RESULTS = Path(__file__).resolve().parent / "results"
COLUMNS = ["env", "seed", "steps", "estimator", "noise_scale", "variance", "squared_mean"]
EPISODE = {"CartPole-v1": 500, "Pendulum-v1": 200}  # longest, steps
STEPS = {"CartPole-v1": (1024, 10_240, 51_200), "Pendulum-v1": (2048, 20_480, 98_304)}
COLLECTIONS, ENVS = 32, 8  # whose product is the number of pieces


def estimators(gamma):
    """Returns the estimators of the story by name."""
    return {
        "whole return": ppo_tf.TrajectoryReturn(gamma=gamma),
        "reward-to-go": ppo_tf.RewardToGo(gamma=gamma, baseline=False),
        "+ baseline": ppo_tf.RewardToGo(gamma=gamma),
        "n-step, n = 5": ppo_tf.NStep(n=5, gamma=gamma),
        "GAE, lambda = 0.95": ppo_tf.GAE(gamma=gamma, gae_lambda=0.95),
    }


def noise(learner, collector, scale, found):
    """Returns (estimator, noise scale, trace of the covariance, |E[g]|^2) by the weights of now."""
    policy, critic = learner.policy, learner.critic
    variables = policy.trainable_variables

    @tf.function(jit_compile=True)
    def gradient(observations, actions, advantages):
        with tf.GradientTape() as tape:
            log_probs = policy.distribution(observations).log_prob(actions)
            loss = tf.reduce_mean(log_probs * advantages)
        return tf.concat([tf.reshape(g, [-1]) for g in tape.gradient(loss, variables)], 0)

    gradients = {name: [] for name in found}
    for _ in range(COLLECTIONS):
        trajectory, _ = collector.collect()
        shape = trajectory.rewards.shape

        def value(observations, shape=shape):
            return tf.reshape(critic(observations.reshape(-1, observations.shape[-1])), shape)

        for name, estimator in found.items():
            advantages, _ = estimator(
                rewards=tf.constant(trajectory.rewards / scale),
                values=value(trajectory.observations),
                next_values=value(trajectory.next_observations),
                terminated=tf.constant(trajectory.terminated),
                truncated=tf.constant(trajectory.truncated),
            )
            for i in range(shape[1]):
                piece = (trajectory.observations[:, i], trajectory.actions[:, i], advantages[:, i])
                gradients[name].append(gradient(*piece).numpy())
    for name, all_of in gradients.items():
        variance = np.var(all_of, axis=0, ddof=1).sum()
        squared = (np.mean(all_of, axis=0) ** 2).sum() - variance / len(all_of)
        scale_of = shape[0] * variance / squared if squared > 0 else np.inf
        yield name, scale_of, variance, squared


def run(env, seed):
    """Yields the rows of a seed."""
    settings = {name: setting.value for name, setting in resolve(env, {"seed": seed}).items()}
    envs = ppo_tf.make_envs(env, settings["num_envs"], seed=seed)
    learner = ppo_tf.learner_from_settings(envs, settings)
    collector = ppo_tf.VectorCollector(envs, learner.policy, settings["horizon"], seed=seed)
    measured = ppo_tf.VectorCollector(
        ppo_tf.make_envs(env, ENVS, seed=1000 + seed),
        learner.policy,
        EPISODE[env],
        seed=1000 + seed,
    )
    steps = 0
    for until in STEPS[env]:
        while steps < until:
            trajectory, _ = collector.collect()
            learner.update(trajectory)
            steps += trajectory.rewards.size
        # Of the rewards that the critic predicts.
        scale = float(learner.reward_transformation.variance.numpy()) ** 0.5
        for name, *values in noise(learner, measured, scale, estimators(settings["gamma"])):
            yield dict(zip(COLUMNS, (env, seed, steps, name, *values), strict=True))


def main():
    """Measures, writes the CSV and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=10, help="seeds 0 to N-1 (default: 10)")
    args = parser.parse_args()
    rows = []
    for env in EPISODE:
        for seed in range(args.seeds):
            rows += run(env, seed)
            print(env, "seed", seed, flush=True)
    with open(RESULTS / "gradient-variance.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print("| environment | after steps | " + " | ".join(estimators(1.0)) + " |")
    for env, steps in STEPS.items():
        for step in steps:
            cells = []
            for name in estimators(1.0):
                of = [r for r in rows if (r["env"], r["estimator"]) == (env, name)]
                of = [float(r["noise_scale"]) for r in of if r["steps"] == step]
                low, middle, high = np.quantile(of, (0.25, 0.5, 0.75), method="nearest")
                cells.append(f"{middle:,.0f} ({low:,.0f} to {high:,.0f})")
            print(f"| {env} | {step:,} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
