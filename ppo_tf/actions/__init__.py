"""Distributions over actions, and the maps from their samples to an environment's actions.

The networks that compute their parameters are in `networks`.
"""

from ppo_tf.actions import distributions as distributions
