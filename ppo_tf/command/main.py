"""The console script `ppo-tf`: selects a command and runs it."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence

from ppo_tf._version import __version__
from ppo_tf.command.parsing import fail

# {name: (module, description)}. A module is imported only when its command is run.
COMMANDS = {
    "train": ("train", "train on an environment, evaluate, export the policy"),
    "evaluate": ("evaluate", "run an exported policy in its environment"),
    "plot": ("plot", "draw learning curves"),
    "sweep": ("sweep", "train many times: seeds, a grid of settings, or a search"),
    "list": ("listing", "list environments with presets, components and extras"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command named by the first argument; returns its exit code.

    Args:
        argv: arguments after `ppo-tf`; by default those of this process.
    """
    first, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if first in ("-h", "--help"):
        print(help_text())
        return 0
    if first == "--version":
        print(f"ppo_tf {__version__}")
        return 0
    if first not in COMMANDS:
        near = difflib.get_close_matches(first, COMMANDS)
        hint = f"Did you mean {' or '.join(near)}?" if near else f"Commands: {', '.join(COMMANDS)}."
        return fail(f"Unknown command. {hint} Received: {first}")
    module, _ = COMMANDS[first]
    command = importlib.import_module(f"ppo_tf.command.{module}")
    code: int = command.main(rest)
    return code


def help_text() -> str:
    """Returns the help text, with a line per command."""
    lines = [f"  {name:10}{what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(
        [
            "Proximal policy optimisation for TensorFlow and Keras 3.",
            "",
            "    ppo-tf train --env=Pendulum-v1",
            "",
            "Commands:",
            *lines,
            "",
            "`ppo-tf COMMAND --help` shows a command's flags, `ppo-tf --version` the version.",
        ]
    )
