"""The examples: short, of public names, silent, and they train."""

import ast
import importlib.util
import math
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


# ---- those that teach


def test_products_of_ratios_leave_no_samples(capsys, tmp_path):
    pytest.importorskip("matplotlib")
    shares = load("importance_weights").main(picture=tmp_path / "shares.png")
    assert len(capsys.readouterr().out.splitlines()) == len(shares) + 1
    assert (tmp_path / "shares.png").stat().st_size > 10_000
    for horizon, (product, single) in shares.items():
        assert math.isclose(single, math.exp(-0.09), rel_tol=0.02)
        if horizon <= 16:
            assert math.isclose(product, math.exp(-0.09 * horizon), rel_tol=0.4)
    assert shares[256][0] < 0.001


@pytest.mark.parametrize(("p", "left", "right"), [(0.1, -0.1, 0.9), (0.5, -0.5, 0.5), (1.0, -1, 0)])
def test_one_step_advantages_are_those_worked_by_hand(p, left, right):
    assert load("one_step_advantage").advantages(p) == pytest.approx([left, right])


def test_a_rate_that_is_far_too_high_ends_at_the_second_best():
    train = load("overshooting").train
    assert train(10.0)[-1] > 0.99
    assert 0.89 < train(1000.0)[-1] < 0.91


def test_four_times_as_many_trajectories_halve_the_noise(capsys):
    module = load("gradient_noise")
    noise = module.main(repeats=2_000)
    for name in ("whole return", "reward-to-go", "... and baseline"):
        for count in (1, 4, 16):
            assert noise[name, count] / noise[name, 4 * count] == pytest.approx(2.0, rel=0.15)
    assert noise["whole return", 1] > 1.3 * noise["reward-to-go", 1]
    assert noise["reward-to-go", 1] > 1.3 * noise["... and baseline", 1]
    means = [float(x) for x in re.findall(r"gradient +([\d.]+)", capsys.readouterr().out)]
    exact = module.HORIZON * module.P * (1 - module.P)  # d (20 p) / d log-odds
    assert means[-1] == pytest.approx(exact, rel=0.01)


@pytest.mark.parametrize("name", ["one_step_advantage", "overshooting"])
def test_the_small_ones_print_their_tables(name, capsys):
    load(name).main()
    assert len(capsys.readouterr().out.splitlines()) == 4
