"""A learning rate that overshoots: the policy gradient is only true nearby.

python examples/overshooting.py

Three slot machines pay 1.0, 0.9 and 0.0 on average. A softmax over three logits climbs the exact
gradient of its expected pay, so nothing here is noise. With a moderate rate it ends at the best
machine. Starting from a policy that mostly plays the worst, a rate that is far too high leaps to
the second best, and hardly a gradient is left to leave it. A trust region bounds such a leap.
"""

import numpy as np

PAY = np.array([1.0, 0.9, 0.0])
START = np.array([-1.0, 0.0, 3.0])  # mostly the worst machine


def policy(logits):
    """Returns the probabilities of the machines."""
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def train(rate, steps=500):
    """Returns the expected pay after each step of gradient ascent."""
    logits, pays = START.copy(), []
    for _ in range(steps):
        p = policy(logits)
        logits += rate * p * (PAY - p @ PAY)  # d pay / d logits
        pays.append(policy(logits) @ PAY)
    return pays


def main():
    """Prints the pay after 1, 10, 100 and 500 steps for several rates."""
    for rate in (1.0, 10.0, 100.0, 1000.0):
        pays = train(rate)
        shown = ", ".join(f"{pays[step - 1]:.3f}" for step in (1, 10, 100, 500))
        print(f"rate {rate:6.0f}: expected pay after 1, 10, 100, 500 steps {shown}")


if __name__ == "__main__":
    main()
