"""Faults of an environment, stepping in turn and in processes: named, without a hang."""

import os
import pickle
import re
import signal
import time

import faulty
import numpy as np
import pytest
import tensorflow as tf
import train_command
from gymnasium.vector import AutoresetMode
from train_command import TINY

import ppo_tf
from ppo_tf.environments import stepping, waiting

SEED = 14  # with which environment 1, and no other, is bad
PROCESSES = os.name == "posix"
WHAT = {
    "raise": "raised RuntimeError at its step 20: the motor\nis broken",
    "exit": "raised SystemExit at its step 20: 0",
    "base": "raised BaseException at its step 20: none of yours",
    "unpicklable": "raised Unpicklable at its step 20",
    "thread": "raised RuntimeError at its step 20: a thread is left",
    "reset": "raised RuntimeError in its reset at step 24: no reset",
    "none": "gave an info that is no dict at its step 20: info must be a dict. "
    "Received: None (NoneType)",
    "list": "gave an info that is no dict at its step 20: info must be a dict. "
    "Received: [1, 2] (list)",
    "shape": "gave an observation that does not fit at its step 20: observation must be an array "
    "of shape (3,), float32. Received: an array of shape (1,), float32",
    "words": "gave an observation that does not fit at its step 20: observation must be an array "
    "of shape (3,), float32. Received: 'left' (str)",
    "array": "gave a reward that is no number at its step 20: reward must be a number. "
    "Received: an array of shape (1,), float64",
    "text": "gave a reward that is no number at its step 20: reward must be a number. "
    "Received: '1.5' (str)",
}


def make(fault, backend, **options):
    return ppo_tf.make_envs(f"Faulty-{fault}-v0", 3, seed=SEED, backend=backend, **options)


def step_until_failure(envs):
    """Steps and closes; returns the failure and the seconds that closing took."""
    try:
        with pytest.raises(ppo_tf.EnvironmentFailure) as caught:
            for _ in range(30):
                envs.step(np.zeros(3, int))
    finally:
        start = time.monotonic()
        stepping.close(envs)
    return caught.value, time.monotonic() - start


@pytest.mark.parametrize("backend", ["sync", "async"])
@pytest.mark.parametrize("fault", WHAT)
def test_a_fault_names_the_environment_its_step_and_what_came(fault, backend, monkeypatch):
    monkeypatch.setattr(stepping, "CLOSE_SECONDS", 1.0)
    if (fault, backend) == ("thread", "sync"):
        pytest.skip("the thread would outlive the tests; the command's test has it")
    failure, seconds = step_until_failure(make(fault, backend))
    assert str(failure) == f"environment 1 {WHAT[fault]}"
    assert failure.environment == 1 and failure.step == (24 if fault == "reset" else 20)
    assert seconds < 4


@pytest.mark.parametrize("backend", ["sync", "async"])
@pytest.mark.parametrize("fault", ["raise", "exit", "reset"])
def test_the_frames_are_those_of_the_environment_alone(fault, backend):
    failure, _ = step_until_failure(make(fault, backend))
    files = re.findall(r'File "(.*)", line \d+, in (\w+)', failure.frames)
    assert {file for file, _ in files} == {faulty.__file__}
    assert [name for _, name in files] == (["reset"] if fault == "reset" else ["step", "commit"])


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("backend", ["sync", "async"])
def test_faults_are_named_in_every_auto_reset_mode(mode, backend):
    envs = make("raise", backend, autoreset_mode=mode)
    try:
        with pytest.raises(ppo_tf.EnvironmentFailure, match=r"^environment 1 raised RuntimeError"):
            for _ in range(30):
                _, _, ended, _, _ = envs.step(np.zeros(3, int))
                if mode is AutoresetMode.DISABLED and ended.any():
                    envs.reset(options={"reset_mask": ended})
    finally:
        stepping.close(envs)


@pytest.mark.skipif(not PROCESSES, reason="no signals")
@pytest.mark.parametrize(
    "fault, what",
    [
        ("crash", r"lost its process at its step 20: process \d+ ended with exit code 3"),
        ("kill", r"lost its process at its step 20: process \d+ was killed by SIGKILL"),
        ("stop", r"did not answer at its step 20: waited for .* s, process \d+ is stopped"),
        ("hang", r"did not answer at its step 20: waited for 1\.0 s, process \d+ is running"),
        ("lock", r"raised TypeError at its step 20: cannot pickle '_thread.lock' object"),
    ],
)
def test_a_process_that_does_not_answer_ends_the_wait(fault, what, monkeypatch, caplog):
    monkeypatch.setattr(stepping, "CLOSE_SECONDS", 1.0)
    monkeypatch.setattr(stepping, "STOPPED_SECONDS", 2.0)
    monkeypatch.setattr(waiting, "LONG_WAIT", 0.5)
    limit = {"max_seconds_per_step": 1.0} if fault == "hang" else {}
    failure, seconds = step_until_failure(make(fault, "async", **limit))
    assert re.fullmatch(f"environment 1 {what}", str(failure))
    assert seconds < 4
    said = [message for message in caplog.messages if message.startswith("ended by force")]
    if fault in ("stop", "hang"):  # the others close in time
        assert len(said) == 1 and re.search(r"environments 1 \(process \d+\)$", said[0])
    else:
        assert said == []
    if fault == "stop":
        assert re.search(r"waiting for environment 1 at its step 20 for 1 s", caplog.text)


@pytest.mark.parametrize("backend", ["sync", "async"])
def test_closing_does_not_wait_for_an_environment_that_never_closes(backend, caplog):
    envs = make("close", backend)
    with pytest.raises(ppo_tf.EnvironmentFailure):
        for _ in range(30):
            envs.step(np.zeros(3, int))
    start = time.monotonic()
    stepping.close(envs, seconds=1.0)
    assert time.monotonic() - start < 4
    assert "close" in caplog.text and envs.closed


@pytest.mark.parametrize("backend", ["vector", "envpool"])
def test_a_time_limit_needs_single_environments(backend):
    with pytest.raises(ValueError, match=r"max_seconds_per_step needs backend='sync' or"):
        ppo_tf.make_envs("CartPole-v1", 2, backend=backend, max_seconds_per_step=1.0)


def test_failures_can_be_pickled():
    failure = ppo_tf.EnvironmentFailure(3, "raised OSError", "gone", 812, True, "frames")
    failure.step = 900
    copy = pickle.loads(pickle.dumps(failure))
    assert (
        str(copy) == str(failure) == "environment 3 raised OSError in its reset at step 900: gone"
    )
    assert copy.frames == "frames"


# ---- the command


def run(folder, fault, *flags, timeout=120):
    """Runs the command; returns (exit code, standard output, standard error)."""
    process = train_command.start(folder, *arguments(fault), *flags, env_path=faulty.__file__)
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        process.kill()
    return process.returncode, out, err


def arguments(fault):
    # Two environments; of seed 14's, the second one is bad.
    return [f"--env=faulty:Faulty-{fault}-v0", *TINY, f"--seed={SEED}", "--logdir=run"]


def exported(folder):
    act = tf.saved_model.load(str(folder / "run" / "policy")).signatures["serving_default"]
    return set(act(observation=tf.zeros((3, 3)))["action"].numpy()) <= {0, 1}


@pytest.mark.parametrize(
    "fault, backend",
    [
        ("raise", "sync"),
        ("raise", "async"),
        ("exit", "sync"),
        ("thread", "sync"),
        ("kill", "async"),
    ],
)
def test_the_command_exports_the_last_policy_and_says_how_to_resume(fault, backend, tmp_path):
    code, out, err = run(tmp_path, fault, f"--backend={backend}")
    assert code == 1, err
    lines = err.splitlines()
    what = WHAT.get(fault, "lost its process at its step 20: process").replace("\n", " ")
    assert lines[0].startswith(f"error: environment 1 {what}")
    assert lines[-1] == "to resume: ppo-tf train --resume=run"
    frames = [line for line in lines[1:-1] if line.startswith("  File ")]
    assert all(faulty.__file__ in frame for frame in frames) and bool(frames) == (fault != "kill")
    assert "Traceback" not in err
    assert out.splitlines()[-1] == "policy: run/policy"
    assert exported(tmp_path)
    assert not (tmp_path / "run" / "evaluation.json").exists()


def test_the_policy_is_exported_although_an_environment_never_closes(tmp_path):
    code, out, err = run(tmp_path, "close", "--backend=sync")
    assert code == 1
    assert err.splitlines()[-2:] == [
        "to resume: ppo-tf train --resume=run",
        "WARNING:ppo_tf:the environments did not close within 5 s",
    ]
    assert out.splitlines()[-1] == "policy: run/policy"
    assert exported(tmp_path)


@pytest.mark.skipif(not PROCESSES, reason="no signals")
@pytest.mark.parametrize("backend", ["sync", "async"])
@pytest.mark.parametrize("name, code", [("SIGTERM", 143), ("SIGHUP", 129)])
def test_sigterm_and_sighup_end_a_run_like_ctrl_c(name, code, backend, tmp_path):
    metrics = tmp_path / "run" / "metrics.csv"
    flags = ["--env=CartPole-v1", *TINY, "--total_steps=1000000000", "--logdir=run"]
    process = train_command.start(tmp_path, *flags, f"--backend={backend}", start_new_session=True)
    try:
        deadline = time.monotonic() + 90
        while not metrics.exists() or metrics.read_text().count("\n") < 3:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline, "fewer than two iterations in 90 s"
            time.sleep(0.05)
        os.killpg(process.pid, getattr(signal, name))  # as clusters and terminals do
        os.killpg(process.pid, getattr(signal, name))  # a second one does not cut the export short
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == code
    assert err == f"ended by {name}; to resume: ppo-tf train --resume=run\n"
    assert out.splitlines()[-1] == "policy: run/policy"
    assert (tmp_path / "run" / "policy" / "saved_model.pb").exists()
