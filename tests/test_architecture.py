"""Every module imports from floors below its own only, and stays readable in one sitting."""

import ast
from pathlib import Path

import pytest

import ppo_tf

FLOORS = {
    "_version": 0,
    "_quiet": 0,
    "files": 0,
    "folders": 0,
    "types": 0,
    "ops": 0.5,  # uses the aliases of types
    "spaces": 0.5,
    "initialization": 0.5,
    "extras": 0.5,
    "batch": 1,
    "cells": 1,
    "estimators": 1,
    "losses": 1,
    "diagnostics": 1.2,  # knows our action maps and masks
    "action_maps": 1,
    "densities": 0.5,
    "distributions": 1,
    "action_specs": 1.5,
    "layers": 1,
    "masks": 1,
    "image_networks": 1,
    "features": 1.5,  # uses layers, masks and image networks
    "heads": 1.7,  # names their layers as features does
    "optimizers": 1,
    "models": 2,
    "recurrent": 2.2,
    "policy": 2.5,  # builds its default actor from models
    "objective": 2.7,
    "agreement": 2.7,
    "learner": 3,
    "envs": 3,
    "acting": 3,
    "collectors": 3.5,  # acts
    "envpool_envs": 2.5,
    "atari": 2.5,
    "mask_observation": 2.5,
    "export": 3,
    "evaluation": 4,
    "periodic": 4.5,  # evaluates and exports
    "callbacks": 3.9,  # whose helpers other callbacks use
    "checkpoints": 4,  # of a learner
    "trackers": 4.2,
    "tensorboard_scalars": 4.4,  # flattens settings as trackers does
    "health": 4.2,
    "presets": 4,
    "runs": 4.5,
    "settings": 4,  # names every component there is
    "video": 4.5,  # evaluates
    "report": 4.5,  # sizes checkpoints
    "training": 5,
    "__main__": 6,
}
ROOT = Path(ppo_tf.__file__).parent
MODULES = sorted(p.stem for p in ROOT.glob("*.py") if p.stem != "__init__")


def imports_of(path):
    """Names of the ppo_tf modules a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "ppo_tf":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ppo_tf."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (a.name.split(".")[1] for a in node.names if a.name.startswith("ppo_tf."))


def test_every_module_has_a_floor():
    assert sorted(FLOORS) == MODULES


@pytest.mark.parametrize("module", MODULES)
def test_modules_import_from_below(module):
    for imported in imports_of(ROOT / f"{module}.py"):
        assert FLOORS[imported] < FLOORS[module], f"{module} imports {imported}"


@pytest.mark.parametrize("module", MODULES)
def test_modules_are_read_in_one_sitting(module):
    assert len((ROOT / f"{module}.py").read_text().splitlines()) <= 400


def test_the_library_knows_no_flags():
    for module in MODULES:
        assert "absl" not in (ROOT / f"{module}.py").read_text()


def test_every_public_name_loads_and_is_documented():
    for name in ppo_tf.__all__:
        value = getattr(ppo_tf, name)
        assert value.__doc__, name


def test_examples_use_public_names_only():
    for path in (ROOT.parent / "examples").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "ppo_tf":
                known = [*ppo_tf.__all__, "__version__"]
                assert node.attr in known, f"{path.name}: {node.attr}"
        for imported in imports_of(path):
            assert imported in ppo_tf.__all__, f"{path.name} imports {imported}"
