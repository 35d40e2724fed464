"""Starts the training command in a separate process, and reads what it writes."""

import csv
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "examples" / "train.py"
TINY = [
    "--total_steps=64",
    "--num_envs=2",
    "--horizon=16",
    "--minibatch_size=16",
    "--epochs=1",
    "--eval_episodes=2",
    "--hidden_sizes=4",
    "--nojit_compile",
]
# For a script run by python -c: the `at`-th call of functions wrapped by `deadly` kills it.
DEADLY = """
import os, signal

calls = 0

def deadly(function):
    def call(*arguments, **options):
        global calls
        calls += 1
        if calls == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return call
"""


def start(cwd, *arguments, python=(), env_path=None, **kwargs):
    """Starts the command in a separate process, without this process's TensorFlow variables.

    The folder of the file `env_path` becomes one that it imports from.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TF_CPP_")}
    if env_path is not None:
        paths = [str(Path(env_path).parent), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    return subprocess.Popen(
        [sys.executable, *python, str(SCRIPT), *arguments],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **kwargs,
    )


def read_csv(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def without_times(rows):
    """Returns rows of logs without times."""
    return [{n: v for n, v in row.items() if not n.startswith("time/")} for row in rows]
