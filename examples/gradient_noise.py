"""The gradient's noise against the number of parallel trajectories, and against credit assignment.

python examples/gradient_noise.py

A policy moves a point left or right for 20 steps; each step right pays 1. The policy gradient is
estimated from n trajectories, many times, and its standard deviation compared with its mean. Four
times as many trajectories halve the noise. Reward-to-go, which drops the rewards before an action,
and a baseline each lower it without changing the mean.
"""

import ppo_tf  # first, so that TensorFlow loads without its start-up messages
import numpy as np
import tensorflow as tf

HORIZON, P = 20, 0.7  # steps, probability of a step to the right


def gradients(estimator, trajectories, repeats, baseline=False):
    """Returns estimates of d return / d log-odds of a step to the right, float [repeats]."""
    rng = np.random.default_rng(0)
    right = (rng.random((HORIZON, repeats * trajectories)) < P).astype(np.float32)
    ends = np.zeros(right.shape, bool)
    ends[-1] = True
    left = np.arange(HORIZON, 0, -1, dtype=np.float32)[:, None] * P  # V: P for each step to come
    values = np.broadcast_to(left, right.shape) if baseline else np.zeros_like(right)
    following = np.concatenate([values[1:], np.zeros_like(values[:1])])
    advantages, _ = estimator(
        rewards=tf.constant(right),
        values=tf.constant(values),
        next_values=tf.constant(following),
        terminated=tf.constant(ends),
        truncated=tf.zeros(ends.shape, tf.bool),
    )
    slopes = (right - P) * advantages.numpy()  # d log pi / d log-odds = right - P
    return slopes.sum(axis=0).reshape(repeats, trajectories).mean(axis=1)


def main(repeats=1_000):
    """Prints mean and noise for the estimators and numbers of trajectories."""
    noise = {}
    for name, estimator, baseline in (
        ("whole return", ppo_tf.TrajectoryReturn(gamma=1.0), False),
        ("reward-to-go", ppo_tf.RewardToGo(gamma=1.0, baseline=False), False),
        ("... and baseline", ppo_tf.RewardToGo(gamma=1.0), True),
    ):
        for trajectories in (1, 4, 16, 64):
            found = gradients(estimator, trajectories, repeats, baseline)
            noise[name, trajectories] = found.std()
            print(
                f"{name:16} {trajectories:2} trajectories: gradient {found.mean():5.2f}, "
                f"noise {found.std():5.2f}"
            )
    return noise


if __name__ == "__main__":
    main()
