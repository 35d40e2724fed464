"""`python -m ppo_tf`: what there is.

TensorFlow, which takes seconds to import, is not imported: docstrings are read from the source.
"""

from __future__ import annotations

import argparse
import ast
import itertools
import os
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import rich.console
import rich.padding
import rich.table
import rich.text

from ppo_tf._version import __version__
from ppo_tf.command.presets import FAMILIES, PRESETS, preset_of
from ppo_tf.support import extras

WIDTH = 100  # columns, at most

# Choices that are no components of ours, and so have no docstring.
WORDS = {
    "image_network": {
        "auto": "nature; small for images with less than 36 pixels a side",
    },
    "cell": {
        "none": "no memory",
        "lstm": "long short-term memory, Keras' LSTMCell",
        "gru": "gated recurrent unit, Keras' GRUCell",
    },
    "backend": {
        "auto": "the fastest that is installed and pays for so many environments",
        "sync": "one environment after the other",
        "async": "each environment in a process of its own",
        "vector": "the environment's own vector class, which steps all at once",
        "envpool": "EnvPool's C++ version of the environment, stepped by threads",
    },
    "acting": {
        "auto": "litert where it can serve the policy, but not for convolutions",
        "litert": "the policy converted to LiteRT, on one thread",
        "tensorflow": "one compiled TensorFlow function, which serves any policy",
    },
}

Rows = Iterable[tuple[str, ...]]


def main(argv: list[str] | None = None) -> int:
    """Prints what there is; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m ppo_tf",
        description="Lists the environments with tuned settings, the components with the flags of "
        "examples/train.py that choose them, and the extras; says what of it is installed here.",
    )
    parser.add_argument("--version", action="version", version=f"ppo_tf {__version__}")
    parser.parse_args(argv)
    console = rich.console.Console(highlight=False)
    console.width = min(console.width, WIDTH)
    try:
        with console.capture() as captured:
            _show(console)
        # The cells of a table are filled up with spaces.
        sys.stdout.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))
        sys.stdout.flush()
    except metadata.PackageNotFoundError as error:
        print(f"error: {error}; run pip install first", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader, such as head, has seen enough
        # What is left in the buffer would raise the error again when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def _show(console: rich.console.Console) -> None:
    console.print(f"ppo_tf {__version__}", style="bold")
    sections = {
        "Environments with tuned settings (--env); others start from the defaults": environments(),
        **components(),
        "Extras (pip install 'ppo_tf[NAME]')": installed_extras(),
    }
    for title, rows in sections.items():
        table = rich.table.Table.grid(padding=(0, 2, 0, 0))
        for row in rows:
            table.add_row(*(rich.text.Text(cell) for cell in row))
        console.print()
        console.print(rich.text.Text(title, style="bold"))
        console.print(rich.padding.Padding(table, (0, 0, 0, 2)))


def environments() -> Rows:
    """(id or patterns of ids, what is missing, settings) of each preset."""
    tuned = [((name,), preset_of(name)) for name in PRESETS] + list(FAMILIES.items())
    for settings, group in itertools.groupby(tuned, key=lambda item: item[1]):
        ids = [env_id for names, _ in group for env_id in names]
        short = " ".join(f"{name}={value}".replace(" ", "") for name, value in settings.items())
        yield "\n".join(ids), _availability(ids), short


def _availability(ids: list[str]) -> str:
    try:
        needed = {extra for env_id in ids if (extra := extras.extra_of(env_id))}
    except LookupError:
        return "not in this Gymnasium"
    lacking = [extra for extra in sorted(needed) if extras.missing(extra)]
    return f"needs [{', '.join(lacking)}]" if lacking else "installed"


def components() -> dict[str, Rows]:
    """(choice, name in Python, what it is) of each component, by title."""
    losses = [("", name, _summaries("losses")[name]) for name in ("EntropyBonus", "Sum")]
    networks = {name: _summaries(name) for name in ("models", "recurrent")}
    return {
        "Advantage estimators (--estimator)": _table("settings", "ESTIMATORS", "estimators"),
        "Policy losses (--loss)": [*_table("settings", "LOSSES", "losses"), *losses],
        "Value losses (--value_loss)": _table("settings", "VALUE_LOSSES", "losses"),
        "Action distributions by the space of actions": _distributions(3),
        "Action distributions for Boxes (--continuous)": _distributions(4),
        "Networks (--hidden_sizes, --activation, --shared_trunk)": [
            (name, networks[module][name])
            for module, names in {
                "models": ("mlp_actor", "mlp_critic", "shared_actor_critic", "mlp"),
                "recurrent": ("recurrent_actor", "recurrent_critic"),
            }.items()
            for name in names
        ],
        "Networks for images (--image_network)": [
            *(("auto", "", text) for text in WORDS["image_network"].values()),
            *_table("image_networks", "NETWORKS", "image_networks"),
        ],
        "Memories (--cell)": WORDS["cell"].items(),
        "Back ends of environments (--backend)": WORDS["backend"].items(),
        "Engines that compute actions (--acting)": WORDS["acting"].items(),
    }


def installed_extras() -> Rows:
    """(extra, what of it is missing) of each."""
    for extra in extras.names():
        lacking = extras.missing(extra)
        yield extra, f"missing: {', '.join(lacking)}" if lacking else "installed"


def _table(module: str, table: str, home: str) -> list[tuple[str, str, str]]:
    """(choice, component, its summary) by a dict such as `settings.ESTIMATORS`, whose values are
    components of the module `home`, or lambdas that make one."""
    for node in _parse(module).body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == table:
            assert isinstance(node.value, ast.Dict)
            summaries, rows = _summaries(home), []
            for key, value in zip(node.value.keys, node.value.values, strict=True):
                made = value.body if isinstance(value, ast.Lambda) else value
                name = ast.unparse(made.func if isinstance(made, ast.Call) else made)
                assert key is not None  # as of **other
                rows.append((ast.literal_eval(key), name, summaries[name]))
            return rows
    raise LookupError(f"{module} has no table {table}")


def _distributions(columns: int) -> list[tuple[str, ...]]:
    """The rows of the table with so many columns in the docstring of `action_spec`."""
    lines = [line for line in _docstrings("specs")["action_spec"].splitlines() if "|" in line]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    found = [row for row in rows if len(row) == columns][2:]  # without its head and its rule
    if columns == 3:
        return [(space, distribution) for space, distribution, _ in found]
    return [(name, f"{what}, into the Box by {way}") for name, what, _, way in found]


def _summaries(module: str) -> dict[str, str]:
    """The first paragraph of each docstring, by name."""
    found = _docstrings(module).items()
    return {name: " ".join(text.split("\n\n")[0].split()) for name, text in found}


def _docstrings(module: str) -> dict[str, str]:
    """The docstrings of a module's classes and functions by name."""
    return {
        node.name: ast.get_docstring(node) or ""
        for node in _parse(module).body
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
    }


def _parse(module: str) -> ast.Module:
    (path,) = Path(__file__).parents[1].rglob(f"{module}.py")
    return ast.parse(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(main())
