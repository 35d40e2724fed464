"""What all commands share: parsing of flags, help, and one-line errors."""

import os
import subprocess
import sys

import pytest
from absl import flags

from ppo_tf.command import evaluate, listing, parsing, plot, sweep, train

FLAGS = flags.FlagValues()
flags.DEFINE_string("env", None, "Id of the environment. Required.", flag_values=FLAGS)
flags.DEFINE_integer("episodes", 10, "Episodes to run, count.", flag_values=FLAGS)
flags.DEFINE_enum("mode", "one", ["one", "other"], "How it is done.", flag_values=FLAGS)
flags.DEFINE_boolean("render", False, "Whether a window shows it.", flag_values=FLAGS)
flags.DEFINE_list("out", ["a.png", "a.svg"], "Files to write.", flag_values=FLAGS)
flags.DEFINE_multi_string("grid", [], "Values, repeat for more.", flag_values=FLAGS)
flags.DEFINE_string("logdir", None, "New folder (default: runs/ENV).", flag_values=FLAGS)

DESCRIPTION = """Does nothing.

    ppo-tf nothing --env=E
"""


@pytest.fixture
def run():
    """Runs a command that returns 7: (exit code, [(flags, arguments) that it got])."""

    def run(*argv, **options):
        got = []

        def command(words):
            got.append((FLAGS.flag_values_dict(), words))
            return 7

        return parsing.run(command, FLAGS, argv, description=DESCRIPTION, **options), got

    return run


def test_a_command_gets_its_flags_and_returns_its_code(run):
    code, [(given, words)] = run("--env=E", "--render", "--episodes", "3", "--grid=a", "--grid=b")
    assert (code, words) == (7, [])
    assert (given["env"], given["render"], given["episodes"]) == ("E", True, 3)
    assert (given["grid"], given["mode"]) == (["a", "b"], "one")


def test_a_second_call_starts_from_the_defaults(run):
    _, [(first, _)] = run()
    run("--env=E", "--norender", "--grid=a", "--out=b.png", "--mode=other")
    run("--nonsense")
    assert run() == (7, [(first, [])])


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--episods=3"], "'episods'. Did you mean: episodes ?"),
        (["--episodes=many"], "--episodes=many"),
        (["--mode=third"], "one|other"),
        (["--env"], "Missing value for flag --env"),
        (["--render", "a", "b"], "Only flags are accepted. Received: a b"),
        (["--", "--render"], "Only flags are accepted. Received: --render"),
    ],
)
def test_bad_arguments_are_a_one_line_error_and_nothing_runs(argv, told, run, capsys):
    assert run(*argv) == (2, [])
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ") and err.count("\n") == 1
    assert told in err


def test_arguments_that_are_not_flags_go_to_a_command_that_takes_them(run):
    code, [(given, words)] = run("a", "--episodes=3", "b", words="FOLDER...: what to draw")
    assert (code, given["episodes"], words) == (7, 3, ["a", "b"])


@pytest.mark.parametrize("argv", [["-h"], ["--help"], ["--nonsense", "--help"]])
def test_help_has_a_line_per_flag_and_runs_nothing(argv, run, capsys):
    assert run(*argv, words="FOLDER...: what to draw") == (0, [])
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith(DESCRIPTION)
    assert "Arguments: FOLDER...: what to draw\n" in out
    lines = out.partition("Flags:\n")[2].splitlines()
    assert lines == [
        "  --env: Id of the environment. Required. (default: none)",
        "  --episodes: Episodes to run, count. (default: 10)",
        "  --mode: <one|other>: How it is done. (default: one)",
        "  --[no]render: Whether a window shows it. (default: false)",
        "  --out: Files to write. (default: a.png,a.svg)",
        "  --grid: Values, repeat for more. (default: none)",
        "  --logdir: New folder (default: runs/ENV).",
        "  -h, --help: Prints this text.",
    ]


def test_on_a_terminal_help_fits_its_width(monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "40")
    text = parsing.help_text(FLAGS, "Does nothing.")
    assert max(len(line) for line in text.splitlines()) <= 40
    assert "\n  --env: Id of the environment.\n      Required. (default: none)\n" in text


def test_help_after_two_dashes_is_an_argument(run):
    code, [(_, words)] = run("--", "--help", words="anything")
    assert (code, words) == (7, ["--help"])


@pytest.mark.parametrize(
    ("error", "code", "printed"),
    [
        (ValueError("no good.\nReceived: x=1"), 2, "error: no good. Received: x=1\n"),
        (FileNotFoundError("gone"), 2, "error: gone\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_expected_errors_of_the_command_are_one_line(error, code, printed, capsys):
    def command(words):
        raise error

    assert parsing.run(command, FLAGS, [], description=None) == code
    assert capsys.readouterr() == ("", printed)


def test_other_errors_are_raised_unless_listed(capsys):
    def command(words):
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError):
        parsing.run(command, FLAGS, [], description=None)
    errors = (*parsing.ERRORS, RuntimeError)
    assert parsing.run(command, FLAGS, [], description=None, errors=errors) == 2
    assert capsys.readouterr().err == "error: broken\n"


def test_closing_the_pipe_of_help_causes_no_traceback():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "ppo_tf", "train", "--help"], stdout=writer, stderr=subprocess.PIPE
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


def test_no_flag_is_global():
    ours = set(FLAGS).union(*(module.FLAGS for module in (evaluate, listing, plot, sweep, train)))
    assert not ours & set(flags.FLAGS)
