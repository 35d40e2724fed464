"""config.json: whatever is in its place, one line says what is wrong."""

import json
import os

import pytest

import ppo_tf
from ppo_tf.command import runs
from ppo_tf.support.json_files import MOST_BYTES

CONFIG = runs.make_config("0" * 16, "CartPole-v1", ppo_tf.presets.resolve("CartPole-v1", {}), {})


def with_(*path, value):
    """CONFIG with a value changed, as text."""
    config = json.loads(json.dumps(CONFIG))
    place = config
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    return json.dumps(config)


BAD = {
    "a list": "[]",
    "a number": "1",
    "nothing": "",
    "a null": "null",
    "half": json.dumps(CONFIG)[:200],
    "not UTF-8": b"\xff\xfe{}",
    "deep": "[" * 100_000,
    "huge": " " * (MOST_BYTES + 1),
    **{f"no {name}": json.dumps({k: v for k, v in CONFIG.items() if k != name}) for name in CONFIG},
    "an id that is a path": with_("id", value="../../../elsewhe"),
    "an env that is a list": with_("env", value=["CartPole-v1"]),
    "an env with a line break": with_("env", value="CartPole-v1\nerror: x"),
    "a negative seed": with_("seed", value=-1),
    "a seed of true": with_("seed", value=True),
    "settings that are a list": with_("settings", value=[]),
    "a setting without a source": with_("settings", "gamma", value={"value": 0.9}),
    "a setting that is a number": with_("settings", "gamma", value=0.9),
    "an unhashable source": with_("settings", "gamma", "source", value=[]),
    "an unknown setting": with_("settings", "gama", value={"value": 0.9, "source": "flag"}),
    "engines of numbers": with_("engines", value={"acting": 1}),
    "an export_dir that is a list": with_("export_dir", value=["/"]),
    "an export_dir with a null byte": with_("export_dir", value="a\0b"),
    "versions that are text": with_("versions", value="1.0"),
}


@pytest.mark.parametrize("argument", ["config", "resume"])
@pytest.mark.parametrize("name", BAD)
def test_a_config_that_is_not_one_is_one_line(name, argument, tmp_path):
    text = BAD[name]
    (tmp_path / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError) as caught:
        runs.plan(None, {}, **{argument: str(tmp_path)})
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}/config.json") and "\n" not in message
    assert "Received: " in message and len(message) < 1000


@pytest.mark.skipif(os.name == "nt", reason="no pipes and links")
@pytest.mark.parametrize("argument", ["config", "resume"])
@pytest.mark.parametrize("kind", ["pipe", "folder", "dangling link", "device"])
def test_what_is_no_file_is_one_line_and_never_waited_for(kind, argument, tmp_path):
    path = tmp_path / "config.json"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/full" if kind == "device" else "nowhere")
    with pytest.raises(ValueError, match=rf"config\.json: .*\. Received: {argument}="):
        runs.plan(None, {}, **{argument: str(tmp_path)})


def test_dev_full_is_no_run():
    with pytest.raises(ValueError, match="/dev/full: Not a regular file"):
        runs.plan(None, {}, resume="/dev/full")


# ---- modules that a file names


def named(module):
    return f"names the module {module}, which is imported\n"


def test_a_module_that_a_config_names_is_named_before_it_is_imported(run, tmp_path, capfd):
    """Its import fails here, after the line."""
    (tmp_path / "config.json").write_text(with_("env", value="strange_module:Env-v0"))
    (tmp_path / "strange_module.py").write_text("raise ImportError('it was imported')")
    for argument, path in (("--config", "config.json"), ("--resume", ".")):
        assert run(f"{argument}={path}", "--dry_run") == 2
        line, error = capfd.readouterr().err.splitlines(keepends=True)
        assert line == f"{path} {named('strange_module')}" and "env='strange_module:" in error
    assert run("--config=config.json", "--env=strange_module:Env-v0", "--dry_run") == 2
    assert named("strange_module") not in capfd.readouterr().err  # it is the user's own word


@pytest.mark.parametrize("module", ["../x", "./x", ".x", "x/y", "x..y", "..", "a b"])
def test_what_is_no_module_is_one_line(module, run, capfd):
    assert run(f"--env={module}:Foo-v0", "--dry_run") == 2
    told = f"is not the name of a module. Received: env='{module}:Foo-v0'"
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("error: ") and line.endswith(told)
