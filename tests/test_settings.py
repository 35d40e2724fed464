"""The declarations of settings, and what is derived from them: files, flags, documents."""

import json
import math
import re
from pathlib import Path

import pytest

import ppo_tf
from ppo_tf.command import components, evaluate, plot, runs, sweep, train
from ppo_tf.command.declarations import as_text
from ppo_tf.command.reference import reference
from ppo_tf.command.settings import CHOICES, DEFAULTS, GROUPS, MAY_CHANGE, SETTINGS, check

ROOT = Path(ppo_tf.__file__).parents[1]


@pytest.mark.parametrize("name", SETTINGS)
def test_every_declaration_is_complete(name):
    setting = SETTINGS[name]
    assert re.fullmatch(r"[A-Z][^\n]*\.", setting.help)
    assert "--" not in setting.help
    assert setting.check(setting.default) == setting.default
    assert setting.parse(as_text(setting.default)) == setting.default
    for choice in setting.choices:
        assert choice.text and not choice.text.endswith(".") and "\n" not in choice.text
        assert setting.check(choice.name) == setting.parse(choice.name) == choice.name
    assert train.FLAGS[name].boolean == (setting.type is bool)


def test_no_setting_is_declared_twice():
    assert len(SETTINGS) == sum(len(group) for group in GROUPS.values())


def test_settings_that_may_change_when_a_run_is_resumed():
    """The length of a run, who collects and how it is monitored, but nothing that affects results.

    Checkpoints by time do, but their places are recorded.
    """
    watching = {"eval_episodes", "eval_max_steps", "eval_every", "video_every"}
    watching |= {"wandb_project", "mlflow_experiment", "max_seconds_per_step"}
    crew = {"collectors", "collector_timeout", "max_restarts", "ray_address"}
    crew |= {f"collector_{name}" for name in ("cpus", "gpus", "memory", "resources")}
    assert set(MAY_CHANGE) == {"total_steps", "checkpoint_minutes", *watching, *crew}


def test_components_exist_for_all_choices():
    tables = {
        "estimator": components.ESTIMATORS,
        "loss": components.LOSSES,
        "value_loss": components.VALUE_LOSSES,
        "update_rule": components.UPDATE_RULES,
    }
    for name, table in tables.items():
        assert list(table) == list(CHOICES[name])
        for choice in SETTINGS[name].choices:
            assert type(table[choice.name](DEFAULTS)).__name__ == choice.component


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("horizon", " 64 ", 64),
        ("gamma", "1", 1.0),
        ("learning_rate", "1e-3", 1e-3),
        ("max_gradient_norm", "1e9", 1e9),
        ("baseline", "True", True),
        ("baseline", "0", False),
        ("jit_compile", "none", None),
        ("jit_compile", "false", False),
        ("early_stopping_kl", "none", None),
        ("hidden_sizes", "64, 32", (64, 32)),
        ("hidden_sizes", "none", ()),
        ("hidden_sizes", "", ()),
        ("actor_exclude", "a/b,c", ("a/b", "c")),
        ("cell", "none", "none"),
        ("wandb_project", "mine", "mine"),
    ],
)
def test_text_is_parsed_to_a_value(name, text, value):
    parsed = SETTINGS[name].parse(text)
    assert parsed == value and type(parsed) is type(value)


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("horizon", 8.0, "an integer of at least 1"),
        ("horizon", True, "an integer of at least 1"),
        ("horizon", 0, "an integer of at least 1"),
        ("horizon", None, "an integer of at least 1"),
        ("gamma", "0.9", "a number from 0 to 1"),
        ("gamma", -0.1, "a number from 0 to 1"),
        ("gamma", 1.1, "a number from 0 to 1"),
        ("gamma", math.nan, "a number from 0 to 1"),
        ("learning_rate", 0.0, "a number above 0, at most 1"),
        ("kl_target", 0, "a number above 0, or none"),
        ("baseline", 1, "true or false"),
        ("estimator", "td", "one of gae, n_step, reward_to_go, trajectory_return, vtrace"),
        ("estimator", None, "one of gae, n_step, reward_to_go, trajectory_return, vtrace"),
        ("activation", 3, "a name"),
        ("hidden_sizes", 64, "integers, such as 64,64, each from 1 to 65536"),
        ("hidden_sizes", [64, 0], "integers, such as 64,64, each from 1 to 65536"),
        ("hidden_sizes", "64", "integers, such as 64,64, each from 1 to 65536"),
        ("actor_exclude", ["a", 1], "comma-separated names"),
    ],
)
def test_invalid_values_are_refused(name, value, rule):
    with pytest.raises(ValueError) as refused:
        check(name, value)
    assert str(refused.value) == f"{name} must be {rule}. Received: {name}={value!r}"


def test_values_are_converted_to_the_types_of_components():
    assert check("hidden_sizes", [8, 4]) == (8, 4)
    assert type(check("gamma", 1)) is float


def test_an_unknown_setting_is_an_error_with_similar_names():
    with pytest.raises(ValueError, match=r"'gama' is not a setting; did you mean gamma.*gama=0.9"):
        check("gama", 0.9)


NUMBERS = [name for name, s in SETTINGS.items() if s.type in (int, float)]


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e300", "1e20", "9" * 400, "-1", "-1e-9"])
@pytest.mark.parametrize("name", NUMBERS)
def test_no_number_may_be_absurd_whether_it_is_used_or_not(name, text):
    with pytest.raises(ValueError, match=f"{name} must be .*Received: {name}=") as e:
        SETTINGS[name].parse(text)
    assert "\n" not in str(e.value)
    if text in ("nan", "inf", "-inf") and SETTINGS[name].type is float:
        value = float(text)
        with pytest.raises(ValueError, match=f"{name} must be"):  # in a config.json
            check(name, (value,) if SETTINGS[name].is_tuple else value)


# ---- config.json


@pytest.fixture
def config(tmp_path):
    """Writes a config.json with some settings changed; returns its path."""

    def write(**values):
        settings = ppo_tf.presets.resolve("CartPole-v1", {})
        config = runs.make_config("0" * 16, "CartPole-v1", settings, {})
        for name, value in values.items():
            config["settings"][name] = {"value": value, "source": "flag"}
        (tmp_path / "config.json").write_text(json.dumps(config))
        return tmp_path / "config.json"

    return write


def test_a_config_is_read_back_as_resolved(config):
    written = ppo_tf.presets.resolve("CartPole-v1", {})
    assert runs.read_config(config())["settings"] == written
    assert runs.read_config(config())["settings"]["hidden_sizes"].value == (64, 64)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("learning_rat", 0.1, "is not a setting; did you mean learning_rate"),
        ("learning_rate", "0.1", "learning_rate must be a number above 0"),
        ("epochs", 1.5, "epochs must be an integer from 1 to 2147483647"),
        ("loss", "hinge", "loss must be one of clip, kl_penalty, clip_kl_penalty, spo, surrogate"),
        ("gamma", 2, "gamma must be a number from 0 to 1"),
        ("hidden_sizes", ["64"], "hidden_sizes must be integers"),
        ("jit_compile", "yes", "jit_compile must be true or false, or none"),
    ],
)
def test_a_config_with_an_invalid_value_is_a_one_line_error(
    name, value, told, config, run, capfd, tmp_path
):
    path = config(**{name: value})
    assert run(f"--config={path}", "--logdir=run") == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert re.fullmatch(rf"error: {re.escape(str(path))}: .*{re.escape(told)}.*\n", err)
    assert err.rstrip().endswith(f"Received: {name}={value!r}")
    assert not (tmp_path / "run").exists()


def test_a_run_whose_config_lacks_a_setting_cannot_be_resumed(config, tmp_path):
    path = config()
    found = json.loads(path.read_text())
    del found["settings"]["gamma"]
    path.write_text(json.dumps(found))
    with pytest.raises(ValueError, match=r"config\.json must be complete. Received: no gamma"):
        runs.plan(None, {}, resume=str(tmp_path))


def test_none_can_be_requested(config, tmp_path):
    path = config(early_stopping_kl=0.02)
    given = {"early_stopping_kl": None}
    plan = runs.plan(None, given, config=str(path), logdir=str(tmp_path / "run"))
    assert plan.settings["early_stopping_kl"] == (None, "flag")


# ---- documents


def test_the_table_of_settings_is_up_to_date():
    assert (ROOT / "docs" / "settings.md").read_text() == reference(), (
        "python -m ppo_tf.command.reference > docs/settings.md"
    )


@pytest.mark.parametrize("name", ["README.md", "BUILD_NOTES.md"])
def test_the_flags_that_documents_name_exist(name):
    known = {"help"}.union(*(module.FLAGS for module in (train, evaluate, plot, sweep)))
    for flag in re.findall(r"(?<![\w-])--([a-z]\w*)", (ROOT / name).read_text()):
        assert flag in known or flag.removeprefix("no") in known, flag


@pytest.mark.parametrize("name", ["README.md", "BUILD_NOTES.md", "benchmarks/README.md"])
def test_values_that_documents_give_to_flags_are_valid(name):
    for flag, value in re.findall(r"--(\w+)=([\w.,]+)", (ROOT / name).read_text()):
        if flag in SETTINGS and value not in ("N", "STEPS", "NAME"):
            SETTINGS[flag].parse(value.rstrip(".,"))


def test_the_flags_in_the_readme_table_exist_with_their_choices():
    rows = re.findall(r"^\| `--(\w+)` \| (.*) \|$", (ROOT / "README.md").read_text(), flags=re.M)
    assert len(rows) > 5
    for name, text in rows:
        assert name in SETTINGS, name
        named = re.findall(r"`(\w+)`", text)
        if name in CHOICES:
            assert set(named) <= set(CHOICES[name]), name
