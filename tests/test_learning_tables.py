"""The tables of benchmarks/learning.py: valid settings, rows that are appended once, statistics."""

import json
import sys
from pathlib import Path

import pytest

from ppo_tf.command.presets import resolve

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
sys.path.append(str(BENCHMARKS))

import learning  # noqa: E402
from tables import TABLES, Table  # noqa: E402


@pytest.mark.parametrize("name", TABLES)
def test_tables_have_valid_settings(name):
    table = TABLES[name]
    assert table.first_seed == (1000 if name.endswith("trials") else 0)
    for env in table.envs:
        for label in table.settings:
            assert "," not in label  # --labels is a list
            s = {n: v.value for n, v in resolve(env, table.settings_of(env, label)).items()}
            assert s["horizon"] * s["num_envs"] % s["minibatch_size"] == 0


def test_the_papers_table_has_its_eleven_settings_and_seven_tasks():
    paper = TABLES["paper"]
    assert (len(paper.settings), len(paper.envs), paper.seeds) == (11, 7, 3)


@pytest.fixture
def finished(tmp_path, monkeypatch):
    """Returns a function that leaves a finished run of a small table."""
    monkeypatch.setattr(learning, "RESULTS", tmp_path)
    monkeypatch.setattr(learning, "RUNS", tmp_path / "runs")
    monkeypatch.setitem(TABLES, "small", Table(["CartPole-v1"], {"one": {"gamma": 0.5}}, 2))

    def leave(seed):
        folder = tmp_path / "runs" / "small" / f"CartPole-v1-one-seed{seed}"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text('{"settings": {"total_steps": {"value": 200}}}')
        result = {"mean_return": 7.0, "std_return": 1.0, "min_return": 5.0, "max_return": 9.0}
        both = {"deterministic": {**result, "episodes": 3}, "sampled": {"mean_return": 6.0}}
        (folder / "evaluation.json").write_text(json.dumps(both))
        lines = ["rollout/steps,rollout/episode_return,time/seconds"]
        lines += ["1,,0.5", "2,10,1.0", "4,30,2.0", "100,40,3.0", "200,50,4.0"]
        (folder / "metrics.csv").write_text("\n".join(lines) + "\n")

    return leave


def test_a_finished_run_gets_its_row_and_curve_once(finished):
    finished(0)
    for _ in range(2):
        cells = learning.Cells("small", ["CartPole-v1"], ["one"], [0, 1])
        assert cells.next().seed == 1
        assert cells.next() is None
    (row,) = learning.rows_of("small")
    assert (row["env"], row["label"], row["seed"], row["steps"]) == (
        "CartPole-v1",
        "one",
        "0",
        "200",
    )
    assert (row["mean_return"], row["sampled_mean_return"]) == ("7.0", "6.0")
    assert row["training_return"] == "50.0"
    curve = learning.file_of("small", "curves").read_text().splitlines()
    # The last value of each of the fifty times four steps.
    assert [line.rsplit(",", 2)[1:] for line in curve[1:]] == [
        *(["4", "30.0"], ["100", "40.0"], ["200", "50.0"])
    ]


def test_a_row_with_other_settings_is_not_taken_for_the_run(finished, monkeypatch):
    finished(0)
    learning.Cells("small", ["CartPole-v1"], ["one"], [0]).next()
    monkeypatch.setitem(TABLES, "small", Table(["CartPole-v1"], {"one": {"gamma": 0.6}}, 2))
    with pytest.raises(SystemExit, match=r"other settings.*gamma=0\.5"):
        learning.Cells("small", ["CartPole-v1"], ["one"], [0])
