"""The sweep command: which runs it makes, what it reports, how it ends and is resumed."""

import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import forked
import pytest
from train_command import read_csv

from ppo_tf.command import runs
from ppo_tf.command.sweeping.grid import Run
from ppo_tf.command.sweeping.processes import caught_signals
from ppo_tf.command.sweeping.space import parse

FAKE = Path(__file__).with_name("fake_train.py")
ONE = "--env=CartPole-v1"
SEARCH = "--search=learning_rate=1e-6..1 log"


def start(cwd, *arguments, script=FAKE, **kwargs):
    """Starts the command in a separate process, with a training script that costs nothing."""
    flags = [f"--script={script}"] if script else []
    return subprocess.Popen(
        [sys.executable, "-m", "ppo_tf", "sweep", *flags, *arguments],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **kwargs,
    )


def sweep(cwd, *arguments, **kwargs):
    """Runs the command; returns its exit code, standard output and standard error."""
    process = start(cwd, *arguments, **kwargs)
    out, err = end(process)
    return process.returncode, out, err


def end(process):
    """Waits for the command; returns its standard output and standard error."""
    try:
        return process.communicate(timeout=120)
    finally:
        process.terminate()  # which ends its runs
        process.wait()


def rows(folder):
    return read_csv(folder / "results.csv")


def table(folder):
    """Returns the cells of the table in results.md, header first."""
    lines = (folder / "results.md").read_text().splitlines()
    cells = [line.strip("|").split("|") for line in lines if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in (cells[:1] + cells[2:])]


def starts(cwd):
    """Returns the names of the runs in the order they were started."""
    return [line.split()[0] for line in (cwd / "starts.txt").read_text().splitlines()]


def wait_for(condition, process):
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "waited a minute"
        time.sleep(0.02)


def alive(cwd):
    """Returns the process ids of runs that have not ended."""
    pids = [int(line.split()[1]) for line in (cwd / "starts.txt").read_text().splitlines()]
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


# ---- grids


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    """A grid of 2 x 3 settings and 2 seeds, in which one rate fails: (cwd, code, out, err)."""
    cwd = tmp_path_factory.mktemp("grid")
    settings = ["--grid=estimator=gae,n_step", "--grid=learning_rate=3e-4,1e-3,7e-7"]
    return cwd, *sweep(cwd, ONE, "--seeds=2", *settings, "--sweepdir=s", "--", "--horizon=8")


def test_a_grid_is_the_product_of_its_values_with_every_seed(grid):
    cwd = grid[0]
    combinations = {(r["estimator"], r["learning_rate"], r["seed"]) for r in rows(cwd / "s")}
    rates = ("0.0003", "0.001", "7e-07")
    assert combinations == {(e, rate, s) for e in ("gae", "n_step") for rate in rates for s in "01"}
    assert len(starts(cwd)) == len(set(starts(cwd))) == 12
    name = "estimator=n_step-learning_rate=0.001-seed1"
    assert json.loads((cwd / "s" / name / "config.json").read_text())["flags"] == {
        "env": "CartPole-v1",
        "estimator": "n_step",
        "learning_rate": "0.001",
        "horizon": "8",
        "seed": "1",
        "logdir": f"s/{name}",
        "resume": "auto",
    }


def test_a_value_of_none_is_passed_and_overrides_a_preset(tmp_path):
    assert sweep(tmp_path, ONE, "--grid=early_stopping_kl=none,0.01", "--sweepdir=s")[0] == 0
    (folder,) = (tmp_path / "s").glob("early_stopping_kl=none*/")
    assert json.loads((folder / "config.json").read_text())["flags"]["early_stopping_kl"] == "none"


def test_a_failed_run_is_named_with_its_error_and_the_others_continue(grid):
    cwd, code, out, err = grid
    assert (code, err) == (1, "")
    results = rows(cwd / "s")
    assert {r["status"] for r in results if r["learning_rate"] == "7e-07"} == {"failed"}
    assert {r["status"] for r in results if r["learning_rate"] != "7e-07"} == {"finished"}
    assert out.count(": failed, this rate is wrong\n") == 4
    assert "- estimator=gae-learning_rate=7e-07-seed1: this rate is wrong" in out
    text = (cwd / "s" / "estimator=gae-learning_rate=7e-07-seed1.txt").read_text()
    assert text.splitlines() == ["before", "error: this rate is wrong", "policy: none"]


def test_the_table_has_mean_and_spread_over_seeds_best_first(grid):
    cwd, _, out, _ = grid
    head, *body = table(cwd / "s")
    assert head == ["estimator", "learning_rate", "return", "standard error", "seeds", "steps/s"]
    # The returns of seeds 0 and 1 are best and best + 1: their standard deviation is sqrt(1/2).
    low = -10 * math.log10(0.3) ** 2
    assert body == [
        ["gae", "0.001", "0.500 +- 0.707", "0.500", "2", "500"],
        ["n_step", "0.001", "0.500 +- 0.707", "0.500", "2", "500"],
        ["gae", "0.0003", f"{low + 0.5:.3f} +- 0.707", "0.500", "2", "500"],
        ["n_step", "0.0003", f"{low + 0.5:.3f} +- 0.707", "0.500", "2", "500"],
        ["gae", "7e-07", "", "", "0 of 2 (failed)", ""],
        ["n_step", "7e-07", "", "", "0 of 2 (failed)", ""],
    ]
    text = (cwd / "s" / "results.md").read_text()
    assert text.startswith("# CartPole-v1 --horizon=8\n")
    assert text.partition("\n\n")[2] in out
    best = json.loads((cwd / "s" / "best.json").read_text())
    assert best == {"estimator": "gae", "learning_rate": 0.001}
    assert "--env=CartPole-v1 --estimator=gae --learning_rate=0.001 --horizon=8\n" in out


def test_a_row_holds_the_numbers_of_its_run(grid):
    row = next(r for r in rows(grid[0] / "s") if r["learning_rate"] == "0.001" and r["seed"] == "1")
    numbers = ("mean_return", "std_return", "steps_per_second", "seconds")
    assert [float(row[name]) for name in numbers] == [1.0, 1.5, 500.0, 2.9]


def test_runs_are_parallel_each_with_its_share_of_the_threads(tmp_path):
    code, out, err = sweep(
        tmp_path, ONE, "--seeds=3", "--jobs=3", "--sweepdir=s", "--", "--together=3"
    )
    assert (code, err) == (0, ""), out
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    share = max(1, cores // 3)
    threads = json.loads((tmp_path / "s" / "seed2" / "config.json").read_text())["threads"]
    names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
    for name in names:
        assert threads[name] == os.environ.get(name, str(share))
    assert table(tmp_path / "s")[1][0] == "1.000 +- 1.000"


def test_the_same_sweep_is_resumed(tmp_path):
    command = [ONE, "--seeds=2", "--grid=learning_rate=1e-3,1e-2", "--sweepdir=s"]
    assert sweep(tmp_path, *command)[0] == 0
    before = rows(tmp_path / "s")
    (tmp_path / "s" / "learning_rate=0.01-seed1" / "evaluation.json").unlink()
    (tmp_path / "starts.txt").unlink()
    code, out, err = sweep(tmp_path, *command)
    assert (code, err) == (0, "")
    assert starts(tmp_path) == ["learning_rate=0.01-seed1"]
    assert rows(tmp_path / "s") == before
    assert "runs already finished: 3\n" in out
    # The folder alone determines the sweep, and seeds may be added.
    assert sweep(tmp_path, "--sweepdir=s", "--seeds=3")[0] == 0
    assert sorted(starts(tmp_path)[1:]) == ["learning_rate=0.001-seed2", "learning_rate=0.01-seed2"]
    assert len(rows(tmp_path / "s")) == 6
    for other, words in (
        (["--seeds=2"], "seeds=3. Received: seeds=2"),
        (["--grid=gamma=0.9"], "grid={'learning_rate': [0.001, 0.01]}. Received: grid={'gamma'"),
        (["--", "--horizon=8"], "train_flags=None. Received: train_flags=['--horizon=8']"),
    ):
        code, out, err = sweep(tmp_path, "--sweepdir=s", *other)
        assert (code, out) == (2, "")
        assert re.fullmatch(f"error: sweepdir holds another sweep, .*{re.escape(words)}.*\n", err)


def test_results_that_cannot_be_written_end_the_sweep_in_one_line(tmp_path):
    assert sweep(tmp_path, ONE, "--sweepdir=s")[0] == 0
    (tmp_path / "s" / "results.csv").unlink()
    (tmp_path / "s" / "results.csv").mkdir()
    code, _, err = sweep(tmp_path, "--sweepdir=s", "--seeds=3", "--jobs=1")
    assert code == 1
    assert re.fullmatch("error: .*results.csv.*\n", err)
    assert starts(tmp_path) == ["seed0", "seed1"]
    assert alive(tmp_path) == []


def test_signals_are_caught_for_a_while():
    before = signal.getsignal(signal.SIGINT)
    with caught_signals() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
    assert signals == [signal.SIGINT, signal.SIGTERM]
    assert signal.getsignal(signal.SIGINT) == before


def test_ctrl_c_ends_the_runs_and_tells_how_to_resume(tmp_path):
    process = start(tmp_path, ONE, "--seeds=3", "--jobs=2", "--sweepdir=s", "--", "--hang=seed1")
    metrics = tmp_path / "s" / "seed1" / "metrics.csv"
    wait_for(lambda: metrics.exists() and (tmp_path / "s/seed2/evaluation.json").exists(), process)
    code, _, refused = sweep(tmp_path, "--sweepdir=s")
    assert code == 2 and "Another" in refused and "sweepdir=s" in refused
    process.send_signal(signal.SIGINT)
    _, err = end(process)
    assert process.returncode == 130
    assert alive(tmp_path) == []
    assert err == f"interrupted; to resume: ppo-tf sweep --sweepdir=s --script={FAKE}\n"
    assert [r["status"] for r in rows(tmp_path / "s")] == ["finished", "interrupted", "finished"]
    assert "2 of 3 (interrupted)" in table(tmp_path / "s")[1]


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_a_sweep_that_is_killed_takes_its_runs_along(tmp_path):
    process = start(tmp_path, ONE, "--seeds=2", "--jobs=2", "--sweepdir=s", "--", "--hang=seed")
    metrics = [tmp_path / "s" / f"seed{seed}" / "metrics.csv" for seed in (0, 1)]
    wait_for(lambda: all(path.exists() for path in metrics), process)
    assert len(alive(tmp_path)) == 2
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10  # before the guard's patience is over
    while alive(tmp_path):
        assert time.monotonic() < deadline, "they go on"
        time.sleep(0.02)
    process.communicate()


def test_a_run_that_was_killed_is_named_with_its_signal(tmp_path):
    process = start(tmp_path, ONE, "--sweepdir=s", "--", "--hang=seed")
    wait_for((tmp_path / "s" / "seed0" / "metrics.csv").exists, process)
    os.kill(alive(tmp_path)[0], signal.SIGTERM)
    out, _ = end(process)
    assert process.returncode == 1 and f"failed, ended by signal {signal.SIGTERM:d}\n" in out


def test_a_new_start_waits_for_runs_that_still_end(tmp_path):
    folder = tmp_path / "s" / "seed0"
    assert sweep(tmp_path, ONE, "--sweepdir=s")[0] == 0
    (folder / "evaluation.json").write_text('{"deterministic": {"mean_return"')  # half
    lock = runs.lock_folder(folder)
    process = start(tmp_path, "--sweepdir=s")
    lines = [process.stdout.readline() for _ in range(3)]
    assert lines[2] == "1/1 seed=0: waits for the process that still writes to its folder\n"
    assert starts(tmp_path) == ["seed0"]
    lock.release()
    end(process)
    assert process.returncode == 0 and starts(tmp_path) == ["seed0"] * 2
    assert [row["status"] for row in rows(tmp_path / "s")] == ["finished"]


# ---- damaged files, and somebody else's folder


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("evaluation.json", "[]"),
        ("evaluation.json", '{"deterministic": {"mean_return": "9", "std_return": 0}}'),
        ("metrics.csv", "time/seconds\nx\n1,2\n"),
        ("metrics.csv", "\0\n"),
        ("config.json", '{"settings": {"total_steps": {"value": -1}}}'),
        ("config.json", "{"),
    ],
)
def test_a_damaged_file_of_a_run_is_one_without_values(name, text, tmp_path):
    (tmp_path / name).write_text(text)
    run = Run("label", "group", {}, 0, tmp_path)
    assert run.status == "waiting" and run.total_steps() is None
    rows = run.metrics("time/seconds")
    assert rows == [] or [[math.isnan(value) for value in row] for row in rows] == [[True]]


@pytest.fixture
def strange(tmp_path):
    """Writes a sweep.json with some entries; returns a function that resumes the sweep."""

    def resume(text=None, **entries):
        folder = tmp_path / "s"
        folder.mkdir(exist_ok=True)
        asked = {"env": "CartPole-v1", "seeds": 1, **entries}
        (folder / "sweep.json").write_text(text or json.dumps(asked))
        return sweep(tmp_path, "--sweepdir=s", script=None)

    return resume


def test_a_script_that_a_file_names_is_never_run(strange, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(f"open({str(tmp_path / 'was_run')!r}, 'w')")
    code, out, err = strange(script=str(script))
    assert (code, out) == (2, "")
    assert re.fullmatch(f"error: .*give --script={re.escape(str(script))} again.*\n", err)
    assert not (tmp_path / "was_run").exists() and not (tmp_path / "s" / "seed0").exists()


@pytest.mark.parametrize(
    "entries",
    [
        {"text": "[]"},
        {"text": "{"},
        {"text": "[" * 100_000},
        {"env": ["CartPole-v1"]},
        {"seeds": "3"},
        {"seeds": -1},
        {"grid": [1]},
        {"grid": {"../x": [1]}},
        {"grid": {"gamma": 0.9}},
        {"search": {"gamma": {"low": 0}}},
        {"train_flags": "--horizon=8"},
        {"train_flags": ["--flagfile=mine"]},
        {"more": 1},
    ],
    ids=lambda entries: str(entries)[:40],
)
def test_a_file_that_is_no_sweep_is_one_line(entries, strange):
    code, out, err = strange(**entries)
    assert (code, out) == (2, "")
    assert re.fullmatch(r"error: s.sweep\.json is not a sweep's: .*Received: sweepdir=s\n", err)


# ---- searches


def test_a_search_finds_the_best_rate(tmp_path):
    pytest.importorskip("optuna")
    code, out, err = sweep(tmp_path, ONE, SEARCH, "--trials=16", "--sweepdir=s")
    assert (code, err) == (0, "")
    best = json.loads((tmp_path / "s" / "best.json").read_text())
    assert abs(math.log10(best["learning_rate"]) + 3) < 0.3  # within a range of 6
    assert f"--env=CartPole-v1 --learning_rate={best['learning_rate']}\n" in out
    finished = {float(r["learning_rate"]) for r in rows(tmp_path / "s") if r["mean_return"]}
    assert min(finished, key=lambda rate: abs(math.log10(rate) + 3)) == best["learning_rate"]
    assert len(table(tmp_path / "s")) == 1 + 16


def test_a_search_stops_a_bad_trial_and_can_be_resumed(tmp_path):
    optuna = pytest.importorskip("optuna")
    search = [SEARCH, "--search=hidden_sizes=8,8;4", "--jobs=1", "--sweepdir=s"]
    fake = ["--", "--hang=trial006"]  # never ends by itself
    code, out, err = sweep(tmp_path, ONE, *search, "--seeds=2", "--trials=7", *fake)
    assert (code, err) == (0, "")
    assert alive(tmp_path) == []
    pruned = next(r for r in rows(tmp_path / "s") if r["trial"] == "6")
    assert (pruned["seed"], pruned["status"]) == ("0", "pruned")
    assert re.search(r"\ntrial 6 .* seed=0: pruned, return -1\d+ after \d0% of its steps\n", out)
    assert "--hidden_sizes=8,8" in out or "--hidden_sizes=4" in out

    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "s" / "study.journal"))
    storage = optuna.storages.JournalStorage(backend)
    trials = optuna.load_study(study_name=None, storage=storage).trials
    assert trials[6].state == optuna.trial.TrialState.PRUNED
    for trial in trials:
        own = [r for r in rows(tmp_path / "s") if r["trial"] == str(trial.number)]
        if trial.state == optuna.trial.TrialState.COMPLETE:
            returns = [float(r["mean_return"]) for r in own]
            assert len(returns) == 2 and trial.value == pytest.approx(sum(returns) / 2)

    before = rows(tmp_path / "s")
    (tmp_path / "starts.txt").unlink()
    assert sweep(tmp_path, "--sweepdir=s", "--jobs=1", "--trials=8")[0] == 0
    assert all(name.startswith("trial007") for name in starts(tmp_path))
    assert [r for r in rows(tmp_path / "s") if r["trial"] != "7"] == before


def test_an_interrupted_search_ends_like_an_uninterrupted_one(tmp_path):
    pytest.importorskip("optuna")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    search = [ONE, SEARCH, "--seeds=2", "--trials=4", "--jobs=1", "--sweepdir=s"]
    assert sweep(tmp_path / "one", *search)[0] == 0
    process = start(tmp_path / "two", *search)
    wait_for(lambda: list(tmp_path.glob("two/s/trial001*")), process)
    process.send_signal(signal.SIGINT)
    _, err = end(process)
    assert process.returncode == 130, err
    assert sweep(tmp_path / "two", "--sweepdir=s", "--jobs=1")[0] == 0
    assert rows(tmp_path / "one" / "s") == rows(tmp_path / "two" / "s")
    names = starts(tmp_path / "two")
    assert len(names) - len(set(names)) <= 1  # the run that was interrupted


# ---- the real training command, and what follows it


@pytest.fixture(scope="module")
def real_runs(tmp_path_factory):
    """A folder in which a sweep has made two real training runs: (cwd, code, out, err)."""
    cwd = tmp_path_factory.mktemp("true")
    tiny = ["--total_steps=64", "--num_envs=2", "--horizon=16", "--minibatch_size=16"]
    tiny += ["--epochs=1", "--eval_episodes=2", "--hidden_sizes=4", "--nojit_compile"]
    command = [ONE, "--grid=recompute_advantages=true,false", "--jobs=2", "--sweepdir=s"]
    return cwd, *sweep(cwd, *command, "--", *tiny, script=None)


def elsewhere(cwd, *arguments):
    """Runs `ppo-tf` in a separate process; returns exit code, standard output and error."""
    return forked.run("-m", "ppo_tf", *arguments, cwd=cwd)


def test_two_real_runs(real_runs):
    cwd, code, out, err = real_runs
    assert (code, err) == (0, ""), out
    for row, value in zip(rows(cwd / "s"), (True, False), strict=True):
        folder = cwd / "s" / row["logdir"]
        settings = json.loads((folder / "config.json").read_text())["settings"]
        assert settings["recompute_advantages"] == {"value": value, "source": "flag"}
        evaluation = json.loads((folder / "evaluation.json").read_text())["deterministic"]
        assert float(row["mean_return"]) == evaluation["mean_return"]
        assert float(row["std_return"]) == evaluation["std_return"]
        assert float(row["steps_per_second"]) > 0
        assert (folder / "policy" / "saved_model.pb").exists()


def test_the_best_settings_are_printed_as_a_command(real_runs):
    cwd, _, out, _ = real_runs
    (line,) = re.findall(r"The best settings:\n\n    (.*)", out)
    program, *words = shlex.split(line)
    assert (program, words[0]) == ("ppo-tf", "train")
    best = json.loads((cwd / "s" / "best.json").read_text())
    code, out, err = elsewhere(cwd, *words, "--dry_run")
    idle = "warning: --recompute_advantages=true has no effect with epochs=1\n"
    assert (code, err) == (0, idle if best["recompute_advantages"] else "")
    assert f"recompute_advantages={best['recompute_advantages']}" in out.partition("preset:")[0]


def test_a_policy_of_a_sweep_is_evaluated(real_runs):
    """On the episodes of the training command's final evaluation."""
    cwd = real_runs[0]
    run = rows(cwd / "s")[0]
    policy = f"--policy=s/{run['logdir']}/policy"
    code, out, err = elsewhere(cwd, "evaluate", policy, "--episodes=2")
    mean, std = float(run["mean_return"]), float(run["std_return"])
    assert (code, out, err) == (0, f"return {mean:.1f} +- {std:.1f} over 2 episodes\n", "")


def test_the_runs_of_a_sweep_are_drawn(real_runs):
    pytest.importorskip("matplotlib")
    pytest.importorskip("scipy")
    cwd = real_runs[0]
    assert elsewhere(cwd, "plot", "s", "--out=curves/s.svg") == (0, "wrote curves/s.svg\n", "")
    assert "recompute_advantages=False" in (cwd / "curves" / "s.svg").read_text()


# ---- what the flags mean


def test_values_and_ranges_have_the_type_of_their_setting():
    assert parse("grid", ["epochs=1, 2", "gamma=1,.9", "estimator=gae", "baseline=True,false"]) == {
        "epochs": [1, 2],
        "gamma": [1.0, 0.9],
        "estimator": ["gae"],
        "baseline": [True, False],
    }
    assert parse(
        "grid", ["hidden_sizes=32,32;64,64", "early_stopping_kl=none,0.01", "jit_compile=true,none"]
    ) == {
        "hidden_sizes": ["32,32", "64,64"],
        "early_stopping_kl": [None, 0.01],
        "jit_compile": [True, None],
    }
    assert parse("search", ["learning_rate=1e-5..1e-2 log", "epochs=1..20", "loss=clip"]) == {
        "learning_rate": {"low": 1e-5, "high": 1e-2, "log": True},
        "epochs": {"low": 1, "high": 20, "log": False},
        "loss": ["clip"],
    }


BAD_INPUT = {
    "no env": ([], ["--env", "required"]),
    "an unknown flag": ([ONE, "--seed=5"], ["seed", "seeds"]),
    "an argument that is not a flag": ([ONE, "gae"], ["gae"]),
    "no seeds": ([ONE, "--seeds=0"], ["seeds=0"]),
    "no jobs": ([ONE, "--jobs=0"], ["jobs=0"]),
    "no trials": ([ONE, SEARCH, "--trials=0"], ["trials=0"]),
    "trials of a grid": ([ONE, "--trials=3"], ["--trials", "--search"]),
    "a misspelt setting": (
        [ONE, "--grid=learning_rat=1"],
        ["'learning_rat'", "mean learning_rate"],
    ),
    "the seed as a setting": ([ONE, "--grid=seed=1,2"], ["seed", "--seeds"]),
    "an empty grid": ([ONE, "--grid="], ["--grid=''"]),
    "no values": ([ONE, "--grid=gamma="], ["gamma needs values", "--grid='gamma='"]),
    "a value missing": ([ONE, "--grid=gamma=0.9,,1"], ["gamma needs values"]),
    "a value twice": ([ONE, "--grid=gamma=0.9,.9"], ["gamma", "twice"]),
    "a setting twice": ([ONE, "--grid=gamma=0.9", "--grid=gamma=1"], ["gamma", "twice"]),
    "not an integer": ([ONE, "--grid=epochs=1,2.5"], ["epochs", "an integer", "'2.5'"]),
    "not a number": ([ONE, "--grid=gamma=high"], ["gamma", "number", "'high'"]),
    "no such choice": ([ONE, "--grid=estimator=gae,td"], ["estimator", "n_step", "'td'"]),
    "not a truth value": ([ONE, "--grid=baseline=maybe"], ["baseline", "true or false"]),
    "a value out of bounds": ([ONE, "--grid=gamma=0.9,1.5"], ["gamma", "from 0 to 1", "1.5"]),
    "a range in a grid": ([ONE, "--grid=gamma=0.9..1"], ["gamma", "'0.9..1'"]),
    "a range backwards": ([ONE, "--search=gamma=1..0.9"], ["gamma", "low end"]),
    "an endless range": ([ONE, "--search=gamma=0..inf"], ["gamma", "finite"]),
    "the logarithm of 0": ([ONE, "--search=gamma=0..1 log"], ["gamma", "above 0"]),
    "a range out of bounds": ([ONE, "--search=gamma=0.9..1.5"], ["gamma", "from 0 to 1", "1.5"]),
    "a range of words": ([ONE, "--search=loss=a..b"], ["loss", "no range"]),
    "a grid and a search": ([ONE, SEARCH, "--grid=gamma=1"], ["--grid", "--search"]),
    "a seed for the runs": ([ONE, "--", "--seed=3"], ["seed", "--seed=3"]),
    "a setting twice for the runs": (
        [ONE, "--grid=baseline=true,false", "--", "--nobaseline"],
        ["baseline", "--nobaseline"],
    ),
    "a folder of something else": ([ONE, "--sweepdir=folder"], ["sweepdir", "folder"]),
    "a folder under a file": ([ONE, "--sweepdir=folder/file/s"], ["folder/file"]),
}


@pytest.mark.parametrize("name", BAD_INPUT)
def test_bad_input_is_a_one_line_error_that_names_it_and_leaves_nothing(name, tmp_path):
    arguments, words = BAD_INPUT[name]
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("a file")
    code, out, err = sweep(tmp_path, *arguments)
    assert (code, out) == (2, "")
    assert re.fullmatch("error: .*\n", err)
    for word in words:
        assert word in err
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]


def test_without_optuna_a_search_tells_what_to_install(tmp_path):
    (tmp_path / "optuna.py").write_text("raise ImportError")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    code, out, err = sweep(tmp_path, ONE, SEARCH, env=os.environ | {"PYTHONPATH": path})
    assert (code, out) == (2, "")
    assert err == "error: --search needs the extra 'sweep': pip install 'ppo_tf[sweep]'\n"
    assert not (tmp_path / "sweeps").exists()
