"""The speed table of benchmarks/speed.py: adapters, trials, clock, report. No peer is needed."""

import ast
import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
sys.path.append(str(BENCHMARKS))

import peers  # noqa: E402
import speed  # noqa: E402
from field.job import WARM_UP, Clock, Job  # noqa: E402
from field.libraries import LIBRARIES, TORCH  # noqa: E402
from field.table import print_case  # noqa: E402

SMALL = ("CartPole-v1", 2, 8, 2, 8, 3)
PEERS = [name for name, library in LIBRARIES.items() if library.packages]


@pytest.mark.parametrize("name", LIBRARIES)
def test_every_library_has_an_adapter_that_trains_with_the_shared_settings(name):
    source = (BENCHMARKS / "field" / f"{LIBRARIES[name].adapter}.py").read_text()
    (train,) = [
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef) and node.name == "train"
    ]
    assert [argument.arg for argument in train.args.args] == ["job", "clock"]
    if name in PEERS and name != "SBX":  # which trains by the adapter of Stable-Baselines3
        for setting in ("job.epochs", "job.minibatch", "job.(horizon|steps)"):
            assert re.search(setting, source)
        assert "HIDDEN_SIZES" in source or name == "CleanRL"  # whose scripts have the same ones


@pytest.mark.parametrize("name", PEERS)
def test_every_peer_is_pinned_and_chooses_its_threads_by_trial(name):
    library = LIBRARIES[name]
    assert all("==" in each for each in (*library.packages, *library.bare)[:1])
    assert library.trial_in("HalfCheetah-v5")["threads"] == [1, 2]
    vectors = library.trial_in("CartPole-v1").get("vector", [])
    assert not {"processes", "async"} & set(vectors)
    torch = {each for each in library.packages if each.startswith("torch==")}
    assert torch <= {TORCH}


def test_no_two_libraries_share_a_virtual_environment():
    adapters = [LIBRARIES[name].adapter for name in PEERS]
    assert len(set(adapters)) == len(adapters)


def test_the_cases_have_whole_minibatches():
    for _, num_envs, horizon, _, minibatch, _ in speed.CASES.values():
        assert num_envs * horizon % minibatch == 0
    assert set(speed.FIELD) < set(speed.CASES)


def job(iterations):
    return Job("one", "CartPole-v1", 2, 10, 1, 5, iterations, 0.0)


def test_the_clock_times_the_iterations_after_the_warm_up(monkeypatch):
    moments = iter([*range(WARM_UP), 10.0, 14.0])
    monkeypatch.setattr("field.job.time.perf_counter", lambda: next(moments))
    clock = Clock()
    for _ in range(WARM_UP + 2):
        clock.tick()
    assert clock.rate(job(2)) == 2 * 20 / (14.0 - (WARM_UP - 1))


def test_the_clock_takes_iterations_that_are_compiled_into_one(monkeypatch):
    moments = iter([100.0, 104.0])
    monkeypatch.setattr("field.job.time.perf_counter", lambda: next(moments))
    clock = Clock()
    clock.tick(WARM_UP)
    clock.tick(6)
    assert clock.rate(job(6)) == 6 * 20 / 4.0


def test_the_clock_refuses_an_adapter_that_lost_iterations():
    clock = Clock()
    clock.tick(WARM_UP + 1)
    with pytest.raises(RuntimeError, match=rf"must end {WARM_UP + 2} .* Received: {WARM_UP + 1}"):
        clock.rate(job(2))


def test_a_trial_keeps_what_is_faster_and_drops_what_fails(monkeypatch):
    rates = {("in turn", 1): 10.0, ("processes", 1): None, ("in turn", 2): 20.0}

    def measure(python, adapter, *case_and_options):
        options = case_and_options[-1]
        rate = rates[options["vector"], options["threads"]]
        return {"error": "ValueError: no"} if rate is None else {"steps_per_second": rate}

    monkeypatch.setattr(speed, "measure", measure)
    case = ("HalfCheetah-v5", *SMALL[1:])
    options, error = speed.best_options("python", "Stable-Baselines3", case)
    assert (options, error) == ({"vector": "in turn", "threads": 2}, None)
    rates = dict.fromkeys(rates)
    assert speed.best_options("python", "Stable-Baselines3", case)[1] == "ValueError: no"


def test_what_fails_is_named_and_the_others_go_on(monkeypatch, tmp_path, capsys):
    def make_environment(folder, packages, bare):
        if folder.name == "skrl":
            error = "ERROR: No matching distribution found for skrl\n"
            raise subprocess.CalledProcessError(1, "pip", stderr=error)
        return "python"

    def measure(python, adapter, *case_and_options):
        if adapter == "rsl_rl":
            return {"error": "NotImplementedError: continuous actions only"}
        rate = {"ppo_tf": 600.0, "sb3": 100.0}[adapter]
        parts = dict.fromkeys(("environment", "acting", "bookkeeping", "update"), 0.25)
        return {"steps_per_second": rate, "peak_mb": 700.0, "first_update_s": 8.0} | parts

    monkeypatch.setattr(speed, "make_environment", make_environment)
    monkeypatch.setattr(speed, "measure", measure)
    out = tmp_path / "speed.csv"
    out.write_text("case,library,repeat,steps_per_second\nanother,sb3,0,5.0\n")
    names = ["ppo_tf", "Stable-Baselines3", "skrl", "rsl_rl"]
    arguments = ["--cases", "CartPole-v1 8 x 128", "--repeats=2", f"--out={out}", "--libraries"]
    monkeypatch.setattr(sys, "argv", ["speed.py", *arguments, *names])
    speed.main()
    with open(out, newline="") as file:
        kept, *rows = csv.DictReader(file)
    assert (kept["case"], kept["steps_per_second"]) == ("another", "5.0")
    assert list(rows[0]) == speed.COLUMNS
    errors = {row["library"]: row["error"] for row in rows if row["error"]}
    assert errors == {
        "skrl": "ERROR: No matching distribution found for skrl",
        "rsl_rl": "NotImplementedError: continuous actions only",
    }
    assert [row["library"] for row in rows if not row["error"]] == names[:2] * 2
    table = capsys.readouterr().out.split("###")[1]
    assert "| Stable-Baselines3 | 100 (100 to 100) | **6.00** (6.00 to 6.00) |" in table
    assert errors["skrl"] in table and errors["rsl_rl"] in table


def test_ratios_are_taken_repeat_by_repeat(capsys):
    rows = [
        {"case": "c", "library": library, "repeat": repeat, "steps_per_second": rate, "peak_mb": 1}
        for library, rates in {"ppo_tf + envpool": (100, 80, 30), "SBX": (50, 10, 10)}.items()
        for repeat, rate in enumerate(rates)
    ]
    for row in rows:
        row |= dict.fromkeys(("environment", "acting", "bookkeeping", "update"), 0.25)
        row["first_update_s"] = 9.0
    print_case(rows)
    printed = capsys.readouterr().out
    assert "**3.00** (2.00 to 8.00)" in printed
    assert "ppo_tf + envpool: environment 25%" in printed


def test_the_published_rows_can_be_reported(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["speed.py", "--report"])
    speed.main()
    assert "### CartPole-v1 8 x 128" in capsys.readouterr().out


def test_an_environment_is_installed_once(tmp_path, monkeypatch):
    commands = []
    monkeypatch.setattr(peers.venv, "create", lambda folder, with_pip: folder.mkdir())
    monkeypatch.setattr(peers.subprocess, "run", lambda command, **_: commands.append(command))
    python = peers.make_environment(tmp_path / "one", ["a==1"], ["b==2"])
    python.parent.mkdir(exist_ok=True)
    python.touch()
    peers.make_environment(tmp_path / "one", ["a==1"], ["b==2"])
    assert [command[-1] for command in commands] == ["a==1", "b==2"]
    assert "--no-deps" in commands[1] and "--no-deps" not in commands[0]
    peers.make_environment(tmp_path / "one", ["a==3"])  # another version
    assert commands[-1][-1] == "a==3"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("Traceback\n  File\nValueError: no such thing\n\nhint: try more\n", None),
        ("warning\nkilled\n", "killed"),
        ("", ""),
    ],
)
def test_an_error_is_its_own_line(text, line):
    assert speed.last_line(text) == ("ValueError: no such thing" if line is None else line)


def run_worker(adapter):
    names = ("env", "num_envs", "horizon", "epochs", "minibatch", "iterations")
    settings = dict(zip(names, SMALL, strict=True))
    settings |= {"adapter": adapter, "library": adapter, "started": 0.0}
    done = subprocess.run(
        [sys.executable, speed.WORKER, json.dumps(settings)],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def test_the_worker_measures_stepping_alone():
    assert run_worker("random_actions")["steps_per_second"] > 0


@pytest.mark.slow
def test_the_worker_measures_ppo_tf_without_envpool_and_its_shares():
    found = run_worker("ppo_tf")
    assert found["steps_per_second"] > 0 and found["engines"]["backend"] != "envpool"
    parts = ("environment", "acting", "bookkeeping", "update")
    assert abs(sum(found[part] for part in parts) - 1.0) < 1e-6
