"""Packages import only from those before them, and every file stays readable in one sitting.

The order is the table in BUILD_NOTES.md, and only there.
"""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ppo_tf

ROOT = Path(ppo_tf.__file__).parent
TABLE = ROOT.parent / "BUILD_NOTES.md"
MODULES = sorted(p for p in ROOT.rglob("*.py") if p.name not in ("__init__.py", "__main__.py"))
NAMES = {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in MODULES}


def rooms():
    """{package: the packages that it imports from}, in the order of the table."""
    rows = re.findall(r"^\| `(\w+)` \| ([^|]*) \|", TABLE.read_text(), flags=re.MULTILINE)
    return {name: set(re.findall(r"`(\w+)`", imported)) for name, imported in rows}


def room_of(module):
    """The package of a module; a module beside the packages is one of its own."""
    return module.split(".")[0]


def imports_of(path):
    """Full names of the ppo_tf modules and packages that a file imports from."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "ppo_tf":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ppo_tf."):
            yield node.module.removeprefix("ppo_tf.")
        elif isinstance(node, ast.Import):
            names = (alias.name for alias in node.names)
            yield from (n.removeprefix("ppo_tf.") for n in names if n.startswith("ppo_tf."))


def imported_rooms(room):
    """The packages that a package's files import from, itself left out."""
    files = [path for name, path in NAMES.items() if room_of(name) == room]
    found = {room_of(name) for path in files for name in imports_of(path)}
    return found - {room, "_version"}


def test_the_table_names_every_package():
    assert sorted(rooms()) == sorted({room_of(name) for name in NAMES} - {"_version"})


@pytest.mark.parametrize("room", rooms())
def test_packages_import_what_the_table_says(room):
    assert imported_rooms(room) == rooms()[room]


def test_packages_import_only_from_those_before_them():
    before = set()
    for room, imported in rooms().items():
        assert imported <= before, f"{room} imports {sorted(imported - before)}"
        before.add(room)


def test_the_printed_layout_names_every_file():
    """The tree in BUILD_NOTES.md, read by its indentation."""
    folders, found = [], []
    for line in re.search(r"```\nppo_tf/\n(.*?)```", TABLE.read_text(), re.DOTALL)[1].splitlines():
        name, depth = line.split()[0], (len(line) - len(line.lstrip())) // 2 - 1
        folders = [*folders[:depth], name.rstrip("/")]
        if not name.endswith("/"):
            found.append(".".join(folders).removesuffix(".py"))
    assert sorted(found) == sorted(set(NAMES) - {"_version"})


def test_no_two_modules_of_a_package_import_each_other():
    """Circles within a package, which the table does not show."""
    edges = {}
    for name, path in NAMES.items():
        known = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ppo_tf."):
                module = node.module.removeprefix("ppo_tf.")
                known |= {module} | {f"{module}.{alias.name}" for alias in node.names}
        edges[name] = {k for k in known if k in NAMES and room_of(k) == room_of(name)}
    while free := [name for name, needed in edges.items() if not needed & edges.keys()]:
        for name in free:
            del edges[name]
    assert not edges, f"in a circle: {sorted(edges)}"


@pytest.mark.parametrize("name", NAMES)
def test_modules_are_read_in_one_sitting(name):
    assert len(NAMES[name].read_text().splitlines()) <= 400


def test_every_package_says_what_lives_there():
    for package in {path.parent for path in MODULES}:
        assert ast.get_docstring(ast.parse((package / "__init__.py").read_text())), package


def test_the_library_knows_no_flags():
    for name, path in NAMES.items():
        if room_of(name) != "command":
            assert "absl" not in path.read_text(), name
            assert not re.search(r"--[a-z]", path.read_text()), name


def test_what_needs_no_tensorflow_does_not_import_it():
    script = (
        "import sys, ppo_tf\n"
        "ppo_tf.presets, ppo_tf.runs, ppo_tf.settings, ppo_tf.spaces.leaves, ppo_tf.masks\n"
        "import ppo_tf.command.listing, ppo_tf.command.train, ppo_tf.command.reference\n"
        "import ppo_tf.support.seeds, ppo_tf.support.folders\n"
        "import ppo_tf.collecting.autoreset, ppo_tf.collecting.checks, ppo_tf.collecting.episodes\n"
        "import ppo_tf.collecting.workers.process, ppo_tf.collecting.workers.envs\n"
        "import ppo_tf.environments.backends, ppo_tf.policies.litert_engine\n"
        "print([m for m in ('tensorflow', 'keras') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stdout + done.stderr


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
