"""What all commands share: from words to flags, help, and errors of one line.

A command is a module with flags of its own (`absl.flags.FlagValues`, never the global FLAGS) and
`main(argv) -> int`, so that several load in one process and each can be called again and again.
"""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags

from ppo_tf.command.declarations import as_text

ERRORS: tuple[type[Exception], ...] = (ValueError, ImportError, OSError)


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

    `-h` and `--help` print the description and every flag, and run nothing.

    Args:
        command: takes the words that are not flags, returns the exit code.
        values: the command's flags, back at their defaults before they are parsed.
        argv: words after the command's name.
        description: what help begins with, a module's docstring.
        words: what help calls the words that are not flags; None: the command takes none.
        errors: what the command raises for bad input.

    Returns:
        The exit code: the command's own; 0 after help, 1 if the reader of the output has gone, 2
        after one line `error: ...` about a bad flag or one of `errors`, 130 after Ctrl-C.
    """
    expected: tuple[type[Exception], ...] = (flags.Error, *errors)
    try:
        if asks_for_help(argv):
            print(help_text(values, description, words), flush=True)
            return 0
        return command(parse(values, argv, words is not None))
    except BrokenPipeError:  # the reader, such as head, has seen enough
        # What is left in the buffer would raise the error again when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except expected as error:
        return fail(error)
    except KeyboardInterrupt:
        return 130


def fail(error: Exception | str) -> int:
    """Prints one line `error: ...`; returns 2, the exit code for bad input."""
    print("error:", " ".join(str(error).split("\n")), file=sys.stderr)
    return 2


def parse(values: flags.FlagValues, argv: Sequence[str], takes_words: bool = False) -> list[str]:
    """Sets the flags; returns the words that are not flags.

    Raises:
        absl.flags.Error: an unknown flag, with near names, or a value of the wrong type.
        ValueError: there are words, but the command takes none.
    """
    for name in values:
        values[name].unparse()
    words = values(["ppo-tf", *argv])[1:]
    if words and not takes_words:
        raise ValueError(f"Only flags are taken. Received: {' '.join(words)}")
    return words


def asks_for_help(argv: Sequence[str]) -> bool:
    """Whether `-h` or `--help` is among the words before `--`."""
    ours = argv[: argv.index("--")] if "--" in argv else argv
    return "-h" in ours or "--help" in ours


def help_text(values: flags.FlagValues, description: str | None, words: str | None = None) -> str:
    """The description, then every flag in the order of definition, with its help and default.

    A flag is one line; a terminal gets it wrapped to its width.
    """
    entries = [_entry(values[name]) for name in values if name == values[name].name]
    entries.append("-h, --help: Prints this text.")
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
        entries = [textwrap.fill(e, width - 2, subsequent_indent="    ") for e in entries]
    lines = [(description or "").strip(), ""]
    if words is not None:
        lines += [f"Words: {words}", ""]
    lines += ["Flags:", textwrap.indent("\n".join(entries), "  ")]
    return "\n".join(lines)


def _entry(flag: flags.Flag[Any]) -> str:
    """`--name: help (default: value)` of a flag; absl has put the choices before the help."""
    text = " ".join(flag.help.split())
    text = text.removesuffix("; repeat this option to specify a list of values")
    if "(default:" not in text:
        text += f" (default: {as_text(flag.default)})"
    return f"--{'[no]' if flag.boolean else ''}{flag.name}: {text}"
