"""The commands besides training: their help needs neither a clone nor TensorFlow."""

import re
import subprocess
import sys

import pytest

from ppo_tf.command import evaluate, plot, sweep

COMMANDS = {"evaluate": evaluate, "plot": plot, "sweep": sweep}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_names_every_flag_and_imports_no_large_package(name, tmp_path):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "ppo_tf", name, "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    for flag in COMMANDS[name].FLAGS:
        assert re.search(rf"^  --(\[no\])?{flag}: ", done.stdout, flags=re.MULTILINE), flag
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "ppo_tf" in imported
    assert not imported & {"tensorflow", "keras", "matplotlib", "scipy", "optuna"}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", COMMANDS)
def test_the_commands_shown_in_help_parse(name):
    """Includes values of flags and arguments after --, as one would type them."""
    module = COMMANDS[name]
    lines = re.findall(r"^ *(ppo-tf (?:.*\\\n)*.*)", module.__doc__, flags=re.MULTILINE)
    assert lines
    for line in lines:
        words = line.replace("\\\n", " ").replace('"', "").split()
        ours = words[2 : words.index("--")] if "--" in words else words[2:]
        flags = [word for word in ours if word.startswith("--")]
        assert words[:2] == ["ppo-tf", name]
        assert {word[2:].partition("=")[0] for word in flags} <= set(module.FLAGS)
