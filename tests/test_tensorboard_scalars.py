"""TensorBoardScalars: what TensorBoard shows of a run, interrupted or not."""

import json
import re
import subprocess
import sys
import time
import urllib.parse
import urllib.request

import loops
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing import event_accumulator, plugin_event_accumulator

import ppo_tf

SETTINGS = {
    "learning_rate": 3e-4,
    "epochs": 10,
    "hidden_sizes": (64, 64),
    "loss": "clip",
    "jit_compile": None,
    "baseline": True,
    "schedule": {"kind": "linear|constant"},
}
FLAT = {
    "learning_rate": 3e-4,
    "epochs": 10,
    "hidden_sizes": "64,64",
    "loss": "clip",
    "jit_compile": "none",
    "baseline": True,
    "schedule/kind": "linear|constant",
}


def points(folder, tag="train/loss", reader=event_accumulator):
    """[(step, value)] as read by one of TensorBoard's own readers."""
    events = reader.EventAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()
    return [(p.step, tf.make_ndarray(p.tensor_proto).item()) for p in events.Tensors(tag)]


def raw_points(folder):
    """[step] of every scalar record in the folder's files, whether a reader shows it or not."""
    steps = []
    for path in sorted(folder.glob("events*")):
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            if any(value.tag == "train/loss" for value in event.summary.value):
                steps.append(event.step)
    return steps


EXPECTED = [(100 * (i + 1), i + 0.5) for i in range(6)]


@pytest.mark.parametrize("cut_record", [False, True])
def test_a_resumed_run_shows_each_point_once(tmp_path, cut_record):
    """The run is killed after iteration 4; its last checkpoint is from iteration 2."""
    before = ppo_tf.TensorBoardScalars(tmp_path, SETTINGS)
    loop = loops.Loop(before).run(0, 2)
    state = json.loads(json.dumps(before.state()))
    loop.run(3, 4, train__loss=99.0)  # points after the checkpoint must not be seen
    if cut_record:  # the machine stopped in the middle of a write
        (path,) = tmp_path.glob("events*")
        path.write_bytes(path.read_bytes()[:-7])
    after = ppo_tf.TensorBoardScalars(tmp_path, SETTINGS)
    after.load_state(state)
    loops.Loop(after).run(3, 5).end()
    assert points(tmp_path) == EXPECTED
    assert raw_points(tmp_path) == [step for step, _ in EXPECTED]


def test_a_run_can_be_resumed_again_from_an_older_checkpoint(tmp_path):
    first = ppo_tf.TensorBoardScalars(tmp_path)
    loops.Loop(first).run(0, 1)
    old = first.state()
    second = ppo_tf.TensorBoardScalars(tmp_path)
    second.load_state(old)
    loops.Loop(second).run(2, 3, train__loss=98.0)
    newer = second.state()
    second_files = set(tmp_path.iterdir())
    third = ppo_tf.TensorBoardScalars(tmp_path)  # the newest checkpoint was damaged
    third.load_state(old)
    loops.Loop(third).run(2, 3)
    assert not set(tmp_path.iterdir()) >= second_files  # the second's file belongs to no run
    assert raw_points(tmp_path) == [100, 200, 300, 400]
    newer = third.state()
    fourth = ppo_tf.TensorBoardScalars(tmp_path)
    fourth.load_state(newer)
    loops.Loop(fourth).run(4, 5).end()
    assert len(list(tmp_path.iterdir())) == 3
    assert points(tmp_path) == EXPECTED


def test_files_of_other_writers_stay_as_they_are(tmp_path):
    earlier = ppo_tf.TensorBoardScalars(tmp_path)  # an earlier run of ours in the same folder
    loops.Loop(earlier).run(0, 0).end()
    run = ppo_tf.TensorBoardScalars(tmp_path)
    loop = loops.Loop(run).run(0, 0)
    state = run.state()
    loop.run(1, 1)
    (tmp_path / "events.out.tfevents.9999999999.other").write_bytes(b"")
    kept = {
        path: path.read_bytes() for path in tmp_path.iterdir() if path.name not in state["sizes"]
    }
    assert len(kept) == 2
    resumed = ppo_tf.TensorBoardScalars(tmp_path)
    resumed.load_state(state)
    loops.Loop(resumed).end()
    assert {path: path.read_bytes() for path in kept} == kept


def test_a_new_run_in_a_used_folder_hides_the_previous_one(tmp_path):
    loops.Loop(ppo_tf.TensorBoardScalars(tmp_path)).run(0, 5, train__loss=97.0).end()
    callback = ppo_tf.TensorBoardScalars(tmp_path)
    loops.Loop(callback).run(0, 2).end()
    server = plugin_event_accumulator  # the server's reader; the other one shows everything
    assert points(tmp_path, reader=server) == EXPECTED[:3]
    loops.Loop(callback).run(0, 1).end()  # the same object once more
    assert points(tmp_path, reader=server) == EXPECTED[:2]


@pytest.mark.parametrize(
    "name",
    ["../mine.txt", "/mine.txt", "mine.txt", "events.out.tfevents.0000000001.a/../../b.ppo_tf", 3],
)
def test_a_state_never_names_a_file_that_is_not_ours(name, tmp_path):
    callback = ppo_tf.TensorBoardScalars(tmp_path / "run")
    with pytest.raises(ValueError, match="the name of one of our event files"):
        callback.load_state({"sizes": {name: 1}, "steps": 100})


@pytest.mark.parametrize("room", [0, 3000])
def test_a_full_disk_is_one_clear_error(tmp_path, room):
    """A limit on file size fails like a full disk, in the middle of a write."""
    resource = pytest.importorskip("resource")  # not on Windows
    callback = ppo_tf.TensorBoardScalars(tmp_path, SETTINGS)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        with pytest.raises(OSError, match=r"cannot write .*tfevents.*ppo_tf: ") as caught:
            loop = loops.Loop(callback)
            try:
                loop.run(0, 999)
            finally:
                loop.end()
        assert caught.value.__cause__.__context__ is None  # it is the first failure
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


class Server:
    """A TensorBoard in a separate process, on a free port."""

    def __init__(self, logdir):
        command = [sys.executable, "-m", "tensorboard.main", "--host=127.0.0.1", "--port=0"]
        command += [f"--logdir={logdir}", "--reload_interval=1"]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.deadline = time.monotonic() + 60
        for line in self._process.stderr:
            if found := re.search(r"http://\S+?:(\d+)/", line):
                self._url = f"http://127.0.0.1:{found[1]}/data/"
                return
        raise AssertionError("TensorBoard ended")

    def get(self, path, body=None, **query):
        url = f"{self._url}{path}?{urllib.parse.urlencode(query)}"
        request = urllib.request.Request(
            url, json.dumps(body).encode() if body else None, {"Content-Type": "application/json"}
        )
        return json.loads(urllib.request.urlopen(request, timeout=30).read())

    def wait(self, condition):
        """Waits until the condition returns something true; returns that."""
        while not (found := condition()):
            assert time.monotonic() < self.deadline, "TensorBoard does not show it"
            time.sleep(0.1)
        return found

    def stop(self):
        self._process.kill()
        self._process.wait()
        self._process.stderr.close()


def test_a_tensorboard_server_shows_the_run(tmp_path):
    learner, envs = loops.make_learner()
    collector = ppo_tf.VectorCollector(envs, learner.policy, loops.HORIZON)
    rollouts = [collector.collect() for _ in range(3)]
    rollouts[0] = (rollouts[0][0], [])  # no episode has ended: a log without a value
    history = ppo_tf.fit(
        learner,
        loops.Data(rollouts),
        total_steps=3 * loops.BATCH,
        callbacks=[ppo_tf.TensorBoardScalars(tmp_path / "run", SETTINGS)],
    )
    server = Server(tmp_path)
    try:
        names = set(history) - {"rollout/steps"}
        tags = server.wait(lambda: server.get("plugin/scalars/tags").get("run"))
        assert set(tags) == names
        for name in names:
            shown = server.get("plugin/scalars/scalars", run="run", tag=name)
            there = [
                (step, np.float32(value))
                for step, value in zip(history["rollout/steps"], history[name], strict=True)
                if not np.isnan(value)
            ]
            assert [(step, np.float32(value)) for _, step, value in shown] == there, name
        assert (
            len(server.get("plugin/scalars/scalars", run="run", tag="rollout/episode_return")) == 2
        )

        (text,) = server.get("plugin/text/text", run="run", tag="settings")
        for name, value in FLAT.items():
            assert f"<td>{name}</td>\n<td>{value}</td>" in text["text"], name

        experiment = server.get("plugin/hparams/experiment", {"experimentName": "."})
        types = {info["name"]: info["type"] for info in experiment["hparamInfos"]}
        assert set(types) == set(FLAT)
        assert types["learning_rate"] == types["epochs"] == "DATA_TYPE_FLOAT64"
        assert (types["loss"], types["baseline"]) == ("DATA_TYPE_STRING", "DATA_TYPE_BOOL")
        metrics = [info["name"]["tag"] for info in experiment["metricInfos"]]
        assert metrics == ["rollout/episode_return", "eval/mean_return"]
        request = {
            "experimentName": ".",
            "allowedStatuses": ["STATUS_SUCCESS"],  # the run ended well
            "colParams": [{"metric": {"tag": "rollout/episode_return", "group": ""}}],
            "startIndex": 0,
            "sliceSize": 10,
        }
        (group,) = server.get("plugin/hparams/session_groups", request)["sessionGroups"]
        assert group["hparams"] == FLAT
        values = {v["name"]["tag"]: v["value"] for v in group["metricValues"]}
        assert values == {
            "rollout/episode_return": pytest.approx(history["rollout/episode_return"][-1])
        }

        # The run resumes from a checkpoint while the server runs: the later points disappear.
        folder = tmp_path / "live"
        before = ppo_tf.TensorBoardScalars(folder)
        loop = loops.Loop(before).run(0, 2)
        state = before.state()
        loop.run(3, 5, train__loss=99.0)

        def shown():
            if "live" not in server.get("plugin/scalars/tags"):
                return []
            found = server.get("plugin/scalars/scalars", run="live", tag="train/loss")
            return [(step, value) for _, step, value in found]

        server.wait(lambda: len(shown()) == 6)
        after = ppo_tf.TensorBoardScalars(folder)
        after.load_state(state)
        loops.Loop(after).run(3, 4).end()
        server.wait(lambda: shown() == EXPECTED[:5])
    finally:
        server.stop()
