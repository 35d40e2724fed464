"""Starts the training command in a separate process, and reads what it writes."""

import csv
from pathlib import Path

import forked

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


def start(cwd, *arguments, python=(), env_path=None, **options):
    """Starts the command in a separate process; see `forked.start` for the options.

    The folder of the file `env_path` becomes one that it imports from.
    """
    paths = [] if env_path is None else [Path(env_path).parent]
    return forked.start([*python, str(SCRIPT), *arguments], cwd=cwd, paths=paths, **options)


def read_csv(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def without_times(rows):
    """Returns rows of logs without times."""
    return [{n: v for n, v in row.items() if not n.startswith("time/")} for row in rows]
