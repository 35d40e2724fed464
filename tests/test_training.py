"""The loop, its logs and its callbacks."""

import csv
import io
import math

import environments
import keras
import numpy as np
import pytest
import rich.console
from train_command import read_csv

import ppo_tf

environments.register()

HORIZON, NUM_ENVS = 8, 4
BATCH = HORIZON * NUM_ENVS
ROLLOUT_LOGS = {
    "rollout/steps",
    "rollout/episodes",
    "rollout/episode_return",
    "rollout/episode_length",
}
TIME_LOGS = {"time/seconds", "time/steps_per_second"}
TRAIN_LOGS = {  # those of every loss, with a distribution whose KL and entropy TFP knows
    "train/loss",
    "train/policy_loss",
    "train/value_loss",
    "train/gradient_norm",
    "train/kl",
    "train/kl_k1",
    "train/kl_k2",
    "train/kl_k3",
    "train/entropy",
    "train/explained_variance",
    "train/epochs",
    "train/gradient_steps",
    "train/learning_rate",
}


def make_learner(env_id=environments.COUNTING, seed=0, **options):
    envs = ppo_tf.make_envs(env_id, NUM_ENVS, seed=seed)
    options = {"epochs": 1, "minibatch_size": BATCH // 2, **options}
    network = {"hidden_sizes": (4,), "seed": seed}
    learner = ppo_tf.Learner(
        ppo_tf.mlp_policy(envs, **network),
        ppo_tf.mlp_critic(envs, **network),
        seed=seed,
        jit_compile=False,
        **options,
    )
    return learner, envs


class Data:
    """A collector of finished rollouts: the loop without an environment."""

    def __init__(self, rollouts):
        self.horizon, self.num_envs = rollouts[0][0].rewards.shape
        self._rollouts = iter(rollouts)
        self.collected = 0

    def collect(self):
        self.collected += 1
        return next(self._rollouts)


class Recorder(keras.callbacks.Callback):
    """Records the calls and their logs."""

    def __init__(self):
        super().__init__()
        self.calls, self.logs = [], []

    def on_train_begin(self, logs=None):
        self.calls.append("train_begin")

    def on_train_end(self, logs=None):
        self.calls.append("train_end")

    def on_epoch_begin(self, epoch, logs=None):
        self.calls.append(f"begin {epoch}")

    def on_epoch_end(self, epoch, logs=None):
        self.calls.append(f"end {epoch}")
        self.logs.append(dict(logs))


class At(keras.callbacks.Callback):
    """Does something at the end of one iteration."""

    def __init__(self, iteration, action):
        super().__init__()
        self._iteration, self._action = iteration, action

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self._iteration:
            self._action(self)


@pytest.fixture(scope="module")
def shared():
    """A learner compiled once, and rollouts that its policy collected: (learner, rollouts)."""
    learner, envs = make_learner()
    collector = ppo_tf.VectorCollector(envs, learner.policy, HORIZON)
    return learner, [collector.collect() for _ in range(6)]


@pytest.fixture
def fit(shared):
    """`fit` on the shared learner and rollouts: returns (history, collector)."""
    learner, rollouts = shared

    def run(total_steps=3 * BATCH, callbacks=()):
        data = Data(rollouts)
        return ppo_tf.fit(learner, data, total_steps=total_steps, callbacks=callbacks), data

    return run


def plain(history):
    """The logs without times, for comparison."""
    return {name: values for name, values in history.items() if not name.startswith("time/")}


def test_the_logs_have_the_documented_names(fit):
    recorder = Recorder()
    history, _ = fit(callbacks=[recorder])
    assert history.keys() >= ROLLOUT_LOGS | TIME_LOGS | TRAIN_LOGS
    prefixes = {name.split("/")[0] for name in history}
    assert prefixes == {"rollout", "train", "time"}
    assert {name for name in history if not name.startswith("train/")} == ROLLOUT_LOGS | TIME_LOGS
    assert [set(logs) for logs in recorder.logs] == [set(history)] * 3
    for name, values in history.items():
        assert [logs[name] for logs in recorder.logs] == values, name


def test_rollout_logs_are_those_of_the_last_hundred_episodes(shared, fit):
    _, rollouts = shared
    history, _ = fit(total_steps=6 * BATCH)
    finished = []
    for index, (_, episodes) in enumerate(rollouts):
        finished += episodes
        recent = finished[-100:]
        assert history["rollout/steps"][index] == (index + 1) * BATCH
        assert history["rollout/episodes"][index] == len(finished)
        for name, values in (
            ("rollout/episode_return", [e.episode_return for e in recent]),
            ("rollout/episode_length", [e.length for e in recent]),
        ):
            assert history[name][index] == pytest.approx(np.mean(values)), name


def test_only_the_last_hundred_episodes_count(shared):
    learner, rollouts = shared
    many = [ppo_tf.Episode(episode_return=float(k), length=k + 1) for k in range(150)]
    rollouts = [(rollouts[0][0], many), (rollouts[1][0], many[:1])]
    history = ppo_tf.fit(learner, Data(rollouts), total_steps=2 * BATCH)
    assert history["rollout/episodes"] == [150, 151]
    assert history["rollout/episode_return"][0] == pytest.approx(99.5)  # mean of 50..149
    # Mean of 51..149 and 0.
    assert history["rollout/episode_return"][1] == pytest.approx((99.5 * 100 - 50.0) / 100)
    assert history["rollout/episode_length"][1] == pytest.approx((100.5 * 100 - 50.0) / 100)


def test_before_the_first_episode_ends_its_return_is_nan_not_zero(shared):
    learner, rollouts = shared
    rollouts = [(rollouts[0][0], []), (rollouts[1][0], [ppo_tf.Episode(7.0, 3)])]
    history = ppo_tf.fit(learner, Data(rollouts), total_steps=2 * BATCH)
    np.testing.assert_equal(history["rollout/episode_return"], [np.nan, 7.0])
    np.testing.assert_equal(history["rollout/episode_length"], [np.nan, 3.0])
    assert history["rollout/episodes"] == [0, 1]


@pytest.mark.parametrize(
    ("total_steps", "iterations"),
    [(BATCH, 1), (2 * BATCH - 1, 1), (2 * BATCH, 2), (3 * BATCH + 1, 3)],
)
def test_there_are_as_many_iterations_as_fit_into_total_steps(fit, total_steps, iterations):
    recorder = Recorder()
    history, data = fit(total_steps=total_steps, callbacks=[recorder])
    assert data.collected == iterations
    assert history["rollout/steps"] == [(i + 1) * BATCH for i in range(iterations)]
    assert history["rollout/steps"][-1] <= total_steps
    expected = [word for i in range(iterations) for word in (f"begin {i}", f"end {i}")]
    assert recorder.calls == ["train_begin", *expected, "train_end"]


def test_environments_are_stepped_exactly_as_often_as_the_logs_say():
    learner, envs = make_learner(environments.NAN_REWARD)
    for env in envs.envs:
        env.unwrapped.at = None
    history = ppo_tf.fit(learner, envs, total_steps=3 * BATCH - 1, horizon=HORIZON)
    assert sum(env.unwrapped.steps for env in envs.envs) == history["rollout/steps"][-1]
    assert history["rollout/steps"][-1] == 2 * BATCH


def test_total_steps_below_one_batch_is_an_error_before_anything_else(fit, shared):
    learner, rollouts = shared
    recorder, data = Recorder(), Data(rollouts)
    with pytest.raises(ValueError) as caught:
        ppo_tf.fit(learner, data, total_steps=BATCH - 1, callbacks=[recorder])
    assert f"total_steps={BATCH - 1}" in str(caught.value)
    assert str(BATCH) in str(caught.value)
    assert (data.collected, recorder.calls) == (0, [])


def test_a_horizon_beside_a_collector_is_an_error():
    learner, envs = make_learner()
    collector = ppo_tf.VectorCollector(envs, learner.policy, HORIZON)
    with pytest.raises(ValueError, match=r"horizon is the collector's own. Received: horizon=7"):
        ppo_tf.fit(learner, collector, total_steps=BATCH, horizon=7)


@pytest.mark.parametrize("as_collector", [False, True])
def test_a_minibatch_that_does_not_divide_is_an_error_before_anything_else(as_collector):
    learner, envs = make_learner(environments.NAN_REWARD, minibatch_size=7)
    recorder = Recorder()
    source, horizon = envs, HORIZON
    if as_collector:
        source, horizon = ppo_tf.VectorCollector(envs, learner.policy, HORIZON), None
    with pytest.raises(ValueError) as caught:
        # There are too few steps as well; the minibatch is checked first.
        ppo_tf.fit(learner, source, total_steps=1, horizon=horizon, callbacks=[recorder])
    assert "minibatch_size=7" in str(caught.value)
    assert f"horizon * num_envs={BATCH}" in str(caught.value)
    assert recorder.calls == []
    assert [env.unwrapped.steps for env in envs.envs] == [0] * NUM_ENVS


def test_the_callbacks_model_is_the_policy_and_can_stop_training(shared, fit):
    learner, _ = shared
    models = []

    def stop(callback):
        models.append(callback.model)
        callback.model.stop_training = True

    recorder = Recorder()
    history, data = fit(total_steps=5 * BATCH, callbacks=[At(1, stop), recorder])
    assert models == [learner.policy]
    assert (len(history["rollout/steps"]), data.collected) == (2, 2)
    assert recorder.calls[-2:] == ["end 1", "train_end"]
    # A stop ends only that run: the next one trains.
    assert len(fit()[0]["rollout/steps"]) == 3


def test_metrics_csv_has_one_row_per_iteration_under_one_header(fit, tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("of an earlier run\n" * 9)
    history, _ = fit(total_steps=4 * BATCH, callbacks=[ppo_tf.MetricsCSV(path)])
    with open(path, newline="") as file:
        header, *rows = list(csv.reader(file))
    assert header[0] == "iteration"
    assert set(header[1:]) == set(history)
    assert len(header) == len(set(header))
    assert [row[0] for row in rows] == ["0", "1", "2", "3"]
    for column, name in enumerate(header[1:], 1):
        assert [float(row[column]) for row in rows] == history[name], name


def test_metrics_csv_leaves_logs_without_a_value_empty(shared, tmp_path):
    learner, rollouts = shared
    rollouts = [(rollouts[0][0], []), (rollouts[1][0], [ppo_tf.Episode(7.0, 3)])]
    path = tmp_path / "metrics.csv"
    ppo_tf.fit(learner, Data(rollouts), total_steps=2 * BATCH, callbacks=[ppo_tf.MetricsCSV(path)])
    assert [row["rollout/episode_return"] for row in read_csv(path)] == ["", "7.0"]


def test_metrics_csv_can_be_read_during_training(fit, tmp_path):
    path = tmp_path / "metrics.csv"
    seen = []
    look = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(path.read_text())
    )
    fit(callbacks=[ppo_tf.MetricsCSV(path), look])
    assert [text.count("\n") for text in seen] == [2, 3, 4]  # the header and the rows so far
    assert all(text.endswith("\n") for text in seen)


def test_progress_prints_plain_lines_without_a_terminal(fit):
    out = io.StringIO()
    console = rich.console.Console(file=out)
    history, _ = fit(callbacks=[ppo_tf.Progress(interval=0.0, console=console)])
    lines = out.getvalue().splitlines()
    assert len(lines) == 3
    for line, steps, value in zip(
        lines, history["rollout/steps"], history["rollout/episode_return"], strict=True
    ):
        assert line.startswith(f"{int(steps)}/{3 * BATCH} steps  ")
        assert f"return {value:.1f} " in line
        assert "steps/s" in line
    assert "\x1b" not in out.getvalue()
    assert lines[-1].endswith("0 s left")


def test_progress_prints_at_most_once_per_interval_and_always_the_last_line(fit):
    out = io.StringIO()
    console = rich.console.Console(file=out)
    fit(callbacks=[ppo_tf.Progress(interval=1e6, console=console)])
    assert [line.split()[0] for line in out.getvalue().splitlines()] == [f"{3 * BATCH}/{3 * BATCH}"]


def test_progress_is_a_live_line_on_a_terminal(fit):
    out = io.StringIO()
    console = rich.console.Console(
        force_terminal=True,
        file=out,
        width=100,
        color_system=None,
        legacy_windows=False,
        _environ={},
    )
    history, _ = fit(callbacks=[ppo_tf.Progress(console=console)])
    text = out.getvalue()
    for steps, value in zip(
        history["rollout/steps"], history["rollout/episode_return"], strict=True
    ):
        assert f"{int(steps)}/{3 * BATCH} steps" in text
        assert f"return {value:.1f}" in text
    assert "\x1b[?25l" in text and text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # cursor
    assert text.count("\n") < 3  # one line, redrawn each time


def test_progress_shows_a_dash_before_the_first_episode_ends(shared):
    learner, rollouts = shared
    out = io.StringIO()
    progress = ppo_tf.Progress(interval=0.0, console=rich.console.Console(file=out))
    ppo_tf.fit(learner, Data([(rollouts[0][0], [])]), total_steps=BATCH, callbacks=[progress])
    assert "return - " in out.getvalue()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_train_end_is_called_when_a_callback_raises(fit, tmp_path, error):
    def fail(callback):
        raise error("enough")

    recorder = Recorder()
    metrics = ppo_tf.MetricsCSV(tmp_path / "metrics.csv")
    with pytest.raises(error, match="enough"):
        fit(callbacks=[recorder, metrics, At(1, fail)])
    assert recorder.calls[-2:] == ["end 1", "train_end"]
    text = (tmp_path / "metrics.csv").read_text()
    assert text.count("\n") == 3 and text.endswith("\n")  # the header and two rows


def test_train_end_is_called_when_the_environment_returns_a_nan():
    learner, envs = make_learner(environments.NAN_REWARD)
    envs.envs[2].unwrapped.at = 3
    for env in (0, 1, 3):
        envs.envs[env].unwrapped.at = None
    recorder = Recorder()
    with pytest.raises(ppo_tf.NonFiniteError, match=r"environment 2 .* reward at its step 3"):
        ppo_tf.fit(learner, envs, total_steps=BATCH, horizon=HORIZON, callbacks=[recorder])
    assert recorder.calls == ["train_begin", "begin 0", "train_end"]


@pytest.fixture(scope="module")
def seeded():
    """Histories of independent runs: seeds 0, 0 and 1."""

    def run(seed):
        learner, envs = make_learner("CartPole-v1", seed=seed)
        return ppo_tf.fit(learner, envs, total_steps=3 * BATCH, horizon=HORIZON)

    return run(0), run(0), run(1)


def test_the_same_seed_gives_the_same_metrics(seeded):
    one, two, _ = seeded
    assert plain(one) == plain(two)
    assert all(math.isfinite(value) for value in one["train/policy_loss"])


def test_another_seed_gives_different_metrics(seeded):
    one, _, other = seeded
    for name in ("train/kl_k3", "train/value_loss", "train/explained_variance"):
        assert one[name] != other[name], name
