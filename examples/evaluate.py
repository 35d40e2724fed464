"""Runs an exported policy in its environment, with nothing of ppo_tf inside the policy.

python examples/evaluate.py --policy=runs/NAME/policy --render
"""

import json
import sys
from pathlib import Path

from absl import app, flags, logging

import ppo_tf

POLICY = flags.DEFINE_string("policy", None, "Folder of the exported policy. Required.")
ENV = flags.DEFINE_string(
    "env", None, "Gymnasium id of the environment (default: the one the policy was trained on)."
)
EPISODES = flags.DEFINE_integer("episodes", 10, "Episodes to run, count.")
SAMPLED = flags.DEFINE_boolean("sampled", False, "Whether actions are drawn instead of the mode.")
RENDER = flags.DEFINE_boolean("render", False, "Whether a window shows the environment.")
SEED = flags.DEFINE_integer("seed", 0, "Of the episodes and of drawn actions.")


def load(path, sampled):
    """The exported policy as a function from (observations, seed) to actions, and its metadata."""
    import tensorflow as tf

    if not (path / "saved_model.pb").is_file():
        raise ValueError(f"--policy must be the folder of an exported policy. Received: {path}")
    signatures = tf.saved_model.load(str(path)).signatures
    metadata = json.loads((path / "assets.extra" / "policy.json").read_text())

    def act(observations, seed):
        observation = tf.constant(observations)
        if sampled:
            outputs = signatures["sample"](observation=observation, seed=tf.constant(seed))
        else:
            outputs = signatures["serving_default"](observation=observation)
        return outputs["action"].numpy()

    return act, metadata


def main(argv):
    """Runs the episodes; returns the exit code."""
    del argv
    logging.set_verbosity(logging.WARNING)
    try:
        if POLICY.value is None:
            raise ValueError("--policy is required, for instance --policy=runs/NAME/policy.")
        evaluate = ppo_tf.evaluate  # imports TensorFlow without its start-up messages
        act, metadata = load(Path(POLICY.value), SAMPLED.value)
        result = evaluate(
            act,
            ENV.value or metadata["env"],
            episodes=EPISODES.value,
            seed=SEED.value,
            num_envs=1 if RENDER.value else 32,
            **({"render_mode": "human"} if RENDER.value else {}),
        )
    except (ValueError, ImportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    print(f"return {result.mean:.1f} +- {result.std:.1f} over {EPISODES.value} episodes")
    return 0


if __name__ == "__main__":
    app.run(main)
