"""Random and odd values of settings: each is used, or refused in one line; none is nonsense."""

import json

import hypothesis
import odd
import pytest
from hypothesis import strategies as st

import ppo_tf
from ppo_tf.command import running, runs, train
from ppo_tf.command.settings import SETTINGS
from ppo_tf.support import memory

ENVS = ("CartPole-v1", "Pendulum-v1")
CONFIG = runs.make_config("0" * 16, "CartPole-v1", ppo_tf.presets.resolve("CartPole-v1", {}), {})
FLAGS = st.lists(st.tuples(st.sampled_from(sorted(SETTINGS)), odd.TEXTS), min_size=1, max_size=2)


@pytest.fixture
def planned(monkeypatch, tmp_path):
    """The plans that the command arrived at, none of which is carried out."""
    monkeypatch.chdir(tmp_path)
    plans = []
    monkeypatch.setattr(running, "dry_run", lambda plan: plans.append(plan) or 0)
    return plans


def start(flags, env="CartPole-v1", folder="run"):
    """Runs the command in this process; returns its exit code and standard error."""
    arguments = [f"--{name}={text}" for name, text in flags]
    with odd.captured() as told:
        code = train.main([f"--env={env}", f"--logdir={folder}", "--dry_run", *arguments])
    return code, told[0]


def check(flags, code, told, plans):
    """One plan of sane values, or one line that names a setting."""
    if code == 0:
        (plan,) = plans
        for name, setting in plan.settings.items():
            odd.assert_sane(name, setting.value)
    else:
        assert code == 2 and not plans
        odd.assert_one_line(told)
        assert any(name in told for name, _ in flags), told


def plan_of(flags, plans):
    plans.clear()
    check(flags, *start(flags), plans)


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_each_setting_takes_or_refuses_each_odd_value(name, planned):
    for text in odd.ODD_TEXTS:
        plan_of([(name, text)], planned)


@odd.few(150)
@hypothesis.given(FLAGS)
def test_random_flags_are_used_or_refused_in_one_line(planned, flags):
    plan_of(flags, planned)


@pytest.mark.slow
@odd.many(20_000)
@hypothesis.given(FLAGS)
def test_many_random_flags_are_used_or_refused_in_one_line(planned, flags):
    plan_of(flags, planned)


DRY = odd.flags_of([name for name in SETTINGS if name != "num_envs"], 1, 5)


@pytest.mark.slow
@odd.many(60)
@hypothesis.given(DRY, st.sampled_from(ENVS))
def test_dry_runs_of_random_flags_end_well_or_in_one_line(monkeypatch, tmp_path, flags, env):
    """With a gigabyte of memory, so that initialising the largest layers takes seconds."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(memory, "total_bytes", lambda: 10**9)
    tiny = [("num_envs", "2"), ("horizon", "32"), ("minibatch_size", "32"), ("hidden_sizes", "4")]
    given = [pair for pair in tiny if pair[0] not in dict(flags)] + flags
    code, told = start(given, env)
    assert list(tmp_path.iterdir()) == []
    if code != 0:
        assert code == 2
        odd.assert_one_line("".join(line for line in told.splitlines(True) if line[:4] != "E000"))


# ---- config.json


def read(config, folder):
    """Plans a run from a config.json: ValueError of one line, or sane settings."""
    (folder / "config.json").write_text(json.dumps(config))
    try:
        plan = runs.plan(None, {}, config=str(folder / "config.json"), logdir=str(folder / "run"))
    except ValueError as error:
        message = str(error)
        assert "\n" not in message and len(message) < 1000 and "Received" in message
        return
    for name, setting in plan.settings.items():
        assert SETTINGS[name].check(setting.value) == setting.value
        odd.assert_sane(name, setting.value)


CONFIGS = st.builds(odd.replaced, st.just(CONFIG), st.sampled_from([*odd.places(CONFIG)]), odd.JSON)


@odd.few(150)
@hypothesis.given(CONFIGS)
def test_random_values_in_a_config_are_used_or_refused_in_one_line(tmp_path, config):
    read(config, tmp_path)


@pytest.mark.slow
@odd.many(20_000)
@hypothesis.given(CONFIGS)
def test_many_random_values_in_a_config_are_used_or_refused_in_one_line(tmp_path, config):
    read(config, tmp_path)
