"""Gymnasium's spaces as ppo_tf sees them: composites as one-level dicts, and invalid-action masks.

`networks` chooses the network that reads a space, `actions` the distribution that acts in it.
Nothing here imports TensorFlow.
"""

from ppo_tf.spaces import masks as masks
from ppo_tf.spaces.composite import Leaves as Leaves
from ppo_tf.spaces.composite import children as children
from ppo_tf.spaces.composite import flatten as flatten
from ppo_tf.spaces.composite import is_composite as is_composite
from ppo_tf.spaces.composite import leaves as leaves
from ppo_tf.spaces.composite import map_leaves as map_leaves
from ppo_tf.spaces.composite import observed_dtype as observed_dtype
from ppo_tf.spaces.composite import paths as paths
from ppo_tf.spaces.composite import unflatten as unflatten
from ppo_tf.spaces.names import argument_names as argument_names
from ppo_tf.spaces.names import layer_names as layer_names
from ppo_tf.spaces.names import result_names as result_names
