"""docs/settings.md, made from the declarations: `python -m ppo_tf.command.reference` prints it."""

from __future__ import annotations

from ppo_tf.command.declarations import Declaration, as_text
from ppo_tf.command.settings import GROUPS

_INTRODUCTION = """\
# Settings of a training run

Each is a flag of `ppo-tf train` by the same name, a key of config.json's "settings" and a key of
the dict that `ppo_tf.learner_from_settings` takes. A setting left out takes the environment's
preset, then the default below. Those marked with * may change when a run goes on.

Printed by `python -m ppo_tf.command.reference` from the declarations in
`ppo_tf/command/settings.py`.
"""


def reference() -> str:
    """The settings as Markdown: a table per group, then the choices of each setting with any."""
    parts = [_INTRODUCTION]
    for title, group in GROUPS.items():
        rows = [_row(setting) for setting in group]
        head = ["| setting | default | value | what it is |", "|---|---|---|---|"]
        parts.append("\n".join([f"## {title}\n", *head, *rows]) + "\n")
        parts += [_choices(setting) for setting in group if setting.choices]
    return "\n".join(parts)


def _row(setting: Declaration) -> str:
    name = f"`{setting.name}`{' *' if setting.may_change else ''}"
    value = "see below" if setting.choices else setting.rule
    return f"| {name} | {as_text(setting.default)} | {value} | {setting.help} |"


def _choices(setting: Declaration) -> str:
    lines = []
    for name, text, component in setting.choices:
        lines.append(f"- `{name}`{f' (`{component}`)' if component else ''}: {text}")
    return "\n".join([f"`{setting.name}` is one of\n", *lines]) + "\n"


if __name__ == "__main__":
    print(reference(), end="")
