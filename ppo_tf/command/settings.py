"""The settings of a training run, each declared once.

Flags, `--help`, `ppo-tf list`, docs/settings.md and the validation of presets and config.json are
derived from these declarations, which are grouped in `algorithm_settings`, `model_settings` and
`run_settings`. The tuned values per environment are in `presets`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from ppo_tf.command import algorithm_settings, methods, model_settings, run_settings
from ppo_tf.command.declarations import Declaration

GROUPS: dict[str, tuple[Declaration, ...]] = {
    "Method": methods.METHOD,
    "Collecting": run_settings.COLLECTING,
    "Advantages": algorithm_settings.ADVANTAGES,
    "Losses": algorithm_settings.LOSSES,
    "Updates": algorithm_settings.UPDATES,
    "Networks": model_settings.NETWORKS,
    "Actions": model_settings.ACTIONS,
    "Run": run_settings.RUN,
}

SETTINGS: dict[str, Declaration] = {d.name: d for group in GROUPS.values() for d in group}
DEFAULTS: dict[str, Any] = {name: d.default for name, d in SETTINGS.items()}
CHOICES: dict[str, tuple[str, ...]] = {
    name: tuple(choice.name for choice in d.choices) for name, d in SETTINGS.items() if d.choices
}
MAY_CHANGE: tuple[str, ...] = tuple(name for name, d in SETTINGS.items() if d.may_change)


def check(name: str, value: Any) -> Any:
    """Returns the checked value of a setting; see `Declaration.check`.

    Raises:
        ValueError: the value is invalid, or there is no such setting.
    """
    if name not in SETTINGS:
        near = difflib.get_close_matches(name, SETTINGS)
        hint = f"; did you mean {' or '.join(near)}?" if near else "."
        raise ValueError(f"{name!r} is not a setting{hint} Received: {name}={value!r}")
    return SETTINGS[name].check(value)


def check_all(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns values by name, checked; see `check`."""
    return {name: check(name, value) for name, value in values.items()}
