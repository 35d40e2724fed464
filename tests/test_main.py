"""`python -m ppo_tf`: the list of what there is."""

import inspect
import os
import re
import subprocess
import sys
from importlib import metadata

import gymnasium
import pytest

import ppo_tf
from ppo_tf.command import listing as command
from ppo_tf.command.presets import CHOICES, FAMILIES, PRESETS, preset_of
from ppo_tf.networks import image_networks
from ppo_tf.support import extras


@pytest.fixture
def listing(capsys, monkeypatch):
    """What the command prints where a terminal has so many columns."""

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
def test_lines_fit_and_end_in_no_spaces(listing, columns, widest):
    lengths = [len(line) for line in listing(columns).splitlines()]
    assert widest - 15 < max(lengths) <= widest
    assert not re.search(r" $", listing(columns), flags=re.M)
    assert "\x1b" not in listing(columns)


def test_every_preset_is_there_with_its_settings(listing):
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
        ("Action distributions for Boxes", "continuous"),
        ("Networks for images", "image_network"),
        ("Memories", "cell"),
        ("Back ends", "backend"),
        ("Engines", "acting"),
    ],
)
def test_every_choice_is_there_in_order_and_says_what_it_is(listing, title, setting):
    rows = section(listing(), title)
    assert f"(--{setting})" in listing()
    choices = re.findall(r"^  (\w+)  +\S.*", rows, flags=re.M)
    assert choices == list(CHOICES[setting])


def test_components_are_described_by_their_docstrings(listing):
    text = words(listing(200))
    for component in (
        *(ppo_tf.GAE, ppo_tf.NStep, ppo_tf.RewardToGo, ppo_tf.Clip, ppo_tf.KLPenalty),
        *(ppo_tf.EntropyBonus, ppo_tf.SquaredError, ppo_tf.Huber, ppo_tf.shared_actor_critic),
        *(image_networks.nature_cnn, ppo_tf.recurrent_critic),
    ):
        first = words(inspect.getdoc(component).split("\n\n")[0])
        # A column is too narrow for most; its words stand one after the other all the same.
        assert f"{component.__name__} {first}" in text, component


def test_what_is_not_installed_is_told(listing, monkeypatch):
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
    """ppo_tf's dev has ppo_tf's test; what is needed without an extra is of none."""
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


def test_without_a_package_the_error_is_one_line(capsys, monkeypatch):
    def requires(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(extras.metadata, "requires", requires)
    assert command.main([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ") and "ppo_tf" in err and err.count("\n") == 1


def test_help_says_what_it_does(capsys):
    with pytest.raises(SystemExit) as end:
        command.main(["--help"])
    assert end.value.code == 0
    assert "Lists the environments with tuned settings" in words(capsys.readouterr().out)


def test_it_needs_no_tensorflow_and_says_nothing_else():
    code = "import sys, ppo_tf.__main__ as m; m.main([]); sys.exit('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_reader_that_leaves_is_no_traceback():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "ppo_tf"], stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")
