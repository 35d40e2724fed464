"""Runs an exported policy in its environment.

ppo-tf evaluate --policy=runs/NAME/policy --render
ppo-tf evaluate --policy=runs/NAME/policy --video=episode.mp4
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from absl import flags

from ppo_tf.command import parsing
from ppo_tf.support.schema import TEXT, check
from ppo_tf.types import NonFiniteError

FLAGS = flags.FlagValues()
POLICY = flags.DEFINE_string(
    "policy", None, "Folder of the exported policy. Required.", flag_values=FLAGS
)
ENV = flags.DEFINE_string(
    "env",
    None,
    "Gymnasium id of the environment (default: the one the policy was trained on).",
    flag_values=FLAGS,
)
EPISODES = flags.DEFINE_integer("episodes", 10, "Number of episodes.", flag_values=FLAGS)
MAX_STEPS = flags.DEFINE_integer(
    "max_steps", 100_000, "Steps after which an episode is cut off.", flag_values=FLAGS
)
SAMPLED = flags.DEFINE_boolean(
    "sampled", False, "Whether to sample actions instead of taking the mode.", flag_values=FLAGS
)
RENDER = flags.DEFINE_boolean(
    "render", False, "Whether to show the environment in a window.", flag_values=FLAGS
)
VIDEO = flags.DEFINE_string(
    "video",
    None,
    "New .mp4 or .gif file to record the first episodes to (default: none).",
    flag_values=FLAGS,
)
VIDEO_EPISODES = flags.DEFINE_integer(
    "video_episodes",
    1,
    "Number of episodes in the video, each cut after 2,000 steps.",
    flag_values=FLAGS,
)
SEED = flags.DEFINE_integer(
    "seed", 0, "Seed of the episodes and of sampled actions.", flag_values=FLAGS
)


def main(argv: Sequence[str]) -> int:
    """Runs the command; returns its exit code."""
    errors = (*parsing.ERRORS, RuntimeError, NonFiniteError)
    return parsing.run(evaluate, FLAGS, argv, description=__doc__, errors=errors)


def evaluate(words: Sequence[str]) -> int:
    """Runs the episodes, runs the first ones again for a video, and prints the returns."""
    if POLICY.value is None:
        raise ValueError("--policy is required, for instance --policy=runs/NAME/policy.")
    if VIDEO.value is None and FLAGS["video_episodes"].present:
        parsing.warn(f"--video_episodes={VIDEO_EPISODES.value} has no effect; it needs --video")
    # TensorFlow takes seconds to import; help and errors in flags should not wait for it.
    from ppo_tf.artefacts.exported import ExportedPolicy, read_metadata
    from ppo_tf.environments.backends import make_envs
    from ppo_tf.evaluating import evaluation, video

    if VIDEO.value is not None:
        video.check_video_path(VIDEO.value)
    env_id = ENV.value or read_metadata(POLICY.value).get("env")
    if env_id is None:
        raise ValueError(
            "--env is required: the policy was exported without the id of its environment. "
            f"Received: --policy={POLICY.value}"
        )
    check(env_id, TEXT, "env")
    if ENV.value is None:
        parsing.name_module(env_id, POLICY.value)
    envs = make_envs(env_id)
    envs.close()
    policy = ExportedPolicy(POLICY.value, envs, deterministic=not SAMPLED.value)
    window: dict[str, Any] = {"num_envs": 1, "render_mode": "human"} if RENDER.value else {}
    result = evaluation.evaluate(
        policy,
        env_id,
        episodes=EPISODES.value,
        seed=SEED.value,
        max_steps=MAX_STEPS.value,
        warn=parsing.warn,
        **window,
    )
    lines = [f"return {result.mean:.1f} +- {result.std:.1f} over {EPISODES.value} episodes"]
    if VIDEO.value is not None:
        shown = video.record_video(
            policy, env_id, VIDEO.value, episodes=VIDEO_EPISODES.value, seed=SEED.value
        )
        returns = ", ".join(f"{r:.1f}" for r in shown.returns)
        lines.append(f"video: {VIDEO.value}, {sum(shown.lengths):,} steps, return {returns}")
    print("\n".join(lines))
    return 0
