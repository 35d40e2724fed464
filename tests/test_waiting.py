"""Long waits for environments stepped in turn: mentioned, and ended where that can be done."""

import concurrent.futures
import gc
import os
import re
import signal
import time
import weakref

import faulty
import numpy as np
import pytest
from faulty_envs import make, step_until_failure

import ppo_tf
from ppo_tf.environments import stepping, waiting

PROCESSES = os.name == "posix"


@pytest.mark.skipif(not PROCESSES, reason="no signals")
@pytest.mark.parametrize("fault, place", [("hang", 20), ("hang", "again"), ("spin", 20)])
def test_a_step_in_this_process_is_mentioned_and_ended(fault, place, monkeypatch, caplog):
    monkeypatch.setattr(waiting, "LONG_WAIT", 0.2)
    monkeypatch.setattr(waiting, "LOOK_EVERY", 0.1)
    before = signal.getsignal(signal.SIGALRM)
    failure, _ = step_until_failure(make(fault, "sync", place, max_seconds_per_step=0.6))
    when = "in its reset at step 24" if place == "again" else "at its step 20"
    assert re.fullmatch(f"environment 1 did not answer {when}: waited for [0-9.]+ s", str(failure))
    assert "in commit" in failure.frames
    said = next(m for m in caplog.messages if m.startswith("waiting for"))
    line = rf"waiting for environment 1 {when} for \d+ s: {faulty.__file__}, line \d+, in commit"
    assert re.fullmatch(line, said)
    assert signal.getsignal(signal.SIGALRM) is before


@pytest.mark.skipif(not PROCESSES, reason="no signals")
def test_native_code_that_can_not_be_ended_is_said(monkeypatch, caplog):
    monkeypatch.setattr(waiting, "NO_REACTION", 0.1)
    monkeypatch.setattr(waiting, "LOOK_EVERY", 0.1)
    envs = make("raise", "sync", max_seconds_per_step=0.1)

    def deaf(action):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
        time.sleep(0.8)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})

    envs.envs[0].unwrapped.step = deaf
    with pytest.raises(ppo_tf.EnvironmentFailure):
        envs.step(np.zeros(3, int))
    stepping.close(envs)
    assert "environment 0 at its step 0 can't be ended: native code" in caplog.text


def test_time_between_steps_is_not_waiting(monkeypatch, caplog):
    monkeypatch.setattr(waiting, "LONG_WAIT", 0.1)
    monkeypatch.setattr(waiting, "LOOK_EVERY", 0.05)
    envs = make("hang", "sync", max_seconds_per_step=0.2)
    for _ in range(3):
        envs.step(np.zeros(3, int))
        time.sleep(0.3)
    stepping.close(envs)
    assert "waiting" not in caplog.text


def test_environments_that_are_forgotten_are_not_watched(monkeypatch):
    monkeypatch.setattr(waiting, "LOOK_EVERY", 0.05)
    envs = make("raise", "sync")
    gone = weakref.ref(envs)
    time.sleep(0.3)  # it was looked at
    del envs
    gc.collect()
    assert gone() is None


def test_a_time_limit_in_turn_needs_the_main_thread():
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        made = pool.submit(make, "raise", "sync", max_seconds_per_step=1.0)
        with pytest.raises(ValueError, match=r"outside the main thread.*max_seconds_per_step=1"):
            made.result()


@pytest.mark.parametrize("backend", ["vector", "envpool"])
def test_a_time_limit_needs_single_environments(backend):
    with pytest.raises(ValueError, match=r"max_seconds_per_step needs backend='sync' or"):
        ppo_tf.make_envs("CartPole-v1", 2, backend=backend, max_seconds_per_step=1.0)
