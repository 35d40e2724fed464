"""Runs an exported policy in its environment, with nothing of ppo_tf inside the policy.

python examples/evaluate.py --policy=runs/NAME/policy --render
python examples/evaluate.py --policy=runs/NAME/policy --video=episode.mp4
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
VIDEO = flags.DEFINE_string(
    "video", None, "New file, .mp4 or .gif, that shows the first episodes (default: none)."
)
VIDEO_EPISODES = flags.DEFINE_integer(
    "video_episodes", 1, "Episodes in the video, count, each of at most 2,000 steps."
)
SEED = flags.DEFINE_integer("seed", 0, "Of the episodes and of drawn actions.")


def load(path):
    """The exported policy's signatures and its metadata."""
    import tensorflow as tf

    if not (path / "saved_model.pb").is_file():
        raise ValueError(f"--policy must be the folder of an exported policy. Received: {path}")
    signatures = tf.saved_model.load(str(path)).signatures
    return signatures, json.loads((path / "assets.extra" / "policy.json").read_text())


class Acting:
    """The exported policy as a function from (observations, seed, starts) to actions.

    The leaves of a Dict or Tuple are arguments and results of their own, and the state of a memory
    goes out and in again, zero where an episode starts.
    """

    def __init__(self, signatures, env_id, sampled):
        envs = ppo_tf.make_envs(env_id, 1)
        self.observation_space = envs.single_observation_space
        self.action_space = envs.single_action_space
        envs.close()
        self.signature = signatures["sample" if sampled else "serving_default"]
        self.arguments = self.signature.structured_input_signature[1]
        self.initial_state = signatures.get("initial_state")
        self.state = {}
        for name, leaf in self._by_argument(ppo_tf.spaces.leaves(self.observation_space)).items():
            known = self.arguments.get(name)
            if known is not None and tuple(known.shape[1:]) != leaf.shape:
                raise ValueError(
                    f"The policy takes {name} of shape {tuple(known.shape[1:])}, and the "
                    f"environment has {leaf.shape}. Received: env={env_id}"
                )

    def __call__(self, observations, seed, starts):
        """Actions as the vector environment takes them."""
        import tensorflow as tf

        given = self._by_argument(ppo_tf.spaces.flatten(self.observation_space, observations))
        if self.initial_state is not None and not self.state:
            self.state = self.initial_state(batch_size=tf.constant(len(starts)))
        for name, state in self.state.items():
            given[name] = tf.where(starts[:, None], tf.zeros_like(state), state)
        given["seed"] = seed
        results = self.signature(**{name: tf.constant(given[name]) for name in self.arguments})
        self.state = {name: x for name, x in results.items() if name.startswith("state_")}
        return self._nested({name: x.numpy() for name, x in results.items()})

    def _by_argument(self, flat):
        """Leaves, or the only one, by the name of the argument that takes them."""
        if not isinstance(flat, dict):
            flat = {"": flat}
        return {ppo_tf.argument_name(path): leaf for path, leaf in flat.items()}

    def _nested(self, results):
        leaves = ppo_tf.spaces.leaves(self.action_space)
        if not isinstance(leaves, dict):
            return results["action"]
        flat = {path: results[ppo_tf.result_name(path)] for path in leaves}
        return ppo_tf.spaces.unflatten(self.action_space, flat)


def run():
    """Runs the episodes, and again those that are recorded; returns what to print."""
    if POLICY.value is None:
        raise ValueError("--policy is required, for instance --policy=runs/NAME/policy.")
    if VIDEO.value is not None:
        ppo_tf.check_video_path(VIDEO.value)
    evaluate = ppo_tf.evaluate  # imports TensorFlow without its start-up messages
    signatures, metadata = load(Path(POLICY.value))
    env_id = ENV.value or metadata["env"]
    result = evaluate(
        Acting(signatures, env_id, SAMPLED.value),
        env_id,
        episodes=EPISODES.value,
        seed=SEED.value,
        num_envs=1 if RENDER.value else 32,
        **({"render_mode": "human"} if RENDER.value else {}),
    )
    lines = [f"return {result.mean:.1f} +- {result.std:.1f} over {EPISODES.value} episodes"]
    if VIDEO.value is not None:
        shown = ppo_tf.record_video(
            Acting(signatures, env_id, SAMPLED.value),
            env_id,
            VIDEO.value,
            episodes=VIDEO_EPISODES.value,
            seed=SEED.value,
        )
        returns = ", ".join(f"{r:.1f}" for r in shown.returns)
        lines.append(f"video: {VIDEO.value}, {sum(shown.lengths):,} steps, return {returns}")
    return lines


def main(argv):
    """Runs everything; returns the exit code."""
    logging.set_verbosity(logging.WARNING)
    try:
        if argv[1:]:
            raise ValueError(f"Only flags are taken. Received: {' '.join(argv[1:])}")
        lines = run()
    except (ValueError, ImportError, OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    print("\n".join(lines))
    return 0


def parse(argv):
    """Parses the flags; a bad one ends the program with one line."""
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        print(f"error: {str(error).replace(chr(10), ' ')}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
