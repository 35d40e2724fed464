"""Lists the environments with tuned settings, the components that flags choose, and the extras.

    ppo-tf list

It says what of them is installed here.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Sequence
from importlib import metadata

import rich.console
import rich.padding
import rich.table
import rich.text
from absl import flags

from ppo_tf._version import __version__
from ppo_tf.command import parsing
from ppo_tf.command.declarations import Choice
from ppo_tf.command.presets import FAMILIES, PRESETS, preset_of
from ppo_tf.command.settings import SETTINGS
from ppo_tf.support import extras

FLAGS = flags.FlagValues()
WIDTH = 100  # columns, at most

# Settings with choices by the title of their list, in the order of the lists.
TITLES = {
    "Advantage estimators": "estimator",
    "Policy losses": "loss",
    "Value losses": "value_loss",
    "Learning rates": "learning_rate_schedule",
    "Action distributions for Boxes": "continuous",
    "Networks for images": "image_network",
    "Memories": "cell",
    "Back ends of environments": "backend",
    "Engines that compute actions": "acting",
}
# What no setting chooses by name, under the title of the list that it continues.
OTHERS = {
    "Policy losses": (
        Choice("", "entropy_coefficient times the entropy, added to any loss", "EntropyBonus"),
        Choice("", "the sum of losses", "Sum"),
    ),
}
SPACES = {
    "Discrete": "a categorical",
    "MultiDiscrete": "a categorical each",
    "MultiBinary": "a Bernoulli each",
    "Box of floats": "as --continuous says",
    "Dict, Tuple": "those of the leaves, independent",
}
NETWORKS = {
    "mlp_actor": "features of the observation, hidden layers, a head for the distribution",
    "mlp_critic": "the same with one output, the value",
    "shared_actor_critic": "both with the same layers up to their heads",
    "mlp": "a multilayer perceptron, the actor of any distribution",
    "recurrent_actor": "mlp_actor with a memory before its head",
    "recurrent_critic": "mlp_critic with a memory before its output",
}

Rows = Iterable[Sequence[str]]


def main(argv: Sequence[str]) -> int:
    """Prints what there is; returns the exit code."""
    return parsing.run(_list, FLAGS, argv, description=__doc__)


def _list(words: list[str]) -> int:
    del words  # there are none
    console = rich.console.Console(highlight=False)
    console.width = min(console.width, WIDTH)
    try:
        with console.capture() as captured:
            _show(console)
    except metadata.PackageNotFoundError as error:
        return parsing.fail(f"{error}; run pip install first")
    # The cells of a table are filled up with spaces.
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))
    sys.stdout.flush()
    return 0


def _show(console: rich.console.Console) -> None:
    console.print(f"ppo_tf {__version__}", style="bold")
    sections = {
        "Environments with tuned settings (--env); others start from the defaults": environments(),
        **components(),
        "Action distributions by the space of actions": SPACES.items(),
        "Networks (--hidden_sizes, --activation, --shared_trunk)": NETWORKS.items(),
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
    """Rows of (choice, name in Python, what it is) by title; without names two columns."""
    found: dict[str, Rows] = {}
    for title, setting in TITLES.items():
        choices = [*SETTINGS[setting].choices, *OTHERS.get(title, ())]
        named = any(choice.component for choice in choices)
        found[f"{title} (--{setting})"] = [
            (choice.name, choice.component, choice.text) if named else (choice.name, choice.text)
            for choice in choices
        ]
    return found


def installed_extras() -> Rows:
    """(extra, what of it is missing) of each."""
    for extra in extras.names():
        lacking = extras.missing(extra)
        yield extra, f"missing: {', '.join(lacking)}" if lacking else "installed"
