"""Keras' own callbacks with `fit`, unchanged."""

import http.server
import json
import math
import threading
import warnings

import h5py
import keras
import loops
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from train_command import read_csv

import ppo_tf

RETURN = "rollout/episode_return"


@pytest.fixture(scope="module")
def shared():
    """A learner compiled once, and rollouts that its policy collected: (learner, rollouts)."""
    learner, envs = loops.make_learner(optimizer=ppo_tf.default_optimizer(0.01))
    collector = ppo_tf.VectorCollector(envs, learner.policy, loops.HORIZON)
    return learner, [collector.collect() for _ in range(6)]


@pytest.fixture
def fit(shared):
    """`fit` on them; `returns` are the returns of the episodes that end in each iteration, NaN
    where none does. The logged mean is over all so far."""
    learner, rollouts = shared

    def run(callbacks, returns=(), iterations=3):
        data = list(rollouts)
        for i, value in enumerate(returns):
            # Enough to be the only ones among the last hundred.
            episodes = [] if math.isnan(value) else [ppo_tf.Episode(value, 5)] * 100
            data[i] = (rollouts[i][0], episodes)
        steps = (len(returns) or iterations) * loops.BATCH
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            return ppo_tf.fit(learner, loops.Data(data), total_steps=steps, callbacks=callbacks)

    return run


class Weights(keras.callbacks.Callback):
    """Keeps the policy's weights after each iteration."""

    def __init__(self):
        super().__init__()
        self.kept = []

    def on_epoch_end(self, epoch, logs=None):
        self.kept.append(self.model.get_weights())


def assert_same(one, other):
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def differ(one, other):
    return any(not np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_csv_logger(fit, tmp_path):
    path = str(tmp_path / "log.csv")
    history = fit([keras.callbacks.CSVLogger(path)], returns=[math.nan, 1.0])
    rows = read_csv(path)
    assert [row["epoch"] for row in rows] == ["0", "1"]
    for name, values in history.items():
        np.testing.assert_equal([float(row[name]) for row in rows], values, err_msg=name)
    fit([keras.callbacks.CSVLogger(path, append=True)])
    assert [row["epoch"] for row in read_csv(path)] == ["0", "1", "0", "1", "2"]
    fit([keras.callbacks.CSVLogger(path)])
    assert [row["epoch"] for row in read_csv(path)] == ["0", "1", "2"]


def scalars(folder):
    """{tag: [(step, value)]} of an event folder."""
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()
    return {
        tag: [(p.step, tf.make_ndarray(p.tensor_proto)) for p in events.Tensors(tag)]
        for tag in events.Tags()["tensors"]
    }


def test_tensorboard(fit, shared, tmp_path):
    learner, _ = shared
    callback = keras.callbacks.TensorBoard(
        str(tmp_path), histogram_freq=1, update_freq=1, write_steps_per_second=True
    )
    history = fit([callback])
    found = scalars(tmp_path / "train")
    for name, values in history.items():
        expected = [(epoch, np.float32(value)) for epoch, value in enumerate(values)]
        assert found[f"epoch_{name}"] == expected, name
    assert [step for step, _ in found["epoch_learning_rate"]] == [0, 1, 2]
    assert [step for step, _ in found["batch_loss"]] == [1, 2, 3]
    assert [step for step, _ in found["epoch_steps_per_second"]] == [0, 1, 2]
    kernel = learner.policy.actor.trainable_variables[0].path
    assert [step for step, _ in found[f"{kernel}/histogram"]] == [0, 1, 2]


@pytest.mark.parametrize("first", [5.0, math.nan])
def test_early_stopping_puts_the_best_weights_back(fit, shared, first):
    learner, _ = shared
    stop = keras.callbacks.EarlyStopping(RETURN, mode="max", patience=2, restore_best_weights=True)
    weights = Weights()
    history = fit([stop, weights], returns=[first, first, 7.0, 6.0, 6.0, 6.0])
    assert len(history[RETURN]) == 5  # two after the best, which is the third
    assert (stop.best, stop.best_epoch, stop.stopped_epoch) == (7.0, 2, 4)
    assert_same(learner.policy.get_weights(), weights.kept[2])
    assert differ(weights.kept[2], weights.kept[4])
    # The weights put back are the ones that act: the next run starts from them.
    assert len(fit([])["train/loss"]) == 3


def test_early_stopping_needs_a_mode_for_names_that_keras_does_not_know(fit):
    with pytest.raises(ValueError, match="Pass `mode='max'`"):
        fit([keras.callbacks.EarlyStopping(RETURN)])


def test_model_checkpoint_of_the_best_return(fit, tmp_path):
    path = str(tmp_path / "{epoch:02d}-{rollout/episode_return:.2f}.keras")
    best = keras.callbacks.ModelCheckpoint(path, RETURN, mode="max", save_best_only=True)
    weights = Weights()
    fit([best, weights], returns=[math.nan, 2.5, 1.0, 3.25])
    # Before the first episode ends no policy is better than another, so the newest is the best.
    names = ["01-nan.keras", "02-2.50.keras", "04-3.25.keras"]
    assert sorted(p.name for p in tmp_path.iterdir()) == names
    for name, epoch in zip(names, (0, 1, 3), strict=True):
        assert_same(keras.models.load_model(tmp_path / name).get_weights(), weights.kept[epoch])


def test_model_checkpoint_of_weights_only_omits_the_optimizer(fit, shared, tmp_path):
    learner, _ = shared
    path = tmp_path / "{epoch:02d}.weights.h5"
    fit([keras.callbacks.ModelCheckpoint(str(path), save_weights_only=True)])
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"0{i}.weights.h5" for i in (1, 2, 3)]
    other = loops.make_learner(seed=5)[0].policy
    other.load_weights(tmp_path / "03.weights.h5")
    assert_same(other.get_weights(), learner.policy.get_weights())
    with h5py.File(tmp_path / "03.weights.h5") as file:
        assert "optimizer" not in file


def test_the_model_has_the_optimizer_only_during_training(fit, shared):
    learner, _ = shared
    seen = []
    look = keras.callbacks.LambdaCallback(
        on_train_begin=lambda logs: seen.append(look.model.optimizer),
        on_train_end=lambda logs: seen.append(look.model.optimizer),
    )
    fit([look])
    assert [optimizer is learner.optimizer for optimizer in seen] == [True, True]
    assert not hasattr(learner.policy, "optimizer")
    assert len(learner.policy.variables) < len(learner.optimizer.variables)


def test_callbacks_before_one_that_fails_to_begin_are_ended(fit, shared):
    calls = []

    def refuse(logs):
        raise OSError("no room")

    first = keras.callbacks.LambdaCallback(on_train_end=lambda logs: calls.append("first"))
    second = keras.callbacks.LambdaCallback(
        on_train_begin=refuse, on_train_end=lambda logs: calls.append("second")
    )
    with pytest.raises(OSError, match="no room"):
        fit([first, second])
    assert calls == ["first"]
    assert not hasattr(shared[0].policy, "optimizer")


def test_terminate_on_nan_ends_training_without_an_error(shared):
    learner, rollouts = shared
    trajectory, episodes = rollouts[1]
    bad = trajectory._replace(rewards=np.full_like(trajectory.rewards, 1e30))
    data = loops.Data([rollouts[0], (bad, episodes), rollouts[2]])
    before = []
    callbacks = [
        keras.callbacks.TerminateOnNaN(),
        keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: before.append(learner.policy.get_weights())
        ),
    ]
    history = ppo_tf.fit(learner, data, total_steps=3 * loops.BATCH, callbacks=callbacks)
    assert len(history["train/loss"]) == 1
    assert_same(learner.policy.get_weights(), before[0])  # the bad update was undone
    data = loops.Data([(bad, episodes)])
    with pytest.raises(ppo_tf.NonFiniteError):
        ppo_tf.fit(learner, data, total_steps=loops.BATCH)
    with pytest.raises(RuntimeError, match="NaN or Inf"):
        ppo_tf.fit(
            learner,
            loops.Data([(bad, episodes)]),
            total_steps=loops.BATCH,
            callbacks=[keras.callbacks.TerminateOnNaN(raise_error=True)],
        )


def test_lambda_callback_gets_all_hooks(fit):
    calls = []
    hooks = {
        name: lambda *args, name=name, **logs: calls.append((name, (*args, *logs.values())))
        for name in (
            "on_train_begin",
            "on_epoch_begin",
            "on_train_batch_begin",
            "on_train_batch_end",
            "on_epoch_end",
            "on_train_end",
        )
    }
    history = fit([keras.callbacks.LambdaCallback(**hooks)], iterations=2)
    iteration = ["on_epoch_begin", "on_train_batch_begin", "on_train_batch_end", "on_epoch_end"]
    names = [name for name, _ in calls]
    assert names == ["on_train_begin", *iteration, *iteration, "on_train_end"]
    batches = [args for name, args in calls if name == "on_train_batch_end"]
    assert batches == [(0, {"loss": loss}) for loss in history["train/loss"]]
    epochs = [args for name, args in calls if name == "on_epoch_end"]
    assert [(epoch, logs["rollout/steps"]) for epoch, logs in epochs] == [(0, 32.0), (1, 64.0)]


@pytest.fixture
def rate(shared):
    """The optimizer's learning rate, put back afterwards."""
    optimizer = shared[0].optimizer
    before = float(optimizer.learning_rate)
    yield before
    optimizer.learning_rate = before


def test_learning_rate_scheduler_and_reduce_on_plateau(fit, rate):
    scheduler = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2.0)
    history = fit([scheduler])
    np.testing.assert_allclose(history["train/learning_rate"], rate / np.array([2, 4, 8]), 1e-6)
    reduce = keras.callbacks.ReduceLROnPlateau(RETURN, mode="max", factor=0.1, patience=1)
    history = fit([reduce], returns=[math.nan, math.nan, 3.0, 2.0, 4.0])
    rates = rate / 8 * np.array([1, 1, 1, 1, 0.1])  # lowered after the iteration that was worse
    np.testing.assert_allclose(history["train/learning_rate"], rates, 1e-6)


def test_setting_the_rate_of_a_schedule_is_an_error_of_keras(shared):
    _, rollouts = shared
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)
    learner, _ = loops.make_learner(optimizer=ppo_tf.default_optimizer(schedule))
    halve = keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2.0)
    with pytest.raises(TypeError, match="LearningRateSchedule"):
        ppo_tf.fit(learner, loops.Data(rollouts), total_steps=loops.BATCH, callbacks=[halve])


def test_backup_and_restore_brings_back_the_policy(fit, shared, tmp_path):
    learner, _ = shared
    backup = tmp_path / "backup"
    fit([keras.callbacks.BackupAndRestore(str(backup), delete_checkpoint=False)])
    saved = learner.policy.get_weights()
    learner.policy.set_weights([np.zeros_like(w) for w in saved])
    seen = []
    look = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: seen.append((epoch, learner.policy.get_weights()))
    )
    fit([keras.callbacks.BackupAndRestore(str(backup)), look])
    assert seen[0][0] == 0  # the iterations start over, as the docstring says
    assert_same(seen[0][1], saved)
    assert not backup.exists()


def test_progbar_logger(fit, capsys):
    fit([keras.callbacks.ProgbarLogger()], iterations=2)
    out = capsys.readouterr().out
    assert "Epoch 1/2" in out and "Epoch 2/2" in out
    assert "1/1" in out and "rollout/episode_return: " in out


def test_remote_monitor(fit):
    pytest.importorskip("requests")
    received = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            length = int(self.headers["Content-Length"])
            received.append(json.loads(self.rfile.read(length)))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        root = f"http://127.0.0.1:{server.server_port}"
        history = fit([keras.callbacks.RemoteMonitor(root, send_as_json=True)], iterations=2)
    finally:
        server.shutdown()
        server.server_close()
    assert [row["epoch"] for row in received] == [0, 1]
    assert [row["train/loss"] for row in received] == history["train/loss"]


def test_swap_ema_weights(shared, tmp_path):
    """ModelCheckpoint after it saves the averaged weights; the acting ones stay as they are."""
    _, rollouts = shared
    optimizer = keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5)
    learner, _ = loops.make_learner(optimizer=optimizer)
    path = str(tmp_path / "{epoch}.keras")
    acting = []
    callbacks = [
        keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: acting.append(learner.policy.get_weights())
        ),
        keras.callbacks.SwapEMAWeights(swap_on_epoch=True),
        keras.callbacks.ModelCheckpoint(path),
    ]
    steps = 2 * loops.BATCH
    ppo_tf.fit(learner, loops.Data(rollouts), total_steps=steps, callbacks=callbacks)
    saved = keras.models.load_model(tmp_path / "1.keras").get_weights()
    assert differ(saved, acting[0])
