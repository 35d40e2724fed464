"""Lists the environments with tuned settings, the components that flags select, and the extras.

    ppo-tf list

Environments and extras are marked as installed or not.
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

# {title of a list: the setting whose choices it shows}, in the order of the output.
TITLES = {
    "Methods": "method",
    "Advantage estimators": "estimator",
    "Policy losses": "loss",
    "KL divergences of a penalty": "kl_estimate",
    "Value losses": "value_loss",
    "Update rules": "update_rule",
    "Scaling of advantages": "standardize_advantages",
    "Learning rate schedules": "learning_rate_schedule",
    "Clip schedules": "clip_schedule",
    "Centres of the clip": "clip_around",
    "Entropy schedules": "entropy_schedule",
    "Networks of the actor": "network",
    "Networks of the critic": "critic_network",
    "Action distributions for Box spaces": "continuous",
    "Image networks": "image_network",
    "Recurrent cells": "cell",
    "Environment back ends": "backend",
    "Acting engines": "acting",
}
# Components that no setting selects by name, added to the list of this title.
OTHERS = {
    "Policy losses": (
        Choice("", "entropy bonus for any loss, weighted by entropy_coefficient", "EntropyBonus"),
        Choice("", "the sum of several losses", "Sum"),
    ),
}
SPACES = {
    "Discrete": "categorical",
    "MultiDiscrete": "independent categoricals",
    "MultiBinary": "independent Bernoullis",
    "Box of floats": "selected by --continuous",
    "Dict, Tuple": "independent distributions of the leaves",
}
NETWORKS = {
    "mlp_actor": "observation features, hidden layers, and a head for the distribution",
    "mlp_critic": "the same with one output, the value",
    "shared_actor_critic": "an actor and a critic that share all layers but their heads",
    "mlp": "a plain multilayer perceptron, as an actor for any distribution",
    "recurrent_actor": "mlp_actor with a recurrent cell before its head",
    "recurrent_critic": "mlp_critic with a recurrent cell before its output",
}

Rows = Iterable[Sequence[str]]


def main(argv: Sequence[str]) -> int:
    """Prints the lists; returns the exit code."""
    return parsing.run(_list, FLAGS, argv, description=__doc__)


def _list(words: list[str]) -> int:
    del words  # there are none
    console = rich.console.Console(highlight=False)
    console.width = min(console.width, WIDTH)
    try:
        with console.capture() as captured:
            _show(console)
    except metadata.PackageNotFoundError as error:
        return parsing.fail(f"{error}; install it with pip first")
    # rich pads the cells of a table with spaces.
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))
    sys.stdout.flush()
    return 0


def _show(console: rich.console.Console) -> None:
    console.print(f"ppo_tf {__version__}", style="bold")
    sections = {
        "Environments with tuned settings (--env); others use the defaults": environments(),
        **components(),
        "Action distributions by action space": SPACES.items(),
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
    """Yields (ids or patterns, availability, settings) for each preset."""
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
    """Returns rows of (choice, Python name, description) by title; no names, no such column."""
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
    """Yields (extra, its missing packages or "installed")."""
    for extra in extras.names():
        lacking = extras.missing(extra)
        yield extra, f"missing: {', '.join(lacking)}" if lacking else "installed"
