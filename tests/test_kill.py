"""The training command, killed repeatedly, ends as if nothing had happened."""

import json
import os
import random
import signal
import textwrap
import time

import numpy as np
import pytest
import train_command
from train_command import DEADLY, read_csv, without_times

import ppo_tf

pytestmark = pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")

RUN = [
    "--env=CartPole-v1",
    "--backend=vector",
    "--num_envs=8",
    "--horizon=32",
    "--minibatch_size=64",
    "--epochs=2",
    "--hidden_sizes=8",
    "--nojit_compile",
    "--eval_episodes=3",
    "--checkpoint_every=5120",
    "--resume=auto",
]
# The command, which kills itself at the n-th call that makes a file durable; 0: never.
KILLED_AT = DEADLY + textwrap.dedent(
    """
    import runpy, sys
    from ppo_tf.support import files

    at, sys.argv = int(sys.argv[1]), sys.argv[2:]
    class Deadly:
        fsync, replace = staticmethod(deadly(os.fsync)), staticmethod(deadly(os.replace))
        def __getattr__(self, name):
            return getattr(os, name)

    files.os = Deadly()
    runpy.run_path(sys.argv[0], run_name="__main__")
    """
)


def start(logdir, total_steps, at=0):
    flags = [*RUN, f"--logdir={logdir}", f"--total_steps={total_steps}"]
    return train_command.start(None, *flags, python=("-c", KILLED_AT, str(at)))


def finish(logdir, total_steps):
    out, err = (process := start(logdir, total_steps)).communicate()
    assert (process.returncode, err) == (0, ""), err
    return out


def kill_at_random(logdir, total_steps, rng):
    """Starts the command and kills it, or lets it kill itself while it writes a checkpoint."""
    if rng.random() < 0.4:  # config.json takes three calls; a checkpoint with it and the logs nine
        process = start(logdir, total_steps, at=rng.randint(4, 40))
    else:
        process = start(logdir, total_steps)
        metrics = logdir / "metrics.csv"
        before = metrics.stat().st_mtime_ns if metrics.exists() else 0
        if rng.random() < 0.8:  # in training, otherwise at any moment
            while not metrics.exists() or metrics.stat().st_mtime_ns == before:
                assert process.poll() is None, process.communicate()
                time.sleep(0.005)
            time.sleep(rng.uniform(0.0, 1.0))
        else:
            time.sleep(rng.uniform(0.0, 6.0))
        process.kill()
    _, err = process.communicate()
    assert process.returncode == -signal.SIGKILL, (process.returncode, err)
    assert err == ""


def result(logdir):
    """Returns the results of a run, without times."""
    rows = without_times(read_csv(logdir / "metrics.csv"))
    config = json.loads((logdir / "config.json").read_text())
    variables, values = ppo_tf.Checkpoints(logdir / "checkpoints", run=config["id"]).latest()
    values["run"].pop("seconds")
    values.pop("callbacks")  # sizes of files that contain times
    evaluation = json.loads((logdir / "evaluation.json").read_text())
    return rows, variables, values, evaluation


def assert_same_result(one, other):
    (rows, variables, *rest), (other_rows, other_variables, *other_rest) = one, other
    assert rows == other_rows
    assert rest == other_rest
    assert variables.keys() == other_variables.keys()
    for name, array in variables.items():
        np.testing.assert_array_equal(array, other_variables[name], err_msg=name)


@pytest.mark.parametrize(
    ("kills", "iterations"), [(3, 200), pytest.param(24, 1500, marks=pytest.mark.slow)]
)
def test_a_run_killed_at_random_moments_ends_like_an_uninterrupted_one(kills, iterations, tmp_path):
    total_steps = 256 * iterations
    finish(tmp_path / "whole", total_steps)
    rng = random.Random(kills)
    for kill in range(kills):
        kill_at_random(tmp_path / "killed", total_steps, rng)
        assert not (tmp_path / "killed" / "evaluation.json").exists(), f"finished at kill {kill}"
    finish(tmp_path / "killed", total_steps)
    one, other = result(tmp_path / "whole"), result(tmp_path / "killed")
    assert [row["iteration"] for row in one[0]] == [str(i) for i in range(iterations)]
    assert_same_result(one, other)
    assert "is finished" in finish(tmp_path / "killed", total_steps)
