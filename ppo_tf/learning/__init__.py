"""How a trajectory becomes a better policy: advantages, losses, update rules and the learner.

Where trajectories come from is in `collecting`; the loop around both is in `training`.
"""

from ppo_tf.learning import estimators as estimators
from ppo_tf.learning import losses as losses
