"""`python -m ppo_tf`: what there is."""

import sys

from ppo_tf.command.listing import main

if __name__ == "__main__":
    sys.exit(main())
