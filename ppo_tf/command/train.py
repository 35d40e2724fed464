"""Trains PPO on a Gymnasium environment, evaluates the policy and exports it as a SavedModel.

    ppo-tf train --env=Pendulum-v1

Every component is chosen by a flag; a flag left out takes the environment's preset, then the
default.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from absl import flags, logging

from ppo_tf.command import parsing, runs
from ppo_tf.command.declarations import as_text
from ppo_tf.command.settings import SETTINGS

FLAGS = flags.FlagValues()

ENV = flags.DEFINE_string(
    "env",
    None,
    "Gymnasium id of the environment, such as Pendulum-v1. Required.",
    flag_values=FLAGS,
)
LOGDIR = flags.DEFINE_string(
    "logdir",
    None,
    "New folder for the run's files (default: runs/ENV-seedSEED-TIME).",
    flag_values=FLAGS,
)
RESUME = flags.DEFINE_string(
    "resume",
    None,
    "Folder of a run to go on with; auto: --logdir or, without it, the newest unfinished run of "
    "--env and --seed, if there is one (default: none).",
    flag_values=FLAGS,
)
DRY_RUN = flags.DEFINE_boolean(
    "dry_run",
    False,
    "Whether to show the settings, models and expected memory only.",
    flag_values=FLAGS,
)
CONFIG = flags.DEFINE_string(
    "config",
    None,
    "A run's config.json, whose settings count unless flags say otherwise (default: none).",
    flag_values=FLAGS,
)
EXPORT_DIR = flags.DEFINE_string(
    "export_dir",
    None,
    "New folder for the exported policy (default: LOGDIR/policy).",
    flag_values=FLAGS,
)


def define_settings() -> None:
    """Makes a flag of every setting, a text that `given_settings` turns into the value.

    The flags have no value of their own, so that presets apply.
    """
    for name, setting in SETTINGS.items():
        choices = f" One of {', '.join(c.name for c in setting.choices)}." * bool(setting.choices)
        flag: flags.Flag[str] = flags.Flag(
            flags.ArgumentParser(),
            None,
            name,
            None,
            f"{setting.help}{choices} (default: {as_text(setting.default)})",
            boolean=setting.type is bool,
        )
        flags.DEFINE_flag(flag, FLAGS)


define_settings()


def given_settings() -> dict[str, Any]:
    """The settings that flags were given for.

    Raises:
        ValueError: a value that does not suit its setting.
    """
    given = {name: FLAGS[name].value for name in SETTINGS}
    return {name: SETTINGS[name].parse(text) for name, text in given.items() if text is not None}


def start(words: list[str]) -> int:
    """Starts what the flags ask for; returns the exit code."""
    del words  # there are none
    plan = runs.plan(
        ENV.value,
        given_settings(),
        logdir=LOGDIR.value,
        export_dir=EXPORT_DIR.value,
        resume=RESUME.value,
        config=CONFIG.value,
    )
    if plan.finished:
        print(f"{plan.logdir} is finished; for more: --total_steps")
        return 0
    # This imports TensorFlow, which takes seconds. Neither help nor an error in the flags waits.
    from ppo_tf.command import running

    logging.set_verbosity(logging.WARNING)  # TensorFlow's notes on every file it saves
    return running.dry_run(plan) if DRY_RUN.value else running.perform(plan)


def main(argv: Sequence[str]) -> int:
    """Runs the command.

    Args:
        argv: words after the command's name.

    Returns:
        The exit code: 0, 1 after a number that is not finite or a file that could not be written,
        2 where nothing was begun, 130 after Ctrl-C.
    """
    errors = (*parsing.ERRORS, FloatingPointError)
    return parsing.run(start, FLAGS, argv, description=__doc__, errors=errors)
