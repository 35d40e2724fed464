"""Weights & Biases and MLflow, without a server: what they write equals the logs."""

import functools
import json
import struct
import sys
import time

import loops
import numpy as np
import pytest

import ppo_tf
from ppo_tf.callbacks.trackers import flat_settings

SETTINGS = {
    "learning_rate": 3e-4,
    "hidden_sizes": (64, 64),
    "jit_compile": None,
    "loss": {"name": "clip"},
}


@pytest.fixture(scope="module")
def rollouts():
    """A learner compiled once, and rollouts; no episode ends in the first one."""
    learner, envs = loops.make_learner()
    collector = ppo_tf.VectorCollector(envs, learner.policy, loops.HORIZON)
    collected = [collector.collect() for _ in range(4)]
    return learner, [(collected[0][0], []), *collected[1:]]


@pytest.fixture
def fit(rollouts):
    """`fit` on these rollouts with one callback; returns the history."""
    learner, collected = rollouts

    def run(callback, iterations=4):
        steps = iterations * loops.BATCH
        return ppo_tf.fit(learner, loops.Data(collected), total_steps=steps, callbacks=[callback])

    return run


def expected(history):
    """{name: [(steps, value)]} of the logs that have a value."""
    steps = history["rollout/steps"]
    return {
        name: [(s, v) for s, v in zip(steps, values, strict=True) if not np.isnan(v)]
        for name, values in history.items()
    }


class Stop(Exception):
    """Raised in a callback."""


def test_settings_are_flattened_to_numbers_and_text():
    assert flat_settings({**SETTINGS, "n": 3, "on": True, "x": np.float32}) == {
        "learning_rate": 3e-4,
        "hidden_sizes": "64,64",
        "jit_compile": "none",
        "loss/name": "clip",
        "n": 3,
        "on": True,
        "x": str(np.float32),
    }
    assert flat_settings(None) == {}


@pytest.mark.parametrize(("name", "extra"), [("WandbLogger", "wandb"), ("MLflowLogger", "mlflow")])
def test_a_missing_package_is_an_error_that_names_the_extra(monkeypatch, name, extra):
    monkeypatch.setitem(sys.modules, extra, None)
    with pytest.raises(ImportError, match=rf"{name} needs .* pip install 'ppo_tf\[{extra}\]'"):
        getattr(ppo_tf, name)("anything")


@pytest.mark.parametrize("name", ["a/b", "a#b", "x" * 129])
def test_a_project_that_wandb_refuses_is_an_error_before_training(name):
    pytest.importorskip("wandb")
    with pytest.raises(ValueError, match=rf"Invalid project name.*Received: project='{name}'"):
        ppo_tf.WandbLogger(name)


@pytest.mark.parametrize("name", ["", "x" * 501])
def test_an_experiment_that_mlflow_refuses_is_an_error_before_training(name):
    pytest.importorskip("mlflow")
    with pytest.raises(ValueError, match=rf"1 to 500 characters. Received: experiment='{name}'"):
        ppo_tf.MLflowLogger(name)


def test_a_tracker_that_cannot_start_is_one_of_the_errors_that_commands_name(monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    wandb = pytest.importorskip("wandb")

    def fail(*arguments, **options):
        raise options.pop("error")

    refused = functools.partial(fail, error=wandb.Error("nobody is logged in"))
    monkeypatch.setattr(wandb, "init", refused)
    with pytest.raises(ConnectionError, match=r"^Weights & Biases: nobody is logged in$"):
        loops.Loop(ppo_tf.WandbLogger("probe"))
    refused = functools.partial(fail, error=mlflow.MlflowException("no server"))
    monkeypatch.setattr(mlflow, "MlflowClient", refused)
    with pytest.raises(ConnectionError, match=r"^MLflow: no server$"):
        loops.Loop(ppo_tf.MLflowLogger("probe"))


# Weights & Biases, offline.


def read_wandb(folder):
    """The runs in a folder, each a list of records in the order they were written.

    A .wandb file is a header of 7 bytes and a LevelDB log: blocks of 32 KiB, in them chunks of
    CRC, length, kind (1 whole, 2 first, 3 middle, 4 last) and data; the data are protobuf records.
    """
    from wandb.proto import wandb_internal_pb2

    runs = []
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        data, position, records, parts = path.read_bytes(), 7, [], b""
        while position + 7 <= len(data):
            if 32768 - position % 32768 < 7:  # too little room for a chunk's header
                position += 32768 - position % 32768
                continue
            _, length, kind = struct.unpack("<IHB", data[position : position + 7])
            parts += data[position + 7 : position + 7 + length]
            position += 7 + length
            if kind in (1, 4):
                records.append(wandb_internal_pb2.Record.FromString(parts))
                parts = b""
        runs.append(records)
    return runs


def finished_wandb(folder, count):
    """The finished runs in a folder: `finish` notifies wandb's process without waiting for it."""
    deadline = time.monotonic() + 60
    while True:
        runs = read_wandb(folder)
        if len(runs) == count and all(only(records, "exit") for records in runs):
            return runs
        assert time.monotonic() < deadline, [[str(r)[:80] for r in records] for records in runs]
        time.sleep(0.05)


def wandb_values(records):
    """{name: [(step, value)]} of a run's records."""
    found = {}
    for record in records:
        if record.WhichOneof("record_type") == "history":
            items = {i.key or "/".join(i.nested_key): i.value_json for i in record.history.item}
            step = json.loads(items.pop("_step", "null"))
            step = record.history.step.num if step is None else step
            for name, value in items.items():
                if not name.startswith("_"):
                    found.setdefault(name, []).append((step, json.loads(value)))
    return found


def only(records, kind):
    return [getattr(r, kind) for r in records if r.WhichOneof("record_type") == kind]


@pytest.fixture
def offline(monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")


def test_wandb_holds_the_logs_over_environment_steps(fit, tmp_path, offline, capfd):
    history = fit(ppo_tf.WandbLogger("probe", "first", SETTINGS, tmp_path / "new", tags=["a"]))
    (records,) = finished_wandb(tmp_path / "new", 1)
    assert wandb_values(records) == expected(history)
    run = only(records, "run")[0]
    assert (run.project, run.display_name, list(run.tags)) == ("probe", "first", ["a"])
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert {k: config[k] for k in SETTINGS} == json.loads(json.dumps(SETTINGS))
    assert only(records, "exit")[0].exit_code == 0
    assert capfd.readouterr() == ("", "")


def test_wandb_resumes_the_same_run(tmp_path, offline, capfd):
    before = ppo_tf.WandbLogger("probe", directory=tmp_path)
    loop = loops.Loop(before).run(0, 2)
    state = json.loads(json.dumps(before.state()))
    with pytest.raises(Stop):
        try:
            raise Stop
        finally:
            loop.end()
    finished_wandb(tmp_path, 1)
    second = int(time.time())
    while int(time.time()) == second:  # wandb names its folders by the second
        time.sleep(0.05)
    after = ppo_tf.WandbLogger("probe", directory=tmp_path)
    after.load_state(state)
    loops.Loop(after).run(3, 4).end()
    first, second = finished_wandb(tmp_path, 2)
    ids = [only(records, "run")[0].run_id for records in (first, second)]
    assert ids == [state["id"]] * 2
    points = [*wandb_values(first)["train/loss"], *wandb_values(second)["train/loss"]]
    assert points == [(100 * (i + 1), i + 0.5) for i in range(5)]
    assert [only(records, "exit")[0].exit_code for records in (first, second)] == [1, 0]
    assert capfd.readouterr() == ("", "")


class Server:
    """Stands in for wandb with a server that already has the run's steps up to 300."""

    def __init__(self):
        self.logged, self.options = [], None

    Error = Exception

    def Settings(self, **options):
        return options

    def init(self, **options):
        self.options = options
        self.id, self.starting_step = options["id"], 301
        return self

    def log(self, values, step):
        self.logged.append(step)


def test_wandb_does_not_repeat_steps_that_the_server_has(monkeypatch):
    server = Server()
    monkeypatch.setitem(sys.modules, "wandb", server)
    callback = ppo_tf.WandbLogger("probe")
    callback.load_state({"id": "abc"})
    loops.Loop(callback).run(1, 4)
    assert (server.options["id"], server.options["resume"]) == ("abc", "allow")
    assert server.logged == [400, 500]


# MLflow, with a database in a file.


pytestmark = pytest.mark.filterwarnings("ignore:The ``noload``:DeprecationWarning")  # MLflow's own


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """The address of an empty database, which takes a second to create."""
    pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


def mlflow_runs(database, experiment):
    """(client, the experiment's runs)."""
    import mlflow

    client = mlflow.MlflowClient(database)
    found = client.get_experiment_by_name(experiment)
    return client, client.search_runs([found.experiment_id], order_by=["start_time"])


def mlflow_values(client, run):
    """{name: [(step, value)]}."""
    return {
        name: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)]
        for name in run.data.metrics
    }


def test_mlflow_holds_the_logs_over_environment_steps(fit, database, capfd):
    history = fit(ppo_tf.MLflowLogger("logs", "first", SETTINGS, database))
    assert capfd.readouterr() == ("", "")
    client, (run,) = mlflow_runs(database, "logs")
    assert mlflow_values(client, run) == expected(history)
    assert run.data.params == {k: str(v) for k, v in flat_settings(SETTINGS).items()}
    assert (run.info.run_name, run.info.status) == ("first", "FINISHED")


def test_mlflow_resumes_the_same_run_and_logs_no_step_twice(database, capfd):
    def callback():
        return ppo_tf.MLflowLogger("resumed", tracking_uri=database)

    before = callback()
    loop = loops.Loop(before).run(0, 2)
    state = json.loads(json.dumps(before.state()))
    loop.run(3, 3)
    with pytest.raises(Stop):
        try:
            raise Stop
        finally:
            loop.end()
    client, (run,) = mlflow_runs(database, "resumed")
    assert run.info.status == "FAILED"
    after = callback()
    after.load_state(state)
    loop = loops.Loop(after).run(3, 3)
    assert mlflow_runs(database, "resumed")[1][0].info.status == "RUNNING"
    loop.run(4, 5).end()
    client, (run,) = mlflow_runs(database, "resumed")
    assert run.info.status == "FINISHED"
    assert mlflow_values(client, run)["train/loss"] == [(100 * (i + 1), i + 0.5) for i in range(6)]
    assert capfd.readouterr() == ("", "")


def test_a_second_run_of_the_same_object_is_another_run(database):
    callback = ppo_tf.MLflowLogger("twice", tracking_uri=database)
    for _ in range(2):
        loops.Loop(callback).run(0, 0).end()
    assert len(mlflow_runs(database, "twice")[1]) == 2


def test_a_run_inside_an_exception_handler_has_not_failed(database):
    try:
        raise Stop
    except Stop:
        loops.Loop(ppo_tf.MLflowLogger("handled", tracking_uri=database)).end()
    assert mlflow_runs(database, "handled")[1][0].info.status == "FINISHED"
