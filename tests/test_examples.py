"""The examples: short, of public names, silent, and they train."""

import ast
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "examples"
OWN = sorted(path.stem for path in FOLDER.glob("own_*.py"))
SILENT = "own_distribution"  # imports Keras, TensorFlow and TensorFlow Probability itself
RESULT = r"return -?\d+\.\d before training, -?\d+\.\d after\n"


def load(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_there_is_one_for_each_component():
    parts = ["distribution", "environment", "estimator", "loss", "network"]
    assert [f"own_{part}" for part in parts] == OWN


@pytest.mark.parametrize("name", OWN)
def test_an_example_is_short_and_imports_at_its_top_what_is_public(name):
    text = (FOLDER / f"{name}.py").read_text()
    assert len(text.splitlines()) <= 50
    tree = ast.parse(text)
    imports = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
    assert imports == tree.body[1 : 1 + len(imports)]
    for node in imports:
        names = [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
        assert not any(name.startswith("ppo_tf.") for name in names), names


@pytest.mark.parametrize("name", [name for name in OWN if name != SILENT])
def test_an_example_trains_and_says_how_it_went(name, capsys, without_xla):
    load(name).main(total_steps=2_048)
    assert re.match(RESULT, capsys.readouterr().out)


def test_an_example_prints_nothing_else(tmp_path):
    kept = {k: v for k, v in os.environ.items() if not k.startswith("TF_CPP_")}
    kept["PYTHONPATH"] = os.pathsep.join([str(FOLDER), kept.get("PYTHONPATH", "")])
    without_xla = "ppo_tf.Learner.__init__.__kwdefaults__['jit_compile'] = False"
    code = f"import ppo_tf; {without_xla}; import {SILENT}; {SILENT}.main(total_steps=2_048)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=kept, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(RESULT, done.stdout)
