"""Trains PPO on a Gymnasium environment, evaluates the policy and exports it as a SavedModel.

    ppo-tf train --env=Pendulum-v1

Every component is selected by a flag. A flag that is not given takes its value from the --method,
otherwise from the environment's preset, otherwise from the default.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from absl import flags, logging

from ppo_tf.command import ending, parsing, runs, sizes
from ppo_tf.command.declarations import as_text
from ppo_tf.command.settings import SETTINGS
from ppo_tf.types import EnvironmentFailure

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
    "Folder of a run to resume; auto: --logdir or, without it, the newest unfinished run of "
    "--env and --seed, if there is one (default: none).",
    flag_values=FLAGS,
)
DRY_RUN = flags.DEFINE_boolean(
    "dry_run",
    False,
    "Whether to only show the settings, the models and the expected memory.",
    flag_values=FLAGS,
)
CONFIG = flags.DEFINE_string(
    "config",
    None,
    "A run's config.json, to use its settings; flags override them (default: none).",
    flag_values=FLAGS,
)
EXPORT_DIR = flags.DEFINE_string(
    "export_dir",
    None,
    "New folder for the exported policy (default: LOGDIR/policy).",
    flag_values=FLAGS,
)


def define_settings() -> None:
    """Defines a flag for every setting, as text that `given_settings` parses.

    The flags default to None, so that presets apply.
    """
    for name, setting in SETTINGS.items():
        choices = f" One of {', '.join(c.name for c in setting.choices)}." * bool(setting.choices)
        flag: flags.Flag[str] = flags.Flag(
            flags.ArgumentParser(),
            None,
            name,
            None,
            f"{setting.full_help}{choices} (default: {as_text(setting.default)})",
            boolean=setting.type is bool,
        )
        flags.DEFINE_flag(flag, FLAGS)


define_settings()


def given_settings() -> dict[str, Any]:
    """Returns the settings that were given as flags.

    Raises:
        ValueError: a value is invalid.
    """
    given = {name: FLAGS[name].value for name in SETTINGS}
    return {name: SETTINGS[name].parse(text) for name, text in given.items() if text is not None}


def start(words: list[str]) -> int:
    """Starts the run that the flags describe; returns the exit code."""
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
        print(f"{plan.logdir} is finished; to train longer, raise --total_steps")
        return 0
    sizes.check_sizes({name: setting.value for name, setting in plan.settings.items()})
    if ENV.value is None:
        parsing.name_module(plan.env_id, CONFIG.value or plan.logdir)
    # Imports TensorFlow, which takes seconds; help and errors in flags should not wait for it.
    from ppo_tf.command import running

    logging.set_verbosity(logging.WARNING)  # TensorFlow logs every file it saves
    return running.dry_run(plan) if DRY_RUN.value else running.perform(plan)


def main(argv: Sequence[str]) -> int:
    """Runs the command.

    Args:
        argv: arguments after the command's name.

    Returns:
        The exit code: 0; 1 after a NaN or infinity or an environment's failure, or if a file could
        not be written; 2 if the run did not start; 130 after Ctrl-C, 143 after SIGTERM, 129 after
        SIGHUP.
    """
    errors = (*parsing.ERRORS, FloatingPointError, EnvironmentFailure)
    with ending.like_ctrl_c():
        code = parsing.run(start, FLAGS, argv, description=__doc__, errors=errors)
    ending.despite_threads(code)
    return code
