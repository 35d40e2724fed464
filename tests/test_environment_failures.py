"""Faults of an environment, stepping in turn and in processes: named, without a hang."""

import multiprocessing
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
from faulty_envs import SEED, make, step_until_failure
from gymnasium.vector import AutoresetMode
from train_command import TINY

import ppo_tf
from ppo_tf.environments import failures, stepping, waiting

PROCESSES = os.name == "posix"
WHAT = {
    "raise": "raised RuntimeError at its step 20: the motor\nis broken",
    "exit": "raised SystemExit at its step 20: 0",
    "base": "raised BaseException at its step 20: none of yours",
    "unpicklable": "raised Unpicklable at its step 20",
    "thread": "raised RuntimeError at its step 20: a thread is left",
    "generator": "raised GeneratorExit at its step 20",
    "iteration": "raised StopIteration at its step 20",
    "recursion": "raised RecursionError at its step 20: maximum recursion depth exceeded",
    "none": "gave an info that is no dict at its step 20: info must be a dict. "
    "Received: None (NoneType)",
    "list": "gave an info that is no dict at its step 20: info must be a dict. "
    "Received: [1, 2] (list)",
    "shape": "gave an observation that does not fit at its step 20: observation must be an array "
    "of shape (3,), float32. Received: an array of shape (1,), float32",
    "words": "gave an observation that does not fit at its step 20: observation must be an array "
    "of shape (3,), float32. Received: 'left' (str)",
    "complex": "gave an observation that does not fit at its step 20: observation must be an array "
    "of shape (3,), float32. Received: an array of shape (3,), complex64",
    "three": "raised ValueError at its step 20: not enough values to unpack (expected 5, got 3)",
    "array": "gave a reward that is no number at its step 20: reward must be a number. "
    "Received: an array of shape (1,), float64",
    "text": "gave a reward that is no number at its step 20: reward must be a number. "
    "Received: '1.5' (str)",
}


@pytest.mark.parametrize("backend", ["sync", "async"])
@pytest.mark.parametrize("fault", WHAT)
def test_a_fault_names_the_environment_its_step_and_what_came(fault, backend, monkeypatch):
    monkeypatch.setattr(stepping, "CLOSE_SECONDS", 1.0)
    if (fault, backend) == ("thread", "sync"):
        pytest.skip("the thread would outlive the tests; the command's test has it")
    failure, seconds = step_until_failure(make(fault, backend))
    assert str(failure).startswith(f"environment 1 {WHAT[fault]}")
    assert failure.environment == 1 and failure.step == 20
    assert seconds < 4


@pytest.mark.parametrize("backend", ["sync", "async"])
@pytest.mark.parametrize("place", ["again", faulty.AT])
@pytest.mark.parametrize("fault", ["raise", "exit"])
def test_the_frames_are_those_of_the_environment_alone(fault, place, backend):
    failure, _ = step_until_failure(make(fault, backend, place))
    if place == "again":
        assert "in its reset at step 24" in str(failure)
    files = re.findall(r'File "(.*)", line \d+, in (\w+)', failure.frames)
    assert {file for file, _ in files} == {faulty.__file__}
    assert [name for _, name in files] == ["reset" if place == "again" else "step", "commit"]


@pytest.mark.parametrize("place", ["again", faulty.AT])
def test_an_interrupt_that_an_environment_raises_in_its_process_is_its_failure(place):
    failure, _ = step_until_failure(make("interrupt", "async", place))
    assert str(failure).startswith("environment 1 raised Stopped") and "in commit" in failure.frames


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
        ("hang", r"did not answer at its step 20: waited for .* s, process \d+ is running"),
        ("lock", r"raised TypeError at its step 20: cannot pickle '_thread.lock' object"),
    ],
)
def test_a_process_that_does_not_answer_ends_the_wait(fault, what, monkeypatch, caplog):
    monkeypatch.setattr(stepping, "CLOSE_SECONDS", 1.0)
    monkeypatch.setattr(stepping, "STOPPED_SECONDS", 0.8)
    monkeypatch.setattr(waiting, "LONG_WAIT", 0.3)
    monkeypatch.setattr(waiting, "LOOK_EVERY", 0.2)
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
        assert re.search(
            r"waiting for environment 1 at its step 20 for \d+ s: process \d+ is stopped",
            caplog.text,
        )


@pytest.mark.parametrize("backend", ["sync", "async"])
def test_closing_does_not_wait_for_an_environment_that_never_closes(backend, caplog):
    envs = make("stuck", backend)
    with pytest.raises(ppo_tf.EnvironmentFailure):
        for _ in range(30):
            envs.step(np.zeros(3, int))
    start = time.monotonic()
    stepping.close(envs, seconds=1.0)
    assert time.monotonic() - start < 4
    assert "close" in caplog.text and envs.closed


@pytest.mark.parametrize("backend", ["sync", "async"])
@pytest.mark.parametrize("place", ["make", "make3", "reset"])
def test_faults_before_the_first_step_are_named(place, backend, monkeypatch):
    monkeypatch.setattr(faulty.Faulty, "made", 0)
    with pytest.raises(ppo_tf.EnvironmentFailure) as caught:
        make("value", backend, place, context="fork" if PROCESSES else None)
    who = {
        "make": "an environment",  # the trial
        "make3": "environment 1" if backend == "sync" else "environment [012]",  # the first to say
        "reset": "environment 1",
    }[place]
    when = "in its first reset" if place == "reset" else "while it was made"
    assert re.fullmatch(f"{who} raised ValueError {when}: no such motor", str(caught.value))
    assert caught.value.frames.count(faulty.__file__) == 2
    assert not multiprocessing.active_children()


@pytest.mark.skipif(not PROCESSES, reason="no signals")
@pytest.mark.parametrize("place", ["make", "reset"])
@pytest.mark.parametrize("fault, how", [("crash", "ended with exit code 3"), ("kill", "SIGKILL")])
def test_a_process_lost_before_the_first_step_is_named(fault, how, place, monkeypatch):
    monkeypatch.setattr(faulty.Faulty, "made", 0)
    with pytest.raises(ppo_tf.EnvironmentFailure, match=f"lost its process .*{how}") as caught:
        make(fault, "async", "make3" if place == "make" else place, context="fork")
    when = {"make": "while it was made", "reset": "in its first reset"}[place]
    assert when in str(caught.value)
    assert not multiprocessing.active_children()


@pytest.mark.skipif(not PROCESSES, reason="no signals")
@pytest.mark.parametrize("place", ["make3", "reset"])
def test_a_process_stopped_before_the_first_step_is_named(place, monkeypatch):
    monkeypatch.setattr(faulty.Faulty, "made", 0)
    monkeypatch.setattr(stepping, "CLOSE_SECONDS", 0.5)
    monkeypatch.setattr(stepping, "STOPPED_SECONDS", 0.4)
    monkeypatch.setattr(waiting, "LOOK_EVERY", 0.2)
    with pytest.raises(ppo_tf.EnvironmentFailure, match=r"did not answer .* is stopped$"):
        make("stop", "async", place, context="fork")
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("backend", ["sync", "async"])
def test_a_fault_while_closing_is_a_line_in_the_log(backend, capfd, monkeypatch):
    # pytest's own handlers would keep what a forked process logs in that process
    monkeypatch.setattr(failures._LOG, "warning", lambda *said: os.write(2, repr(said).encode()))
    envs = make("exit", backend, "close")
    envs.step(np.zeros(3, int))
    stepping.close(envs)
    said = ("%s raised %s while it was closed: %s", "environment 1", "SystemExit", "0")
    assert capfd.readouterr().err == repr(said)


def test_all_environments_are_closed_although_one_fails(caplog):
    envs = make("raise", "sync", "close")
    closed = []
    envs.envs[2].unwrapped.close = lambda: closed.append(2)
    envs.step(np.zeros(3, int))
    stepping.close(envs)
    assert closed == [2]


def test_a_module_that_fails_is_named(tmp_path, monkeypatch):
    (tmp_path / "broken_module.py").write_text("import sys\n\nsys.exit(0)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ppo_tf.EnvironmentFailure, match="raised SystemExit while it was made") as e:
        ppo_tf.make_envs("broken_module:X-v0")
    assert re.findall(r'File "(.*)", line (\d)', e.value.frames) == [
        (str(tmp_path / "broken_module.py"), "3")
    ]


def test_an_argument_that_an_environment_refuses_is_the_callers_error():
    with pytest.raises(ValueError, match="no such motor"):
        ppo_tf.make_envs("Faulty-raise-20-v0", 1, backend="sync", fault="value", place="make")
    with pytest.raises(TypeError, match="wings"):
        ppo_tf.make_envs("CartPole-v1", 1, backend="sync", wings=2)


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


def arguments(fault, place=faulty.AT):
    # Two environments; of seed 14's, the second one is bad.
    return [f"--env=faulty:Faulty-{fault}-{place}-v0", *TINY, f"--seed={SEED}", "--logdir=run"]


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
    code, out, err = run(tmp_path, fault, f"--backend={backend}", "--max_restarts=0")
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
    code, out, err = run(tmp_path, "stuck", "--backend=sync", "--max_restarts=0")
    assert code == 1
    assert err.splitlines()[-2:] == [
        "to resume: ppo-tf train --resume=run",
        "WARNING:ppo_tf:the environments did not close within 5 s",
    ]
    assert out.splitlines()[-1] == "policy: run/policy"
    assert exported(tmp_path)


@pytest.mark.skipif(not PROCESSES, reason="no signals")
@pytest.mark.parametrize(
    "name, code, backend",
    [
        ("SIGTERM", 143, "async"),
        ("SIGHUP", 129, "sync"),
        pytest.param("SIGTERM", 143, "sync", marks=pytest.mark.slow),
        pytest.param("SIGHUP", 129, "async", marks=pytest.mark.slow),
    ],
)
def test_sigterm_and_sighup_end_a_run_like_ctrl_c(name, code, backend, tmp_path):
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        pytest.skip("hang-ups are ignored here, as under nohup, and a run then ignores them too")
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
