"""The command line `ppo-tf`: settings, presets, run folders and the commands.

The other packages do the work, and none of them imports this one.
"""

from ppo_tf.command import presets as presets
from ppo_tf.command import runs as runs
from ppo_tf.command import settings as settings
