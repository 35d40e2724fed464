"""A resumed run equals an uninterrupted one, bit for bit."""

import shutil

import environments
import helpers
import keras
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from train_command import read_csv, without_times

import ppo_tf

environments.register()

HORIZON, NUM_ENVS = 8, 4
BATCH = HORIZON * NUM_ENVS
EVERY = 2 * BATCH


class Interrupt(keras.callbacks.Callback):
    """Ends the run with an exception after an iteration."""

    def __init__(self, iteration):
        super().__init__()
        self._iteration = iteration

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self._iteration:
            raise KeyboardInterrupt


def make(env_id, *, cell=None, seed=3, **kwargs):
    """A learner with everything that carries state, and its environments."""
    envs = ppo_tf.make_envs(env_id, NUM_ENVS, seed=seed, **kwargs)
    learner = ppo_tf.Learner(
        helpers.make_policy(envs, cell=cell),
        helpers.make_critic(envs, cell=cell),
        ppo_tf.default_optimizer(
            keras.optimizers.schedules.PolynomialDecay(1e-2, decay_steps=64, end_learning_rate=0)
        ),
        loss=ppo_tf.Sum([ppo_tf.KLPenalty(1.0, target=0.01), ppo_tf.EntropyBonus(0.01)]),
        reward_transformation=ppo_tf.RewardScaling(),
        epochs=2,
        minibatch_size=16,
        sequence_length=4,
        jit_compile=False,
        seed=seed,
    )
    return learner, envs


def train(folder, iterations, *callbacks, **kwargs):
    """Trains in a folder, from its newest checkpoint if any; returns (learner, history)."""
    learner, envs = make(**kwargs)
    history = ppo_tf.fit(
        learner,
        envs,
        total_steps=iterations * BATCH,
        horizon=HORIZON,
        callbacks=[ppo_tf.MetricsCSV(folder / "metrics.csv"), *callbacks],
        checkpoints=ppo_tf.Checkpoints(folder / "checkpoints", every=EVERY),
    )
    envs.close()
    return learner, history


def rows(folder):
    """metrics.csv without the measured times."""
    return without_times(read_csv(folder / "metrics.csv"))


def files(folder):
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def assert_equal_runs(one, other):
    """Both are (learner, folder)."""
    for a, b in zip(helpers.numbers(one[0]), helpers.numbers(other[0]), strict=True):
        np.testing.assert_array_equal(a, b)
    assert one[0].iterations == other[0].iterations
    assert rows(one[1]) == rows(other[1])
    assert files(one[1]) == files(other[1])


CASES = {
    "sync": {"env_id": "CartPole-v1", "backend": "sync", "interruptions": 2},
    "next step": {
        "env_id": "CartPole-v1",
        "backend": "sync",
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    },
    "disabled": {
        "env_id": "CartPole-v1",
        "backend": "sync",
        "autoreset_mode": AutoresetMode.DISABLED,
    },
    "vector class": {"env_id": "CartPole-v1", "backend": "vector"},
    "async": {"env_id": "Pendulum-v1", "backend": "async"},
    "envpool": {"env_id": "CartPole-v1", "backend": "envpool"},
    "a memory": {
        "env_id": "CartPole-v1",
        "backend": "sync",
        "cell": "lstm",
        "interruptions": 1,
    },
    "drawn from the environment's own stream": {"env_id": "FrozenLake-v1", "backend": "sync"},
    "masks": {"env_id": "Taxi-v4", "backend": "sync"},
}


@pytest.mark.parametrize("name", CASES)
def test_a_resumed_run_equals_the_uninterrupted_one(name, tmp_path):
    kwargs = dict(CASES[name])
    interruptions = kwargs.pop("interruptions", 0)
    if kwargs.get("backend") == "envpool":
        pytest.importorskip("envpool")
    (tmp_path / "whole").mkdir()
    whole, _ = train(tmp_path / "whole", 7, **kwargs)
    if interruptions:
        (tmp_path / "parts").mkdir()
    else:  # what a power failure in the iteration after the second checkpoint might leave
        shutil.copytree(tmp_path / "whole", tmp_path / "parts")
        for name in files(tmp_path / "parts")[-2:]:
            (tmp_path / "parts" / "checkpoints" / name).unlink()
    for _ in range(interruptions):
        with pytest.raises(KeyboardInterrupt):  # in the iteration after the second checkpoint
            train(tmp_path / "parts", 7, Interrupt(4), **kwargs)
        assert len(rows(tmp_path / "parts")) == 5
    parts, _ = train(tmp_path / "parts", 7, **kwargs)
    assert_equal_runs((whole, tmp_path / "whole"), (parts, tmp_path / "parts"))
    assert [row["iteration"] for row in rows(tmp_path / "whole")] == list("0123456")


def test_the_best_checkpoint_can_go_by_a_log_that_a_callback_adds(tmp_path):
    scores = [1.0, 9.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]

    class Score(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["eval/score"] = scores[epoch]

    learner, envs = make("CartPole-v1", backend="sync")
    checkpoints = ppo_tf.Checkpoints(tmp_path, every=BATCH, keep=2, monitor="eval/score")
    history = ppo_tf.fit(
        learner,
        envs,
        total_steps=8 * BATCH,
        horizon=HORIZON,
        callbacks=[Score()],
        checkpoints=checkpoints,
    )
    assert history["eval/score"] == scores
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == [checkpoints.path(k * BATCH).name for k in (2, 7, 8)]
