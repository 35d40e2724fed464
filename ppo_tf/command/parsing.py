"""What all commands share: parsing of flags, help, and one-line errors.

A command is a module with its own flags (`absl.flags.FlagValues`, never the global FLAGS) and
`main(argv) -> int`, so that several can be loaded in one process and each can be called repeatedly.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags

from ppo_tf.command import ending
from ppo_tf.command.declarations import as_text
from ppo_tf.support.telling import tell

ERRORS: tuple[type[Exception], ...] = (
    *(ValueError, ImportError, OSError),
    *(MemoryError, OverflowError),  # a size beyond memory, or beyond what C++ can count
)


def run(
    command: Callable[[list[str]], int],
    values: flags.FlagValues,
    argv: Sequence[str],
    *,
    description: str | None,
    words: str | None = None,
    errors: tuple[type[Exception], ...] = ERRORS,
) -> int:
    """Parses the flags, then runs the command.

    With `-h` or `--help`, prints the description and every flag instead.

    Args:
        command: function of the arguments that are not flags; returns the exit code.
        values: the command's flags; they are reset to their defaults before parsing.
        argv: arguments after the command's name.
        description: beginning of the help text, usually a module's docstring.
        words: description in the help text of the arguments that are not flags; None: the command
            takes none.
        errors: exceptions that the command raises for bad input.

    Returns:
        The exit code: that of the command; 0 after help; 1 if the output is a pipe that was closed;
        2 after a line `error: ...` about a bad flag or one of `errors`; 130 after Ctrl-C
        (128 and the signal's number).
    """
    expected: tuple[type[Exception], ...] = (flags.Error, *errors)
    try:
        if asks_for_help(argv):
            print(help_text(values, description, words), flush=True)
            return 0
        return command(parse(values, argv, words is not None))
    except BrokenPipeError:  # the reader, such as head, has closed the pipe
        # Otherwise flushing the buffer would raise the error again when Python exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except expected as error:
        return fail(error)
    except KeyboardInterrupt as interrupt:
        return ending.exit_code(interrupt)


def fail(error: Exception | str) -> int:
    """Prints a line `error: ...`; returns 2, the exit code for bad input.

    Below an environment's failure come the lines of the traceback in the environment's own code.
    """
    text = str(error)
    if isinstance(error, MemoryError | OverflowError):
        text = f"too large for this machine's memory: {text or type(error).__name__}"
    tell("error: " + " ".join(text.split("\n")))
    if frames := getattr(error, "frames", ""):
        tell(frames.rstrip("\n"))
    return 2


def warn(text: str) -> None:
    """Prints one line of warning."""
    tell(f"warning: {text}")


def name_module(env_id: str, file: object) -> None:
    """Prints a line that names the module that an environment's id imports, if it has one.

    Args:
        env_id: Gymnasium id of the environment, such as module:Env-v0, read from a file.
        file: path of the file, which may be somebody else's.
    """
    module = env_id.rpartition(":")[0]
    if module:
        tell(f"{file} names the module {module}, which is imported")


def parse(values: flags.FlagValues, argv: Sequence[str], takes_words: bool = False) -> list[str]:
    """Sets the flags; returns the arguments that are not flags.

    Raises:
        absl.flags.Error: a flag is unknown (the message suggests similar names) or has a value of
            the wrong type.
        ValueError: there are arguments that are not flags, but the command takes none.
    """
    for name in values:
        values[name].unparse()
    words = values(["ppo-tf", *argv])[1:]
    if words and not takes_words:
        raise ValueError(f"Only flags are accepted. Received: {' '.join(words)}")
    return words


def asks_for_help(argv: Sequence[str]) -> bool:
    """Whether `-h` or `--help` is among the arguments before `--`."""
    ours = argv[: argv.index("--")] if "--" in argv else argv
    return "-h" in ours or "--help" in ours


def help_text(values: flags.FlagValues, description: str | None, words: str | None = None) -> str:
    """Returns the description, then every flag in order of definition, with its help and default.

    Each flag is one line, wrapped to the width of the terminal if there is one.
    """
    entries = [_entry(values[name]) for name in values if name == values[name].name]
    entries.append("-h, --help: Prints this text.")
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
        entries = [textwrap.fill(e, width - 2, subsequent_indent="    ") for e in entries]
    lines = [(description or "").strip(), ""]
    if words is not None:
        lines += [f"Arguments: {words}", ""]
    lines += ["Flags:", textwrap.indent("\n".join(entries), "  ")]
    return "\n".join(lines)


def _entry(flag: flags.Flag[Any]) -> str:
    """Formats a flag as `--name: help (default: value)`; absl puts choices before the help."""
    text = " ".join(flag.help.split())
    text = text.removesuffix("; repeat this option to specify a list of values")
    if "(default:" not in text:
        text += f" (default: {as_text(flag.default)})"
    return f"--{'[no]' if flag.boolean else ''}{flag.name}: {text}"
