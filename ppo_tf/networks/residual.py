"""A residual network with layer normalisation, for actors and critics that gain from size.

Lee et al. 2025 (SimBa, arXiv 2410.09754) for off-policy learning; RN-D (arXiv 2601.23075) for PPO.
"""

from __future__ import annotations

import keras

from ppo_tf.networks.initialization import HIDDEN_GAIN, Seeds, dense
from ppo_tf.support.checks import check_at_least_one
from ppo_tf.types import Tensor

INNER = 4  # units inside a block, for each unit of the width


def residual_network(features: Tensor, width: int, blocks: int, seeds: Seeds) -> Tensor:
    """Applies a projection, residual blocks, and a last layer normalisation.

        x = W features;  x <- x + W2 relu(W1 norm(x)) for each block;  norm(x)

    The way past the blocks is linear, so that depth does not weaken gradients; normalisation keeps
    the size of what the heads see the same while the weights grow.

    Args:
        features: float [B, F].
        width: units of x, at least 1; W1 has four times as many.
        blocks: number of blocks, at least 1.
        seeds: source of the layers' seeds.

    Returns:
        float [B, width].

    Raises:
        ValueError: an argument is out of range.
    """
    check_at_least_one(residual_width=width, residual_blocks=blocks)
    x = dense(width, 1.0, seeds)(features)
    for _ in range(blocks):
        inner = keras.layers.LayerNormalization(epsilon=1e-5)(x)
        inner = dense(INNER * width, HIDDEN_GAIN, seeds, activation="relu")(inner)
        x = keras.layers.Add()([x, dense(width, 1.0, seeds)(inner)])
    return keras.layers.LayerNormalization(epsilon=1e-5)(x)
