"""The results of a sweep: a row per run for programs, a row per combination for people."""

from __future__ import annotations

import io
import math
import statistics
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from ppo_tf.command.declarations import as_text
from ppo_tf.command.sweeping.grid import Run

LEGEND = "return: final deterministic evaluation, mean +- standard deviation (n - 1) over seeds"


def csv_rows(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Returns a dict per run; None where a run has no value."""
    rows = []
    for run in runs:
        mean, std = run.evaluation if run.status == "finished" else (None, None)
        ended = run.status not in ("waiting", "held", "running")
        row: dict[str, Any] = {} if run.trial is None else {"trial": run.trial}
        row |= {name: as_text(value) for name, value in run.settings.items()}
        row |= {"seed": run.seed, "status": run.status, "mean_return": mean, "std_return": std}
        row["steps_per_second"] = run.steps_per_second if ended else None
        row["seconds"] = run.seconds if ended else None
        row["logdir"] = run.folder.name
        rows.append(row)
    return rows


def ranked(runs: Sequence[Run]) -> list[list[Run]]:
    """Groups runs by settings; groups with all seeds finished come first, by mean return."""
    by_setting: dict[str, list[Run]] = {}
    for run in runs:
        by_setting.setdefault(run.group, []).append(run)

    def rank(group: Sequence[Run]) -> tuple[bool, float]:
        returns = returns_of(group)
        return len(returns) < len(group), -statistics.fmean(returns) if returns else math.inf

    return sorted(by_setting.values(), key=rank)


def returns_of(group: Sequence[Run]) -> list[float]:
    """Returns the mean return of every finished run."""
    return [run.evaluation[0] for run in group if run.status == "finished"]


def best_settings(runs: Sequence[Run]) -> dict[str, Any] | None:
    """Returns the settings with the best mean return; None if alone or if a seed is missing."""
    best, *others = ranked(runs)
    complete = all(run.status == "finished" for run in best)
    return best[0].settings if others and complete else None


def summary(runs: Sequence[Run], seeds: int) -> str:
    """Returns a Markdown table of the settings, best first, and a line per failure.

    Args:
        runs: all runs of the sweep.
        seeds: number of seeds per combination of settings.
    """
    groups = ranked(runs)
    digits = min((digits_of(value) for group in groups for value in returns_of(group)), default=0)
    trials = runs[0].trial is not None
    rows = [_cells(group, seeds, digits) for group in groups]
    columns = [name for name in rows[0] if any(row[name] for row in rows)]
    table = Table(box=box.MARKDOWN)
    for name in [*(["trial"] if trials else []), *runs[0].settings]:
        table.add_column(name)
    for name in columns:
        table.add_column(name, justify="right")
    for group, row in zip(groups, rows, strict=True):
        names = [str(group[0].trial)] if trials else []
        names += map(as_text, group[0].settings.values())
        table.add_row(*names, *(row[name] for name in columns))
    written = io.StringIO()
    console = Console(file=written, width=1000, markup=False, emoji=False, highlight=False)
    console.print(table)
    paragraphs = [written.getvalue().strip(), LEGEND]
    if failed := [f"- {r.folder.name}: {r.error}" for r in runs if r.status == "failed"]:
        paragraphs.append("\n".join(["Failed:", "", *failed]))
    return "\n\n".join(paragraphs)


def digits_of(value: float) -> int:
    """Returns the number of decimals to show: returns of a few units need more than hundreds."""
    return 1 if abs(value) >= 10 else 3


def _cells(group: Sequence[Run], seeds: int, digits: int) -> dict[str, str]:
    """Returns a row of the table by column; empty where there is no value."""
    returns, error = returns_of(group), ""
    mean = f"{statistics.fmean(returns):.{digits}f}" if returns else ""
    if len(returns) > 1:
        std = statistics.stdev(returns)
        mean += f" +- {std:.{digits}f}"
        error = f"{std / math.sqrt(len(returns)):.{digits}f}"
    count = f"{len(returns)}" if len(returns) == seeds else f"{len(returns)} of {seeds}"
    ends = [run.status for run in group if run.status in ("failed", "pruned", "interrupted")]
    if ends:
        count += f" ({', '.join(sorted(set(ends)))})"
    speeds = [
        run.steps_per_second
        for run in group
        if run.status == "finished" and run.steps_per_second is not None
    ]
    speed = f"{statistics.fmean(speeds):,.0f}" if speeds else ""
    return {"return": mean, "standard error": error, "seeds": count, "steps/s": speed}
