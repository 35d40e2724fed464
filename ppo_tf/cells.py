"""Recurrent cells: Keras' own, stepped so that what needs no state is done for all steps at once.

What an LSTM or GRU does to its input alone is one matrix product for a whole sequence, which is
several times as fast as one in each step. Other cells get their input as it is.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from ppo_tf.initialization import Seeds
from ppo_tf.types import Tensor

CELLS = {"lstm": keras.layers.LSTMCell, "gru": keras.layers.GRUCell}


def make_cell(cell: Any, units: int, seeds: Seeds) -> Any:
    """A cell by its name, with orthogonal kernels of gain 1; a Keras cell stays as it is.

    Args:
        cell: "lstm", "gru" or a Keras cell.
        units: of a cell by its name.
        seeds: give the kernels' seeds.

    Raises:
        ValueError: an unknown name, or units below 1.
    """
    if not isinstance(cell, str):
        return cell
    if cell not in CELLS or units < 1:
        raise ValueError(
            f"cell must be one of {sorted(CELLS)} or a Keras cell, and units positive. "
            f"Received: cell={cell!r}, units={units}"
        )
    orthogonal = keras.initializers.Orthogonal
    return CELLS[cell](
        units,
        kernel_initializer=orthogonal(seed=seeds.next()),
        recurrent_initializer=orthogonal(seed=seeds.next()),
        seed=seeds.next(),  # of a dropout that is not there, but a variable all the same
    )


def project(cell: Any, inputs: Tensor) -> Tensor:
    """The cell's input kernel and bias on inputs [n, F]: float [n, gates * units]."""
    if not _has_kernels(cell):
        return inputs
    projected = inputs @ cell.kernel
    if not cell.use_bias:
        return projected
    return projected + (cell.bias if isinstance(cell, keras.layers.LSTMCell) else cell.bias[0])


def step_projected(
    cell: Any, projected: Tensor, state: list[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """One step of the cell from its projected input: (output [n, units], new state)."""
    if not _has_kernels(cell):
        structure = cell.get_initial_state(batch_size=1)
        output, state = cell(projected, tf.nest.pack_sequence_as(structure, state))
        return output, tf.nest.flatten(state)
    gate, squash = cell.recurrent_activation, cell.activation
    recurrent = state[0] @ cell.recurrent_kernel
    if isinstance(cell, keras.layers.LSTMCell):  # Hochreiter and Schmidhuber 1997; Gers et al. 2000
        enter, keep, new, leave = tf.split(projected + recurrent, 4, axis=-1)
        carry = gate(keep) * state[1] + gate(enter) * squash(new)
        output = gate(leave) * squash(carry)
        return output, [output, carry]
    if cell.use_bias:
        recurrent += cell.bias[1]
    keep, reset, new = tf.split(projected, 3, axis=-1)  # Cho et al. 2014
    keep_h, reset_h, new_h = tf.split(recurrent, 3, axis=-1)
    keep = gate(keep + keep_h)
    new = squash(new + gate(reset + reset_h) * new_h)
    output = keep * state[0] + (1.0 - keep) * new
    return output, [output]


def _has_kernels(cell: Any) -> bool:
    """Whether the cell is one whose input kernel may be applied ahead."""
    if not isinstance(cell, keras.layers.GRUCell | keras.layers.LSTMCell):
        return False
    plain = not cell.dropout and not cell.recurrent_dropout
    return plain and getattr(cell, "reset_after", True)
