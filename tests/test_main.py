"""`ppo-tf`: selecting a command, and `ppo-tf list`."""

import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType

import gymnasium
import pytest

import ppo_tf
from ppo_tf.command import listing as command
from ppo_tf.command import main as entry
from ppo_tf.command.presets import FAMILIES, PRESETS, preset_of
from ppo_tf.command.settings import CHOICES, SETTINGS
from ppo_tf.support import extras


@pytest.fixture
def listing(capsys, monkeypatch):
    """Returns the output of the command on a terminal of some columns."""

    def run(columns=80):
        monkeypatch.setenv("COLUMNS", str(columns))
        assert command.main([]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        return out

    return run


def words(text):
    """The text without line breaks and columns."""
    return " ".join(text.split())


def section(text, title):
    """The rows below a title."""
    (found,) = re.findall(rf"^{re.escape(title)}.*\n((?:  .*\n)*)", text, flags=re.M)
    return found


@pytest.mark.parametrize(("columns", "widest"), [(80, 80), (200, 100)])
def test_lines_fit_and_have_no_trailing_spaces(listing, columns, widest):
    lengths = [len(line) for line in listing(columns).splitlines()]
    assert widest - 15 < max(lengths) <= widest
    assert not re.search(r" $", listing(columns), flags=re.M)
    assert "\x1b" not in listing(columns)


def test_every_preset_is_listed_with_its_settings(listing):
    rows = section(listing(), "Environments")
    for env_id in [*PRESETS, *(pattern for patterns in FAMILIES for pattern in patterns)]:
        assert re.search(rf"^  {re.escape(env_id)}( |$)", rows, flags=re.M), env_id
    (pendulum,) = re.findall(r"Pendulum-v1 .*?(?=  CartPole)", rows, flags=re.S)
    assert words(pendulum).split()[2:] == [f"{n}={v}" for n, v in preset_of("Pendulum-v1").items()]


@pytest.mark.parametrize(
    ("title", "setting"),
    [
        ("Advantage estimators", "estimator"),
        ("Policy losses", "loss"),
        ("Value losses", "value_loss"),
        ("Learning rate schedules", "learning_rate_schedule"),
        ("Action distributions for Box spaces", "continuous"),
        ("Image networks", "image_network"),
        ("Recurrent cells", "cell"),
        ("Environment back ends", "backend"),
        ("Acting engines", "acting"),
    ],
)
def test_every_choice_is_listed_in_order_with_its_description(listing, title, setting):
    rows = section(listing(200), title)
    assert f"(--{setting})" in listing()
    choices = re.findall(r"^  (\w+)  +\S.*", rows, flags=re.M)
    assert choices == list(CHOICES[setting])
    for choice in SETTINGS[setting].choices:
        expected = f"{choice.name} {choice.component} {choice.text}"
        assert words(expected) in words(rows)


def test_every_setting_with_choices_has_a_list():
    assert set(command.TITLES.values()) == CHOICES.keys()


def test_every_component_is_a_public_name(listing):
    text = listing(200)
    for component in (
        *("GAE", "NStep", "RewardToGo", "Clip", "KLPenalty", "EntropyBonus", "SquaredError"),
        *("Huber", "shared_actor_critic", "nature_cnn", "recurrent_critic"),
    ):
        assert re.search(rf"^  .*\b{component}  +\S", text, flags=re.M), component
    named = [choice.component for setting in SETTINGS.values() for choice in setting.choices]
    named += [choice.component for others in command.OTHERS.values() for choice in others]
    for component in [*filter(None, named), *command.NETWORKS]:
        assert component in ppo_tf.__all__, component


def test_missing_packages_are_shown(listing, monkeypatch):
    def version(name):
        if name == "mujoco":
            raise metadata.PackageNotFoundError(name)
        return "0.0.1" if name == "pytest" else "99"

    monkeypatch.setattr(extras.metadata, "version", version)
    monkeypatch.delitem(gymnasium.registry, "Taxi-v4")
    text = listing(200)
    assert re.search(r"^  HalfCheetah-v5 +needs \[mujoco\] +total_steps=", text, flags=re.M)
    assert re.search(r"^  Taxi-v4 +not in this Gymnasium +total_steps=", text, flags=re.M)
    assert re.search(r"^  Pendulum-v1 +installed +total_steps=", text, flags=re.M)
    assert re.search(r"^  mujoco +missing: mujoco", text, flags=re.M)
    assert re.search(r"^  test +missing: pytest>=\d+, not 0.0.1$", text, flags=re.M)


def test_extras_of_extras_count(monkeypatch):
    """As ppo_tf's dev includes its test; requirements without an extra belong to none."""
    requirements = {
        "ppo_tf": ["numpy>=2", "one[b]>=1 ; extra == 'a'", "two ; extra == 'c'"],
        "one": ["three<2; extra == 'b'", "four; extra == 'b' and python_version < '3'", "five"],
    }
    there = {"one": "1.5", "three": "2.0"}
    monkeypatch.setattr(extras.metadata, "requires", requirements.get)

    def version(name):
        if name not in there:
            raise metadata.PackageNotFoundError(name)
        return there[name]

    monkeypatch.setattr(extras.metadata, "version", version)
    assert extras.missing("a") == ["three<2, not 2.0"]
    there["three"] = "1.9"
    assert extras.missing("a") == []
    assert extras.missing("c") == ["two"]


def test_a_missing_installation_is_a_one_line_error(capsys, monkeypatch):
    def requires(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(extras.metadata, "requires", requires)
    assert command.main([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ") and "ppo_tf" in err and err.count("\n") == 1


def test_help_describes_the_command(capsys):
    assert command.main(["--help"]) == 0
    assert "Lists the environments with tuned settings" in words(capsys.readouterr().out)


def test_it_imports_no_tensorflow_and_prints_no_errors():
    code = "import sys, runpy; runpy.run_module('ppo_tf', run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert all(line.startswith("import time:") for line in done.stderr.splitlines())
    assert not re.search(r" (tensorflow|keras)$", done.stderr, flags=re.M)


def test_closing_the_pipe_causes_no_traceback():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "ppo_tf"], stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


# ---- the commands


def test_the_console_script_is_the_entry_point():
    tomllib = pytest.importorskip("tomllib")  # new in Python 3.11
    root = Path(ppo_tf.__file__).parents[1]
    scripts = tomllib.loads((root / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts.keys() == {"ppo-tf"}
    point = metadata.EntryPoint("ppo-tf", scripts["ppo-tf"], "console_scripts")
    assert point.load() is entry.main


def test_a_command_gets_its_arguments_and_returns_its_exit_code(monkeypatch):
    seen = []
    for name, (module, _) in entry.COMMANDS.items():
        fake = ModuleType(module)
        fake.main = lambda argv, name=name: seen.append((name, list(argv))) or len(seen)
        monkeypatch.setitem(sys.modules, f"ppo_tf.command.{module}", fake)
    for code, name in enumerate(entry.COMMANDS, start=1):
        assert entry.main([name, "--env=E", "word"]) == code
        assert seen[-1] == (name, ["--env=E", "word"])
    monkeypatch.setattr(sys, "argv", ["ppo-tf", "plot", "runs"])
    entry.main()
    assert seen[-1] == ("plot", ["runs"])


@pytest.mark.parametrize("words_given", [[], ["--help"], ["-h"]])
def test_help_names_every_command(words_given, capsys):
    assert entry.main(words_given) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for name, (_, what) in entry.COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(what)}$", out, flags=re.M)


def test_the_version_is_printed(capsys):
    assert entry.main(["--version"]) == 0
    assert capsys.readouterr() == (f"ppo_tf {ppo_tf.__version__}\n", "")


@pytest.mark.parametrize(
    ("word", "told"),
    [("trian", "Did you mean train?"), ("xyz", "Commands: train, evaluate, plot, sweep, list.")],
)
def test_an_unknown_command_is_a_one_line_error_with_similar_names(word, told, capsys):
    assert entry.main([word]) == 2
    expected = f"error: Unknown command. {told} Received: {word}\n"
    assert capsys.readouterr() == ("", expected)


@pytest.mark.parametrize("arguments", [["train", "--help"], ["list"], ["train", "--gama=1"]])
def test_quick_commands_do_not_import_tensorflow(arguments):
    code = (
        "import sys; from ppo_tf.command.main import main; main(sys.argv[1:]);"
        "sys.exit(any(name in sys.modules for name in ('tensorflow', 'keras')))"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True)
    assert done.returncode == 0
