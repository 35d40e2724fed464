"""Distributions over actions: which one suits an action space, and how its samples become actions.

The networks that compute their parameters are in `networks`.
"""

from ppo_tf.actions import distributions as distributions
