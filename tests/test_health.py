"""HealthAdvice: each rule gives its advice once, and healthy runs get none."""

import io
import json
import math
import re

import gymnasium
import loops
import numpy as np
import pytest
import rich.console

import ppo_tf
from ppo_tf.actions.maps import ClipAction, DiscreteAction, JointAction, TanhAction
from ppo_tf.callbacks.health import RULES, WINDOW

NAN = math.nan


class Model:
    """Everything the callback needs from a policy."""

    def __init__(self, action_map):
        self.action_map = action_map


DISCRETE = Model(DiscreteAction())
BOX = Model(ClipAction(-1.0, 1.0, (2,)))
HEALTHY = {  # logs of a discrete policy that learns
    "rollout__episode_return": lambda i: 20.0 + i,
    "train__value_loss": 0.5,
    "train__explained_variance": lambda i: min(0.9, 0.1 * i),
    "train__kl": 0.01,
    "train__kl_k3": 0.01,
    "train__clip_fraction": 0.1,
    "train__entropy": 0.5,
}
STUCK = {"rollout__episode_return": 20.0}


def said(total=20, model=DISCRETE, expected_kl=None, **logs):
    """Returns the advice in a run of `total` iterations with healthy logs except for these."""
    lines = []
    callback = ppo_tf.HealthAdvice(expected_kl, say=lines.append)
    loop = loops.Loop(callback, total, model)
    loop.run(0, total - 1, **{k: v for k, v in {**HEALTHY, **logs}.items() if v is not None})
    loop.end()
    return lines


def test_healthy_logs_give_no_advice():
    assert said() == []
    assert said(rollout__episode_return=loops.missing_until(15, 3.0), train__entropy=0.4) == []


CASES = {  # {rule: (logs, model, what the line names, what it says to try)}
    "critic_explains_nothing": (
        {"train__explained_variance": -0.02},
        DISCRETE,
        "train/explained_variance -0.02",
        ["`hidden_sizes", "`learning_rate", "`value_coefficient"],
    ),
    "policy_moves_too_far": (
        {"train__kl": 0.25},
        DISCRETE,
        "train/kl 0.25 nats",
        ["`learning_rate", "`epochs", "`early_stopping_kl"],
    ),
    "most_samples_are_clipped": (
        {"train__clip_fraction": 0.62},
        DISCRETE,
        "train/clip_fraction 0.62",
        ["`learning_rate", "`epochs", "`minibatch_size"],
    ),
    "actions_stick_to_bounds": (
        {"rollout__saturated_actions": 0.97, **STUCK},
        BOX,
        "rollout/saturated_actions 0.97",
        ["`initial_scale", "`continuous"],
    ),
    "actions_are_never_valid": (
        {"rollout__dead_actions": lambda i: 3.0 + i % 2},
        DISCRETE,
        "never allow 3 or more",
        ["mask"],
    ),
    "entropy_collapsed": (
        {"train__entropy": lambda i: 0.6 if i < 4 else 0.001, **STUCK},
        DISCRETE,
        "train/entropy 0.001 nats, 0.6 after the first update",
        ["`learning_rate", "`entropy_coefficient"],
    ),
}


@pytest.mark.parametrize("rule", CASES)
def test_each_rule_gives_one_line_once(rule):
    logs, model, named, tries = CASES[rule]
    (line,) = said(model=model, **logs)
    assert line.startswith("advice after ") and "\n" not in line
    assert named in line
    for word in tries:
        assert word in line
    for setting, value in re.findall(r"`(\w+)(?:=([^`]+))?`", line):
        declared = ppo_tf.settings.SETTINGS[setting]
        assert not value or declared.parse(value) != declared.default


def test_every_rule_has_a_case():
    assert {rule.__name__ for rule in RULES} == set(CASES)


def first_steps(**logs):
    """Returns the environment steps at which the only advice is given; an iteration has 100."""
    (line,) = said(**logs)
    return int(line.split()[2].replace(",", ""))


def test_a_few_bad_iterations_give_no_advice():
    assert first_steps(train__kl=lambda i: 0.5 if i >= 3 else 0.01) == 100 * (3 + WINDOW // 2 + 1)
    assert said(train__kl=lambda i: 0.5 if i % 5 in (0, 2) else 0.01) == []
    assert said(train__clip_fraction=lambda i: 0.9 if i in (3, 4) else 0.1) == []
    assert said(rollout__dead_actions=lambda i: float(i % 4 != 0)) == []


def test_the_critic_has_a_fifth_of_training_to_learn():
    assert first_steps(total=50, train__explained_variance=0.0) == 1000
    assert said(total=50, train__explained_variance=lambda i: 0.0 if i < 5 else 0.5) == []


def test_a_critic_with_nothing_left_to_explain_is_healthy():
    """Solved CartPole: all returns are equal, the explained variance far below 0."""
    assert said(train__explained_variance=lambda i: 0.6 if i < 5 else -20.0) == []
    assert said(train__explained_variance=NAN) == []
    assert said(train__explained_variance=0.0, train__value_loss=None) == []  # there is no critic


def test_the_divergence_is_judged_by_its_target():
    assert said(train__kl=0.08) == []
    (line,) = said(train__kl=0.08, expected_kl=0.01)
    assert "train/kl 0.08 nats, target 0.01" in line
    assert said(train__kl=0.03, expected_kl=0.01) == []
    assert said(train__kl=0.3, expected_kl=0.2) == []
    (line,) = said(train__kl=None, train__kl_k3=0.3)  # a distribution without an exact KL
    assert "train/kl_k3 0.3 nats" in line


def test_a_policy_that_improves_may_be_at_the_bounds_or_stop_exploring():
    better = {"rollout__episode_return": lambda i: -200.0 + 10.0 * i}
    # A return that started at -200 has grown from -150 on, after five iterations.
    assert said(model=BOX, rollout__saturated_actions=lambda i: 0.97 * (i > 5), **better) == []
    assert said(train__entropy=lambda i: 0.6 if i < 6 else 0.001, **better) == []
    slightly = {"rollout__episode_return": lambda i: -200.0 + i}
    assert len(said(model=BOX, rollout__saturated_actions=0.97, **slightly)) == 1


def test_differential_entropies_may_be_negative():
    """Two elements: a scale 100 times smaller has 9.2 nats less."""
    falls = {"train__entropy": lambda i: 1.5 - i, **STUCK}
    assert said(total=9, model=BOX, **falls) == []
    assert len(said(total=15, model=BOX, **falls)) == 1
    assert said(model=BOX, train__entropy=-7.0, **STUCK) == []  # small from the start
    both = Model(JointAction({"a": TanhAction(-1.0, 1.0, (2,)), "b": DiscreteAction()}))
    assert len(said(total=15, model=both, **falls)) == 1
    unknown = Model(lambda raw: raw)
    assert said(model=unknown, train__entropy=lambda i: -99.0 * (i > 2), **STUCK) == []
    assert said(train__entropy=None, **STUCK) == []


def test_a_collapse_of_entropy_in_the_first_update_counts():
    assert len(said(train__entropy=0.0005, **STUCK)) == 1
    # With masks, few choices may be free.
    assert said(train__entropy=0.0005, rollout__dead_actions=0.0, **STUCK) == []


def test_it_resumes_from_a_checkpoint():
    ill = {**HEALTHY, "train__kl": 0.5, "train__clip_fraction": lambda i: 0.9 if i >= 6 else 0.1}
    lines, later = [], []
    first = ppo_tf.HealthAdvice(say=lines.append)
    loops.Loop(first, 20, DISCRETE).run(0, 7, **ill)
    assert [line.split(" (")[0] for line in lines] == [
        "advice after 500 steps: updates move the policy too far"
    ]
    state = json.loads(json.dumps(first.state(), allow_nan=False))
    second = ppo_tf.HealthAdvice(say=later.append)
    second.load_state(state)
    loops.Loop(second, 20, DISCRETE).run(8, 19, **ill)
    (line,) = later  # the other rule, as early as without the interruption
    assert line.startswith("advice after 900 steps: most samples are clipped")


def test_a_second_run_of_the_same_object_starts_over():
    lines = []
    callback = ppo_tf.HealthAdvice(say=lines.append)
    for _ in range(2):
        loops.Loop(callback, 20, DISCRETE).run(0, 9, **{**HEALTHY, "train__kl": 0.5}).end()
    assert len(lines) == 2 and lines[0] == lines[1]


def test_by_default_it_prints_to_standard_error(capsys):
    loops.Loop(ppo_tf.HealthAdvice(), 20, DISCRETE).run(0, 9, **{**HEALTHY, "train__kl": 0.5})
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("advice after 500 steps: ") and err.count("\n") == 1


def test_lines_appear_above_the_live_line_of_progress(monkeypatch):
    screen = io.StringIO()
    console = rich.console.Console(
        force_terminal=True, file=screen, width=200, color_system=None, _environ={}
    )
    progress, advice = ppo_tf.Progress(console=console), ppo_tf.HealthAdvice()
    loop = loops.Loop(progress, 20)
    inner = loops.Loop(advice, 20, DISCRETE)
    logs = {**HEALTHY, "train__kl": 0.5}
    for i in range(8):
        loop.run(i, i, **logs)
        inner.run(i, i, **logs)
    loop.end()
    lines = [line.rpartition("\x1b[2K")[2] for line in screen.getvalue().split("\n")]
    assert sum(line.startswith("advice after 500 steps: updates move") for line in lines) == 1
    assert "800/2,000 steps" in lines[-1] or "800/2,000 steps" in lines[-2]


def test_a_learning_rate_far_too_high_is_named():
    learner, envs = loops.make_learner(
        "CartPole-v1",
        optimizer=ppo_tf.default_optimizer(0.3),
        epochs=10,
    )
    lines = []
    ppo_tf.fit(
        learner,
        envs,
        total_steps=40 * loops.BATCH,
        horizon=loops.HORIZON,
        callbacks=[ppo_tf.HealthAdvice(say=lines.append)],
    )
    assert any("updates move the policy too far" in line for line in lines)


class Noise(gymnasium.Env):
    """Random rewards, independent of observations and actions."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (3,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = 50
        return self.np_random.uniform(-1, 1, 3).astype(np.float32), {}

    def step(self, action):
        self.left -= 1
        observation = self.np_random.uniform(-1, 1, 3).astype(np.float32)
        return observation, self.np_random.normal(), False, self.left == 0, {}


gymnasium.register("ppo_tf_tests/Noise-v0", Noise)


def advised(env_id, **given):
    """Returns the advice in a run with the training command's settings."""
    settings = {k: s.value for k, s in ppo_tf.presets.resolve(env_id, given).items()}
    envs = ppo_tf.make_envs(env_id, settings["num_envs"], seed=settings["seed"])
    lines = []
    ppo_tf.fit(
        ppo_tf.learner_from_settings(envs, settings),
        envs,
        total_steps=settings["total_steps"],
        horizon=settings["horizon"],
        callbacks=[ppo_tf.HealthAdvice(settings["early_stopping_kl"], say=lines.append)],
    )
    return " ".join(lines)


@pytest.mark.slow
@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1", "Acrobot-v1", "FrozenLake-v1"])
def test_healthy_runs_get_no_advice(env_id):
    assert advised(env_id) == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("env_id", "given", "words"),
    [
        ("CartPole-v1", {"learning_rate": 0.1}, ["too far"]),
        ("CartPole-v1", {"learning_rate": 1.0}, ["hardly explores"]),
        ("Pendulum-v1", {"learning_rate": 0.1}, ["too far", "are clipped", "at their bounds"]),
        ("Pendulum-v1", {"initial_scale": 30.0}, ["at their bounds"]),
        ("ppo_tf_tests/Noise-v0", {}, ["critic explains none"]),
    ],
)
def test_unhealthy_runs_get_the_right_advice(env_id, given, words):
    advice = advised(env_id, total_steps=40_000, **given)
    for word in words:
        assert word in advice
