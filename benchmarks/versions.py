"""Compares the speed of several checkouts of ppo_tf in turns, so that a noisy machine is fair.

python benchmarks/versions.py --rounds=60 OLD_CHECKOUT NEW_CHECKOUT

Each checkout trains in a process of its own. In every round each makes a few iterations, in random
order; times are compared with those of the first checkout in the same round. Both must run with the
installed packages.
"""

import argparse
import csv
import os
import random
import statistics
import subprocess
import sys

CASES = {  # name: environments, horizon, minibatch size, epochs, iterations per round
    "CartPole-v1": (8, 128, 256, 4, 5),
    "Pendulum-v1": (4, 1024, 64, 10, 1),
}
WORKER = """
import inspect, itertools, sys, time
import ppo_tf

env, num_envs, horizon, minibatch_size, epochs = sys.argv[1], *map(int, sys.argv[2:])
backend, _ = ppo_tf.choose_backend(env, num_envs)
envs = ppo_tf.make_envs(env, num_envs, backend=backend)
known = inspect.signature(ppo_tf.Learner.__init__).parameters
scaling = "reward_transformation" if "reward_transformation" in known else "reward_scaling"
learner = ppo_tf.Learner(
    ppo_tf.mlp_policy(envs, seed=0),
    ppo_tf.mlp_critic(envs, seed=1),
    epochs=epochs,
    minibatch_size=minibatch_size,
    **{scaling: ppo_tf.RewardScaling()},
)
collector = ppo_tf.VectorCollector(envs, learner.policy, horizon)
for iterations in map(int, itertools.chain(["5"], sys.stdin)):
    start, learning = time.perf_counter(), 0.0
    for _ in range(iterations):
        trajectory, _ = collector.collect()
        before = time.perf_counter()
        learner.update(trajectory)
        learning += time.perf_counter() - before
    print(time.perf_counter() - start, learning, flush=True)
"""


def start(checkout, env, sizes):
    """Starts a worker, and waits until it has compiled."""
    worker = subprocess.Popen(
        [sys.executable, "-u", "-c", WORKER, env, *map(str, sizes)],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": checkout},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    if not worker.stdout.readline():
        sys.exit(f"error: {checkout} can't train")
    return worker


def compare(env, checkouts, rounds):
    """Yields (checkout, round, seconds of an iteration, seconds of its update)."""
    *sizes, iterations = CASES[env]
    workers = {checkout: start(checkout, env, sizes) for checkout in checkouts}
    for number in range(rounds):
        for checkout in random.sample(checkouts, len(checkouts)):
            workers[checkout].stdin.write(f"{iterations}\n")
            workers[checkout].stdin.flush()
            seconds = map(float, workers[checkout].stdout.readline().split())
            yield checkout, number, *(round(s / iterations, 6) for s in seconds)
    for worker in workers.values():
        worker.stdin.close()
        worker.wait()


def show(env, rows, checkouts):
    """Prints the medians of the ratios to the first checkout, with quartiles."""
    for checkout in checkouts[1:]:
        found = []
        for column in (2, 3):
            pairs = zip(
                (row[column] for row in sorted(rows, key=lambda r: r[1]) if row[0] == checkout),
                (row[column] for row in sorted(rows, key=lambda r: r[1]) if row[0] == checkouts[0]),
                strict=True,
            )
            low, middle, high = statistics.quantiles([new / old for new, old in pairs], n=4)
            found.append(f"{middle:.3f} ({low:.3f} to {high:.3f})")
        print(f"{env} {checkout}: time of an iteration {found[0]}, of its update {found[1]}")


def main():
    """Runs all cases."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkouts", nargs="+", help="folders, the first to compare with")
    parser.add_argument("--rounds", type=int, default=60, help="turns of each checkout (60)")
    parser.add_argument("--output", help="CSV file for the raw times")
    args = parser.parse_args()
    args.checkouts = [os.path.abspath(checkout) for checkout in args.checkouts]
    everything = []
    for env in CASES:
        rows = list(compare(env, args.checkouts, args.rounds))
        show(env, rows, args.checkouts)
        everything += [(env, *row) for row in rows]
    if args.output:
        with open(args.output, "w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("env", "checkout", "round", "iteration_seconds", "update_seconds"))
            writer.writerows(everything)


if __name__ == "__main__":
    main()
