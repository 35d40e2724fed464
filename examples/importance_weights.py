"""Why importance weights are per step: the product over a trajectory leaves one sample of many.

python examples/importance_weights.py    # draws with the extra `plot`

A policy N(0, 1) acted, the policy N(shift, 1) wants to learn from it. A trajectory's weight is the
product of its steps' ratios. The effective sample size, (sum w)^2 / sum w^2, says how many
unweighted samples the weighted ones are worth. Of n trajectories that is about
n exp(-horizon shift^2); of n single steps n exp(-shift^2), whatever the horizon.
"""

import ppo_tf  # first, so that TensorFlow loads without its start-up messages
import numpy as np
import tensorflow as tf
from matplotlib import pyplot

SHIFT = 0.3  # standard deviations between the two policies' means
HORIZONS = (1, 4, 16, 64, 256)


def main(trajectories=20_000, picture=None):
    """Prints the share of useful samples by horizon; draws it to the file `picture`."""
    rng = np.random.default_rng(0)
    shares = {}
    for horizon in HORIZONS:
        actions = rng.normal(size=(trajectories, horizon))
        log_ratios = SHIFT * actions - 0.5 * SHIFT**2  # log N(a; shift, 1) - log N(a; 0, 1)
        shares[horizon] = (share(log_ratios.sum(axis=1)), share(log_ratios.ravel()))
        print(
            f"horizon {horizon:3}: product of ratios {shares[horizon][0]:7.2%}, "
            f"one ratio per step {shares[horizon][1]:7.2%} of the samples are left"
        )
    if picture:
        draw(shares, picture)
    return shares


def share(log_weights):
    """The effective sample size as a share of the samples."""
    weights = tf.constant(np.exp(log_weights))
    return float(ppo_tf.effective_sample_size(weights, tf.ones(weights.shape, tf.bool)))


def draw(shares, picture):
    """Draws the shares against the horizon."""
    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    for column, label in enumerate(("product over the trajectory", "one ratio per step")):
        axes.loglog(list(shares), [s[column] for s in shares.values()], "o-", label=label)
    axes.set(xlabel="horizon, steps", ylabel="effective sample size, share of the samples")
    axes.legend()
    figure.savefig(picture, dpi=150)
    print(f"picture: {picture}")


if __name__ == "__main__":
    main(picture="importance_weights.png")
