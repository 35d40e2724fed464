"""Fixtures that several files of tests share."""

import helpers
import pytest
import tensorflow as tf

from ppo_tf.command import train


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the training command in this process, in an empty folder; returns its exit code."""
    tf.constant(0)  # TensorFlow's messages about devices come now, not while a test listens
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: train.main([str(argument) for argument in arguments])


@pytest.fixture(scope="module", autouse=True)
def free_after_each_file():
    """Frees what a file traced; all files together would take 4 GB a process."""
    yield
    helpers.free_traced_functions()
