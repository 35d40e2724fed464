"""Settings by environment, by family, and by default."""

import pytest

from ppo_tf.command.methods import METHODS
from ppo_tf.command.presets import FAMILIES, PRESETS, preset_of, resolve
from ppo_tf.command.settings import CHOICES, DEFAULTS, check_all


def test_an_environment_without_a_preset_has_none():
    assert preset_of("Unknown-v0") == {}
    assert {setting.source for setting in resolve("Unknown-v0", {}).values()} == {"default"}


def test_an_environments_own_settings_override_those_of_its_family():
    family = next(settings for ids, settings in FAMILIES.items() if "Swimmer-v5" in ids)
    assert preset_of("Swimmer-v5") == {**family, "gamma": 0.9999}
    assert preset_of("Walker2d-v5") == family


@pytest.mark.parametrize("env_id", ["ALE/Pong-v5", "ale_py:ALE/MsPacman-v5", "PongNoFrameskip-v4"])
def test_atari_games_are_one_family(env_id):
    settings = resolve(env_id, {"clip_epsilon": 0.2})
    assert settings["horizon"] == (128, "preset")
    assert settings["clip_epsilon"] == (0.2, "flag")
    assert settings["reward_scaling"] == (False, "preset")


def test_games_with_other_ids_are_not_atari():
    assert preset_of("Pong-v0") == {}


@pytest.mark.parametrize("env_id", [*PRESETS, *(ids[0] for ids in FAMILIES)])
def test_minibatches_of_presets_divide_their_batches(env_id):
    s = {**DEFAULTS, **preset_of(env_id)}
    assert s["horizon"] * s["num_envs"] % s["minibatch_size"] == 0


@pytest.mark.parametrize("preset", [*PRESETS.values(), *FAMILIES.values()])
def test_presets_have_known_settings_with_valid_values(preset):
    assert check_all(preset) == preset
    for name, value in check_all(preset).items():
        assert type(value) is type(preset[name]), name


def test_an_unknown_setting_is_an_error():
    with pytest.raises(ValueError, match="learning_rat"):
        resolve("CartPole-v1", {"learning_rat": 1.0})


@pytest.mark.parametrize("source", ["given", "config", "preset"])
def test_values_of_every_source_are_checked(source, monkeypatch):
    bad = {"gamma": 1.5}
    if source == "preset":
        monkeypatch.setitem(PRESETS, "CartPole-v1", bad)
    given, config = (bad if source == name else {} for name in ("given", "config"))
    with pytest.raises(ValueError, match=r"gamma must be a number from 0 to 1.*gamma=1\.5"):
        resolve("CartPole-v1", given, config)


@pytest.mark.parametrize("method", METHODS)
def test_methods_are_valid_and_declared(method):
    assert method in CHOICES["method"]
    assert check_all(METHODS[method]) == METHODS[method]
    assert not METHODS[method].keys() & {"method", "seed"}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("env_id", ["Unknown-v0", *PRESETS, *(ids[0] for ids in FAMILIES)])
def test_minibatches_of_methods_divide_their_batches(env_id, method):
    s = {name: setting.value for name, setting in resolve(env_id, {"method": method}).items()}
    assert s["horizon"] * s["num_envs"] % s["minibatch_size"] == 0


def test_a_method_comes_before_a_run_to_repeat_and_after_flags():
    given, config = {"method": "reinforce", "num_envs": 4}, {"epochs": 3, "gamma": 0.5}
    settings = resolve("CartPole-v1", given, config)
    assert settings["num_envs"] == (4, "flag")
    assert settings["epochs"] == (1, "method")
    assert settings["gamma"] == (0.5, "config")
    assert settings["total_steps"] == (100_000, "preset")


def test_a_run_that_is_repeated_brings_the_settings_of_its_method():
    before = {n: s.value for n, s in resolve("CartPole-v1", {"method": "trpo"}).items()}
    again = resolve("CartPole-v1", {}, before)
    assert {n: s.value for n, s in again.items()} == before
    assert {s.source for s in again.values()} == {"config"}
