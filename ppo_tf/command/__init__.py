"""The command line: settings by name, presets, the folder of a run, and what `ppo-tf` does.

Everything it does is done by the packages before it, for which this one does not exist.
"""

from ppo_tf.command import presets as presets
from ppo_tf.command import runs as runs
from ppo_tf.command import settings as settings
