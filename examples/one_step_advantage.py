"""Advantages by hand: a grid of three cells, where one step to the left or right ends the episode.

python examples/one_step_advantage.py

From the middle, right leads to the goal (reward 1) and left to nothing (reward 0). A policy that
goes right with probability p has V = p 1 + (1 - p) 0 = p, and so A(right) = 1 - p, A(left) = -p: an
action is judged by how much better it is than what the policy does on average. An agent that always
goes right gets no signal from going right.
"""

import ppo_tf  # first, so that TensorFlow loads without its start-up messages
import tensorflow as tf


def advantages(p):
    """Returns (A(left), A(right)) of the policy, computed by GAE from two one-step episodes."""
    ends = tf.constant([[True, True]])
    found, _ = ppo_tf.GAE(gamma=0.99, gae_lambda=0.95)(
        rewards=tf.constant([[0.0, 1.0]]),  # left, right
        values=tf.constant([[p, p]]),  # V(middle)
        next_values=tf.zeros((1, 2)),  # of a terminal state; ignored
        terminated=ends,
        truncated=~ends,
    )
    return found.numpy()[0]


def main():
    """Prints the advantages of four policies; their mean under the policy is 0."""
    for p in (0.1, 0.5, 0.9, 1.0):
        left, right = advantages(p)
        mean = (1 - p) * left + p * right
        print(f"p = {p}: A(left) = {left:5.2f}, A(right) = {right:5.2f}, mean {mean:5.2f}")


if __name__ == "__main__":
    main()
