"""Fixtures that several files of tests share."""

import helpers
import pytest
import tensorflow as tf


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the training command in this process, in an empty folder; returns its exit code."""
    tf.constant(0)  # TensorFlow's messages about devices come now, not while a test listens
    _, run = helpers.load_example("train")
    monkeypatch.chdir(tmp_path)
    return run
