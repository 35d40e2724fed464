"""Fixtures that several files of tests share."""

import ctypes
import functools
import gc
import os
import sys
import time

import helpers
import pytest
import tensorflow as tf
from tensorflow.python.util import tf_stack

import ppo_tf
from ppo_tf.command import train

if sys.platform == "linux":
    M_ARENA_MAX = -8  # of malloc.h: compilers' many threads would each get, and keep, a heap
    ctypes.CDLL("libc.so.6").mallopt(M_ARENA_MAX, 1)

# Files of tests by the seconds they take, from 120 to 20.
LONGEST = (
    *("conformance", "matrix", "sweep_command", "resume_command", "distributions", "resume"),
    *("learner", "examples", "environment_failures", "kill", "train_command", "periodic"),
    *("acting", "video", "probes", "atari", "report", "outliers"),
)

# Each operation remembers the Python stack that it was made in, and what XLA compiled is never
# freed: with pytest's own 60 frames that is 60 MB for each compiled update, without them 18.
_STACK = tf_stack.extract_stack()
tf_stack.extract_stack = lambda stacklevel=1: _STACK

# Grappler makes graphs faster that run for hours; those of tests run once or twice. Tests that
# compare graphs or sample in them have the fixture `grappler`.
tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})

# Likewise what XLA compiles, in this process and in those that tests start. The programs are the
# same, only LLVM's work on them is less. `XLA_FLAGS= pytest` tests what users run.
os.environ.setdefault(
    "XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)

gc.collect()
gc.freeze()  # the collector need not look at what the libraries hold again and again


@pytest.fixture(scope="module")
def grappler():
    """Has graphs optimised as they are for users."""
    before = tf.config.optimizer.get_experimental_options()
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False})
    yield
    tf.config.optimizer.set_experimental_options(before)


@pytest.fixture
def eager():
    """Runs functions without graphs, which is faster if a learner makes few updates.

    That graphs and XLA compute the same is what test_conformance.py and test_matrix.py are about.
    """
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture
def graphs(eager):
    """Runs functions as graphs after all, in a file with `eager`."""
    tf.config.run_functions_eagerly(False)


@pytest.fixture
def without_xla(monkeypatch):
    """Lets learners that do not ask for XLA do without, which saves 4 s of compiling for each."""
    monkeypatch.setitem(ppo_tf.Learner.__init__.__kwdefaults__, "jit_compile", False)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the training command in this process, in an empty folder; returns its exit code."""
    tf.constant(0)  # TensorFlow's messages about devices come now, not while a test listens
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: train.main([str(argument) for argument in arguments])


def pytest_collection_modifyitems(items):
    """Starts with the files that take longest, so that no worker is left with one at the end."""
    place = {f"test_{name}.py": i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


@pytest.fixture(scope="module", autouse=True)
def free_after_each_file(request):
    """Frees what a file traced; all files together would take 4 GB a process."""
    start = time.process_time()
    yield
    if time.process_time() - start < 2.0:
        return  # not worth the half second that collecting takes
    for value in vars(request.module).values():
        if isinstance(value, functools._lru_cache_wrapper):
            value.cache_clear()
    helpers.free_traced_functions()
