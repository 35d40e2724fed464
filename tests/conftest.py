"""Fixtures that several files of tests share."""

import importlib.util

import environments
import pytest
import tensorflow as tf
from absl import flags
from absl.testing import flagsaver
from train_command import SCRIPT

environments.register()


@pytest.fixture(scope="session")
def script():
    """The command's module, loaded once: it defines flags."""
    tf.constant(0)  # TensorFlow's messages about devices come now, not while a test listens
    spec = importlib.util.spec_from_file_location("ppo_tf_train_command", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(script, tmp_path, monkeypatch):
    """Runs the command in this process, in an empty folder; returns its exit code."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        with flagsaver.flagsaver():
            try:
                return script.main(script.parse(["train.py", *arguments]))
            except SystemExit as end:
                return end.code

    yield run
    flags.FLAGS.unparse_flags()
