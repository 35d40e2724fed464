"""Draws curves: a panel per environment and one legend for all."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from ppo_tf.command.plotting.curves import Groups, Run, curve, labels

PANEL = (6.4, 3.6)  # width and height, inches
LEGEND_ROW = 0.22  # height, inches


def draw(groups: Groups, names: Sequence[str], metric: str) -> Any:
    """Returns a Matplotlib figure with a panel per environment and one legend for all.

    Args:
        groups: the runs of each curve, by environment and by their values of the settings `names`.
        names: settings that the runs of a curve share.
        metric: label of the vertical axes.
    """
    import matplotlib
    from matplotlib.figure import Figure

    columns = min(len(groups), 3)
    rows = math.ceil(len(groups) / columns)
    figure = Figure(layout="constrained")
    label_of = labels(groups, names)
    # Petroff's ten colours are distinct to colour-blind readers too; dashes come after them.
    looks = itertools.product(["-", "--", ":", "-."], matplotlib.color_sequences["petroff10"])
    look_of = dict(zip(dict.fromkeys(label_of.values()), itertools.cycle(looks), strict=False))
    lines: dict[str, Any] = {}
    members = defaultdict(list)
    for i, (env, curves) in enumerate(sorted(groups.items())):
        axes = figure.add_subplot(rows, columns, i + 1)
        for key, runs in curves.items():
            label = label_of[key]
            lines[label] = _draw_curve(axes, runs, look_of[label])
            members[label].append(runs)
        _decorate(axes, env, metric)
    texts = list(lines)
    if "seed" not in names:
        texts = [", ".join(filter(None, [label, counted(members[label])])) for label in lines]
    several = any(len(runs) > 1 for curves in groups.values() for runs in curves.values())
    width = PANEL[0] * columns
    in_a_row = max(1, int(width / (0.8 + 0.09 * max(map(len, texts)))))  # as many as fit, inches
    figure.legend(
        lines.values(),
        texts,
        loc="outside lower center",
        ncols=in_a_row,
        frameon=False,
        title="mean and 95% bootstrap band" if several else None,
    )
    legend_rows = math.ceil(len(texts) / in_a_row) + several
    figure.set_size_inches(width, PANEL[1] * rows + LEGEND_ROW * legend_rows)
    return figure


def _draw_curve(axes: Any, runs: Sequence[Run], look: tuple[str, Any]) -> Any:
    """Draws the runs of one curve; returns the line."""
    style, color = look
    steps, mean, low, high = curve(runs)
    (line,) = axes.plot(steps, mean, style, color=color, linewidth=1.5)
    if low is not None:
        axes.fill_between(steps, low, high, color=color, alpha=0.25, linewidth=0)
    return line


def _decorate(axes: Any, title: str, metric: str) -> None:
    """Sets the title, labels, grid and ticks of a panel."""
    axes.set_title(title)
    axes.set_xlabel("environment steps")
    axes.set_ylabel(metric)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(thousands)


def counted(groups: Sequence[Sequence[Run]]) -> str:
    """Returns the number of runs in the curves of a label, such as "5 seeds"."""
    few, many = min(map(len, groups)), max(map(len, groups))
    if many == 1:
        return f"seed {groups[0][0].settings['seed']}" if len(groups) == 1 else "1 seed"
    seeds = all(len({run.settings["seed"] for run in runs}) == len(runs) for runs in groups)
    return f"{few if few == many else f'{few} to {many}'} {'seeds' if seeds else 'runs'}"


def thousands(value: float, position: int) -> str:
    """Formats a tick, such as 1,000,000."""
    return f"{value:,.10g}".replace("-", "\N{MINUS SIGN}")
