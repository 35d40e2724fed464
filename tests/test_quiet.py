"""What TensorFlow prints while it is imported stays away, unless somebody needs it."""

import os
import subprocess
import sys

import forked
import pytest

NOISY = "import os\nos.write(2, b'oneDNN is on')\n"


def imported(script, path, **environment):
    """(exit code, standard error) of a process that runs a script, with modules of `path`."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("TF_CPP_")}
    kept["PYTHONPATH"] = os.pathsep.join([str(path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", script], env=kept | environment, capture_output=True, text=True
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("first", ["keras", "tensorflow", "tensorflow_probability"])
def test_nothing_is_printed_whoever_imports_tensorflow_after_ppo_tf(first, tmp_path):
    assert imported(f"import ppo_tf, {first}; ppo_tf.GAE()", tmp_path) == (0, "")


@pytest.mark.parametrize(
    ("environment", "printed"), [({}, ""), ({"TF_CPP_MIN_LOG_LEVEL": "0"}, "oneDNN is on")]
)
def test_a_log_level_of_the_users_shows_all(environment, printed, tmp_path):
    (tmp_path / "tensorflow.py").write_text(NOISY)
    assert imported("import ppo_tf, tensorflow", tmp_path, **environment) == (0, printed)


def test_looking_for_tensorflow_without_importing_it_changes_nothing(tmp_path):
    (tmp_path / "tensorflow.py").write_text(NOISY)
    script = "import ppo_tf, importlib.util; assert importlib.util.find_spec('tensorflow').origin\n"
    assert imported(script + "import tensorflow", tmp_path) == (0, "")


def test_an_import_that_fails_shows_what_was_held_back(tmp_path):
    (tmp_path / "tensorflow.py").write_text(NOISY + "raise ImportError('no GLIBC')")
    code, err = imported("import ppo_tf, tensorflow", tmp_path)
    assert code == 1
    assert err.startswith("oneDNN is on") and "no GLIBC" in err


FULL = """
import os, sys
os.dup2(os.open("/dev/full", os.O_WRONLY), 2)
from ppo_tf.callbacks.health import HealthAdvice
from ppo_tf.command import parsing, running
parsing.warn("a")
running.say_with_flags("`a`")
HealthAdvice()._say("a")
parsing.name_module("a:b", "c")
sys.exit(parsing.fail("a"))
"""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no full device")
def test_a_full_standard_error_ends_nothing(tmp_path):
    assert forked.run("-c", FULL, cwd=tmp_path)[0] == 2  # not Python's 120
