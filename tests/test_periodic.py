"""Evaluation during training: when it runs, what it logs, what it keeps, how it resumes."""

import json

import environments
import keras
import numpy as np
import pytest
import tensorflow as tf
from train_command import without_times

import ppo_tf
from ppo_tf.callbacks import periodic_evaluation as periodic

environments.register()

HORIZON, NUM_ENVS = 8, 4
BATCH = HORIZON * NUM_ENVS
OBSERVATIONS = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
SEED = np.array([1, 2], np.int32)
EVAL_LOGS = ("eval/mean_return", "eval/std_return", "eval/mean_length")


class Recorder(keras.callbacks.Callback):
    """Records the logs as the last callback in the list sees them."""

    def __init__(self, then=None):
        super().__init__()
        self.logs, self.then = [], then

    def on_epoch_end(self, epoch, logs=None):
        self.logs.append(dict(logs))
        if self.then:
            self.then(epoch)


def train(iterations, callback, *, env_id="CartPole-v1", then=None, checkpoints=None):
    """Trains a new learner; returns it and the logs that callbacks after `callback` see."""
    envs = ppo_tf.make_envs(env_id, NUM_ENVS, backend="sync")
    network = {"hidden_sizes": (4,), "seed": 1}
    learner = ppo_tf.Learner(
        ppo_tf.mlp_policy(envs, **network),
        ppo_tf.mlp_critic(envs, **network),
        epochs=2,
        minibatch_size=BATCH // 2,
        jit_compile=False,
    )
    recorder = Recorder(then)
    callbacks = [*([callback] if callback else []), recorder]
    try:
        ppo_tf.fit(
            learner,
            envs,
            total_steps=iterations * BATCH,
            horizon=HORIZON,
            callbacks=callbacks,
            checkpoints=checkpoints,
        )
    except Interrupted:
        pass
    finally:
        envs.close()
    return learner, recorder.logs


class Interrupted(Exception):
    """Stands for the end of a process."""


def metadata(path):
    return json.loads((path / "assets.extra" / "policy.json").read_text())


class Scores:
    """Replaces `play`: gives the evaluations the returns that a test chooses, in order."""

    def __init__(self, *returns):
        self.returns, self.done = returns, 0

    def __call__(self, envs, act, episodes, seed, max_steps):
        score = self.returns[self.done]
        self.done += 1
        return ppo_tf.Evaluation(returns=(score, score), lengths=(3, 4))


def test_the_logs_are_those_of_evaluate_whenever_a_multiple_is_passed():
    """Every 50 steps at 32 an iteration: at 64 (50 passed), 128 (100) and 160 (150)."""
    expected = {}

    def evaluate(epoch):
        if epoch in (1, 4):
            policy = callback.model
            result = ppo_tf.evaluate(policy, "CartPole-v1", episodes=5, seed=3)
            expected[epoch] = result.summary()

    callback = ppo_tf.PeriodicEvaluation("CartPole-v1", every=50, episodes=5, seed=3)
    _, logs = train(5, callback, then=evaluate)
    for name in EVAL_LOGS:
        values = [row[name] for row in logs]
        np.testing.assert_equal(np.isfinite(values), [False, True, False, True, True])
        for epoch, result in expected.items():
            assert values[epoch] == result[name.removeprefix("eval/")]
    assert logs[1]["eval/mean_return"] != logs[4]["eval/mean_return"]  # it learned in between
    assert callback.best == np.nanmax([row["eval/mean_return"] for row in logs])


def test_training_is_the_same_with_and_without_evaluation(tmp_path):
    """Actions are sampled, so that the evaluation draws random numbers too."""
    callback = ppo_tf.PeriodicEvaluation(
        "CartPole-v1", every=BATCH, episodes=3, deterministic=False, best_path=tmp_path / "best"
    )
    learner, logs = train(4, callback)
    other, plain = train(4, None)
    assert all(set(EVAL_LOGS) <= row.keys() for row in logs)
    bare = [{n: v for n, v in row.items() if n not in EVAL_LOGS} for row in logs]
    np.testing.assert_equal(without_times(bare), without_times(plain))
    for one, two in zip(learner.variables, other.variables, strict=True):
        np.testing.assert_array_equal(one, two)


def test_environments_are_made_once_and_closed(monkeypatch):
    made = []

    def make(*arguments, **kwargs):
        made.append((arguments, kwargs, original(*arguments, **kwargs)))
        return made[-1][-1]

    original = periodic.make_evaluation_envs
    monkeypatch.setattr(periodic, "make_evaluation_envs", make)
    callback = ppo_tf.PeriodicEvaluation(
        environments.COUNTING, every=BATCH, episodes=9, num_envs=4, longest=5
    )
    train(3, callback, env_id=environments.COUNTING)
    ((arguments, kwargs, envs),) = made
    assert arguments == (environments.COUNTING, 4)
    assert kwargs == {"longest": 5}
    assert envs.closed


def test_the_best_policy_is_exported_with_its_score(tmp_path, monkeypatch):
    monkeypatch.setattr(periodic, "play", Scores(2.0, 5.0, 5.0, 4.0))
    path, weights, seen = tmp_path / "best", [], []

    def note(epoch):
        weights.append(callback.model.get_weights())
        seen.append(metadata(path))

    callback = ppo_tf.PeriodicEvaluation(
        "CartPole-v1", every=BATCH, episodes=2, best_path=path, metadata={"seed": 9, "steps": -1}
    )
    train(4, callback, then=note)
    assert [m["steps"] for m in seen] == [BATCH, 2 * BATCH, 2 * BATCH, 2 * BATCH]  # 5.0 came first
    assert seen[-1] == {
        "seed": 9,
        "env": "CartPole-v1",
        "episodes": 2,
        "steps": 2 * BATCH,
        "mean_return": 5.0,
        "std_return": 0.0,
        "mean_length": 3.5,
        "names": {"observations": {"": "observation"}, "actions": {"": "action"}},
    }
    assert callback.best == 5.0
    callback.model.set_weights(weights[1])
    expected = callback.model.action_map(callback.model.sample(OBSERVATIONS, SEED))
    np.testing.assert_array_equal(draws(path), expected)
    assert [p.name for p in tmp_path.iterdir()] == ["best"]


def draws(path):
    """The actions of the exported policy."""
    signatures = tf.saved_model.load(str(path)).signatures
    return signatures["sample"](observation=tf.constant(OBSERVATIONS), seed=SEED)["action"]


def test_a_resumed_run_ends_like_an_uninterrupted_one(tmp_path, monkeypatch):
    """Checkpoints after 2, 4 and 6 iterations. The interruption after 3 comes when a better policy
    has been exported that the checkpoint does not know."""
    scores = Scores(1.0, 0.5, 3.0, 2.0, 7.0, 6.0)
    monkeypatch.setattr(periodic, "play", scores)

    def interrupt(epoch):
        if epoch == 2:
            raise Interrupted

    def run(name, then=None, done=0):
        scores.done = done
        callback = ppo_tf.PeriodicEvaluation("CartPole-v1", BATCH, best_path=tmp_path / name)
        checkpoints = ppo_tf.Checkpoints(tmp_path / f"{name}-checkpoints", every=2 * BATCH)
        learner, logs = train(6, callback, then=then, checkpoints=checkpoints)
        return callback, learner, logs

    whole, learner, logs = run("whole")
    first, _, before = run("parts", then=interrupt)
    assert metadata(tmp_path / "parts")["mean_return"] == first.best == 3.0
    second, resumed, after = run("parts", done=2)
    np.testing.assert_equal(without_times(before[:2] + after), without_times(logs))
    assert second.best == whole.best == 7.0
    assert metadata(tmp_path / "parts") == metadata(tmp_path / "whole")
    assert metadata(tmp_path / "parts")["steps"] == 5 * BATCH
    np.testing.assert_array_equal(draws(tmp_path / "parts"), draws(tmp_path / "whole"))
    for one, two in zip(learner.variables, resumed.variables, strict=True):
        np.testing.assert_array_equal(one, two)


def test_the_best_policy_before_the_checkpoint_stays_the_best(tmp_path, monkeypatch):
    """Later policies are worse; a run that had forgotten the best would export them."""
    scores = Scores(1.0, 8.0, 3.0, 4.0)
    monkeypatch.setattr(periodic, "play", scores)
    for iterations in (2, 4):
        callback = ppo_tf.PeriodicEvaluation("CartPole-v1", BATCH, best_path=tmp_path / "best")
        train(iterations, callback, checkpoints=ppo_tf.Checkpoints(tmp_path / "checkpoints"))
    assert scores.done == 4
    assert metadata(tmp_path / "best")["steps"] == 2 * BATCH
    assert callback.best == 8.0


def test_the_next_training_counts_from_zero(monkeypatch):
    scores = Scores(1.0, 2.0, 3.0, 4.0)
    monkeypatch.setattr(periodic, "play", scores)
    callback = ppo_tf.PeriodicEvaluation("CartPole-v1", 2 * BATCH)
    for done in (1, 2):
        train(2, callback)
        assert scores.done == done


@pytest.mark.parametrize("name", ["every", "episodes", "num_envs"])
def test_numbers_below_one_are_errors_that_name_the_argument(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1. Received: {name}=0"):
        ppo_tf.PeriodicEvaluation("CartPole-v1", **{"every": 1, name: 0})


def test_a_folder_in_the_way_of_the_best_policy_is_kept(tmp_path):
    (tmp_path / "best").mkdir()
    callback = ppo_tf.PeriodicEvaluation(
        "CartPole-v1", every=BATCH, episodes=1, best_path=tmp_path / "best"
    )
    with pytest.raises(FileExistsError, match="best"):
        train(1, callback)
