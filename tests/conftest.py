"""Fixtures that several files of tests share."""

import ctypes
import gc
import sys

import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow.python.framework.ops import gradient_registry

from ppo_tf.command import train


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the training command in this process, in an empty folder; returns its exit code."""
    tf.constant(0)  # TensorFlow's messages about devices come now, not while a test listens
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: train.main([str(argument) for argument in arguments])


@pytest.fixture(scope="module", autouse=True)
def free_traced_functions():
    """After each file, frees the functions that it traced; they would add up to 4 GB a process.

    Two tables keep graphs alive that nobody else holds: TFP's cache of what bijectors have computed
    and TensorFlow's registry of custom gradients, which every traced function adds to.
    """
    yield
    tfp.bijectors.Bijector._cache.storage.clear()
    registry = gradient_registry._registry
    for name in [name for name in registry if name.startswith("CustomGradient")]:
        del registry[name]
    gc.collect()
    if sys.platform == "linux":  # glibc keeps freed memory for itself
        ctypes.CDLL("libc.so.6").malloc_trim(0)
