"""Sizes that no memory here can hold, refused before anything of that size is made.

An operating system may promise more memory than there is, and end the process when it is used; and
initialising a layer takes long before it fails. So the least that the settings need is computed in
advance. `report.expected_memory` says what they are expected to need.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from ppo_tf.support import memory

# Bytes of a parameter: itself, Adam's two moments, and what undoes an update of these three.
_PARAMETER = 6 * 4
# Bytes of a step: reward and four flags, in NumPy and in TensorFlow; its value, its advantage,
# its target and the next value.
_STEP = 2 * (4 + 4) + 4 * 4
_INDEX = 8  # bytes of a sample's place in an epoch, while it is shuffled
_NOISE = 4  # bytes of a number that state-dependent exploration holds
_PROCESS = 4_000_000  # bytes that a process has for itself, at the very least
_INNER = 4  # units inside a residual block for each of its width, as in `networks.residual`
_GATES = {"none": 0, "gru": 3, "lstm": 4}


def check_sizes(values: Mapping[str, Any], total: int | None = None) -> None:
    """Checks that the settings' sizes are not beyond this machine's memory.

    Args:
        values: every setting by name.
        total: memory in bytes; None: that of this machine.

    Raises:
        ValueError: one part alone needs more memory than there is.
    """
    total = memory.total_bytes() if total is None else total
    if total is None:
        return
    for names, size in _least_bytes(values).items():
        if size > total:
            received = ", ".join(f"{name}={values[name]}" for name in names)
            raise ValueError(
                f"{', '.join(names)} must fit into {total / 1e9:,.1f} GB of memory, but take at "
                f"least {size / 1e9:,.1f} GB. Received: {received}"
            )


def _least_bytes(s: Mapping[str, Any]) -> dict[tuple[str, ...], int]:
    """Lower bounds of the memory needed, in bytes by the settings that need it."""
    steps = s["horizon"] * s["num_envs"] * s["reuse"]
    sequence = 1 if s["cell"] == "none" else s["sequence_length"]
    networks = [s["network"]] if s["shared_trunk"] else [s["network"], s["critic_network"]]
    models, mlps = len(networks), networks.count("mlp")
    block = 2 * _INNER * s["residual_width"] ** 2
    hidden = sum(a * b for a, b in itertools.pairwise(s["hidden_sizes"]))
    units = s["cell_units"]
    cell = _GATES[s["cell"]] * units * (units + sum(s["hidden_sizes"][-1:]))
    processes = s["num_envs"] if s["backend"] == "async" else 0
    held = s["sde_period"] if s["continuous"] == "gsde" else 0
    return {
        ("hidden_sizes",): mlps * hidden * _PARAMETER,
        ("residual_width", "residual_blocks"): (
            (models - mlps) * s["residual_blocks"] * block * _PARAMETER
        ),
        ("cell_units", "hidden_sizes"): models * cell * _PARAMETER,
        ("horizon", "num_envs", "reuse"): steps * _STEP,
        ("epochs", "horizon", "num_envs"): s["epochs"] * (steps // sequence) * _INDEX,
        ("num_envs", "backend"): processes * _PROCESS,
        ("sde_period", "num_envs"): held * s["num_envs"] * _NOISE,
    }
