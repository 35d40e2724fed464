"""`python -m ppo_tf` is the command `ppo-tf`; without arguments it lists what there is."""

import sys

from ppo_tf.command.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["list"]))
