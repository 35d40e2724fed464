"""A flag without an effect gets one line; values that nobody gave as flags get none."""

import environments
import gymnasium
import helpers
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete
from train_command import TINY

from ppo_tf.command import effects, evaluate
from ppo_tf.command.presets import resolve
from ppo_tf.command.settings import CHOICES, SETTINGS

environments.register()
SPACES = {
    "vector": (helpers.box(3), helpers.box(2)),
    "image": (Box(0, 255, (8, 8, 1), np.uint8), Discrete(2)),
    "mixed": (Dict(a=Discrete(2), b=helpers.box(1)), Dict(a=Discrete(2), b=helpers.box(1))),
}


def lines_of(given, name="vector", limit=200, **others):
    """The lines for settings given as flags; `others` come from a config."""
    envs = helpers.spaces(*SPACES[name])
    envs.spec = gymnasium.envs.registration.EnvSpec("E-v0", max_episode_steps=limit)
    return effects.without_effect(resolve("E-v0", given, others), envs, "E-v0")


CASES = {
    "n_step": (
        {"n_step": 5},
        "--n_step=5 has no effect with estimator=gae; it needs estimator=n_step",
        {"estimator": "n_step"},
    ),
    "gae_lambda": (
        {"gae_lambda": 0.9, "estimator": "n_step"},
        "--gae_lambda=0.9 has no effect with estimator=n_step; it needs estimator=gae or vtrace",
        {"estimator": "gae"},
    ),
    "baseline": (
        {"baseline": False},
        "--baseline=false has no effect with estimator=gae; it needs estimator=reward_to_go",
        {"estimator": "reward_to_go"},
    ),
    "clip_epsilon": (
        {"clip_epsilon": 0.1, "loss": "kl_penalty"},
        "--clip_epsilon=0.1 has no effect with loss=kl_penalty and value_loss=squared; it needs "
        "loss=clip, clip_kl_penalty or spo or value_loss=clipped",
        {"value_loss": "clipped"},
    ),
    "sizes of residual networks": (
        {"hidden_sizes": (8,), "network": "residual", "critic_network": "residual"},
        "--hidden_sizes=8 has no effect with network=residual and critic_network=residual; it "
        "needs network=mlp or critic_network=mlp",
        {"critic_network": "mlp"},
    ),
    "activation of residual networks": (
        {"activation": "relu", "network": "residual", "critic_network": "residual"},
        "--activation=relu has no effect with network=residual and critic_network=residual; it "
        "needs network=mlp or critic_network=mlp",
        {"network": "mlp"},
    ),
    "kl_target": (
        {"kl_target": 0.1},
        "--kl_target=0.1 has no effect with loss=clip; it needs loss=kl_penalty or clip_kl_penalty",
        {"loss": "kl_penalty"},
    ),
    "cell_units": (
        {"cell_units": 8},
        "--cell_units=8 has no effect with cell=none; it needs cell=lstm or gru",
        {"cell": "gru"},
    ),
    "sde_period": (
        {"sde_period": 8},
        "--sde_period=8 has no effect with continuous=clipped_gaussian; it needs continuous=gsde",
        {"continuous": "gsde"},
    ),
    "initial_scale": (
        {"initial_scale": 0.5, "continuous": "beta"},
        "--initial_scale=0.5 has no effect with continuous=beta; it needs "
        "continuous=clipped_gaussian, tanh_gaussian, truncated_gaussian, full_covariance or gsde",
        {"continuous": "gsde"},
    ),
    "epochs": (
        {"recompute_advantages": True, "epochs": 1},
        "--recompute_advantages=true has no effect with epochs=1",
        {"epochs": 2},
    ),
    "hidden_sizes": (
        {"activation": "relu", "hidden_sizes": ()},
        "--activation=relu has no effect with hidden_sizes=none",
        {"hidden_sizes": (4,)},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_flag_that_the_others_leave_without_effect_gets_one_line(name):
    given, line, effective = CASES[name]
    assert lines_of(given) == [line]
    assert lines_of(given | effective) == []
    assert lines_of({}, **given) == []  # from a config: nobody asked for it here


@pytest.mark.parametrize(
    ("given", "needs", "without", "having"),
    [
        ({"initial_scale": 2.0}, "Box actions", "image", "mixed"),
        ({"state_dependent_scale": False}, "Box actions", "image", "vector"),
        ({"continuous": "beta"}, "Box actions", "image", "mixed"),
        ({"image_network": "small"}, "images", "mixed", "image"),
        (
            {"normalize_observations": True},
            "Box observations that are no images",
            "image",
            "mixed",
        ),
    ],
)
def test_a_flag_that_the_environment_leaves_without_effect_gets_one_line(
    given, needs, without, having
):
    (line,) = lines_of(given, without)
    assert line.startswith(f"--{next(iter(given))}=")
    assert line.endswith(f" has no effect in E-v0; it needs {needs}")
    assert lines_of(given, having) == []


def test_a_limit_that_no_episode_reaches_gets_one_line():
    line = "--eval_max_steps=200 has no effect in E-v0; it needs episodes that may be longer"
    assert lines_of({"eval_max_steps": 200}) == [line]
    assert lines_of({"eval_max_steps": 199}) == lines_of({"eval_max_steps": 9}, limit=None) == []


def test_what_settings_need_exists():
    for name, setting in SETTINGS.items():
        assert setting.only_for in ("", *effects.TRAITS), name
        for other, values in setting.only_with.items():
            assert other != name and set(values) < set(CHOICES[other]), name
        for other, value in setting.unless.items():
            assert other != name and SETTINGS[other].check(value) == value, name


def test_the_command_says_it_before_training_and_in_a_dry_run(run, capfd):
    told = "warning: --n_step=3 has no effect with estimator=gae; it needs estimator=n_step\n"
    env = f"--env={environments.COUNTING}"
    assert run(env, *TINY, "--n_step=3", "--dry_run") == 0
    assert capfd.readouterr().err.count(told) == 1
    assert run(env, *TINY, "--n_step=3", "--total_steps=1") == 2
    assert "no effect" not in capfd.readouterr().err  # it did not start


def test_evaluate_says_it_too(capsys):
    assert evaluate.main(["--policy=nowhere", "--env=CartPole-v1", "--video_episodes=2"]) == 2
    told = "warning: --video_episodes=2 has no effect; it needs --video\n"
    assert capsys.readouterr().err.startswith(told)
