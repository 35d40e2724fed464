"""Prints the speed table of benchmarks/speed.py, case by case."""

import statistics

from field.libraries import LIBRARIES

OURS = ("ppo_tf", "ppo_tf + envpool")
PARTS = ("environment", "acting", "bookkeeping", "update")


def print_case(rows):
    """Prints a case as a Markdown table: medians, ratios, options, errors.

    Args:
        rows: rows of the CSV file, all of one case. Numbers may be texts.
    """
    print(f"\n### {rows[0]['case']}\n")
    titles = ["library", "steps/s (range)", *(f"times as fast: {name}" for name in OURS)]
    titles += ["MB", "options", "notes"]
    print("| " + " | ".join(titles) + " |\n" + "|---" * len(titles) + "|")
    groups = {}
    for row in rows:
        groups.setdefault(row["library"], []).append(row)
    rates = {name: rates_of(group) for name, group in groups.items()}
    for name, group in groups.items():
        print("| " + " | ".join([name, *cells(name, group, rates)]) + " |")
    for name in OURS:
        if rates.get(name):
            print(f"\n{name}: {shares(groups[name])}", end="")
    print(flush=True)


def rates_of(group):
    """Returns {repeat: steps per second} of a library."""
    return {
        int(row["repeat"]): float(row["steps_per_second"])
        for row in group
        if row.get("steps_per_second")
    }


def cells(name, group, rates):
    """Returns the texts of one row after its name."""
    failed = next((row["error"] for row in group if row.get("error")), "")
    notes = LIBRARIES[name].notes if name in LIBRARIES else ""
    own = rates[name]
    if not own:
        return ["", "", "", "", "", failed]
    values = own.values()
    notes = "; ".join(filter(None, [notes, failed]))
    return [
        f"{statistics.median(values):,.0f} ({min(values):,.0f} to {max(values):,.0f})",
        *(ratio(rates.get(each, {}), own) if each != name else "" for each in OURS),
        f"{statistics.median(float(r['peak_mb']) for r in group if r.get('peak_mb')):.0f}",
        group[0].get("options", ""),
        notes,
    ]


def ratio(ours, theirs):
    """Returns the text of ours / theirs, repeat by repeat: median and range."""
    ratios = [ours[repeat] / theirs[repeat] for repeat in ours if repeat in theirs]
    if not ratios:
        return ""
    return f"**{statistics.median(ratios):.2f}** ({min(ratios):.2f} to {max(ratios):.2f})"


def shares(group):
    """Returns the text of the shares of wall time and of the time to the first update."""
    done = [row for row in group if row.get("update")]
    parts = (f"{p} {statistics.median(float(row[p]) for row in done):.0%}" for p in PARTS)
    first = statistics.median(float(row["first_update_s"]) for row in done)
    return ", ".join(parts) + f"; first update done {first:.1f} s after process start"
