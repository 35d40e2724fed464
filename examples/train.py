"""Trains PPO on a Gymnasium environment: the command `ppo-tf train`, from a clone.

python examples/train.py --env=Pendulum-v1
"""

import sys

from ppo_tf.command.train import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
