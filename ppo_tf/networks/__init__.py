"""Keras models from observations to distribution parameters and values, and their layers.

An actor with its distribution and action map is a policy: see `policies`.
"""

from ppo_tf.networks import features as features
from ppo_tf.networks import image_networks as image_networks
from ppo_tf.networks import layers as layers
from ppo_tf.networks import models as models
