"""Vectors of `faulty` environments, stepped until one fails."""

import time

import faulty
import numpy as np
import pytest

import ppo_tf
from ppo_tf.environments import stepping

SEED = 14  # with which environment 1, and no other, is bad


def make(fault, backend, place=faulty.AT, **options):
    """Makes three environments."""
    env_id = f"Faulty-{fault}-{place}-v0"
    return ppo_tf.make_envs(env_id, 3, seed=SEED, backend=backend, **options)


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
