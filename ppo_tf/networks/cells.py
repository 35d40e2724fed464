"""Recurrent cells: Keras' own, with the work that needs no state done for all steps at once.

An LSTM or GRU projects a whole sequence of inputs in one matrix product. Other cells run step by
step.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from ppo_tf import ops
from ppo_tf.networks.initialization import Seeds
from ppo_tf.types import Tensor

Gates = list[Tensor]  # one float [n, units] per gate, or per part of the state

CELLS = {"lstm": keras.layers.LSTMCell, "gru": keras.layers.GRUCell}


def make_cell(cell: str | keras.layers.Layer, units: int, seeds: Seeds) -> keras.layers.Layer:
    """Makes a cell from its name, with orthogonal kernels of gain 1; returns a Keras cell as is.

    Args:
        cell: "lstm", "gru" or a Keras cell.
        units: size of the state; ignored for a Keras cell, which has its own.
        seeds: source of the kernels' seeds.

    Raises:
        ValueError: the name is unknown, or units is below 1.
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
        dtype="float32",  # whatever the other layers compute in
        seed=seeds.next(),  # for dropout: unused here, but Keras makes it a variable all the same
    )


class Gated(NamedTuple):
    """The parts of an LSTM or GRU: state' = combine(project(x), [h @ kernel + bias], state).

    h is the first part of the state, and the output. Each gate has its own matrix product: XLA does
    not vectorise over slices, so slicing the gates out of one product is several times slower on
    CPUs.
    """

    project: Callable[[Tensor], list[Tensor]]  # inputs [n, F] to [n, units] per gate
    kernels: list[Tensor]  # [units, units] per gate
    biases: list[Tensor]  # [units] per gate
    combine: Callable[..., list[Tensor]]  # (projected, recurrent, state), elementwise


def unroll(
    cell: keras.layers.Layer, inputs: Tensor, starts: Tensor, state: list[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """Runs a cell over sequences, zeroing the state before each step where starts is true.

    Args:
        cell: Keras cell.
        inputs: float [T, n, F].
        starts: bool [T, n].
        state: state before the first step, each [n, units].

    Returns:
        (outputs [T, n, units], states after each step, each [T, n, units]).
    """
    gated = _gated(cell)
    if gated is not None:
        projected = ops.split_time(gated.project(ops.merge_time(inputs)), starts.shape[0])
        states = _unroll_gated(gated, projected, starts, state)
        return states[0], states

    def advance(carry: tuple[Tensor, list[Tensor]], now: Any) -> tuple[Tensor, list[Tensor]]:
        features, start = now
        return _step_any(cell, features, ops.emptied(start, carry[1]))

    before = tf.zeros((starts.shape[1], cell.output_size), inputs.dtype)
    return tf.scan(advance, (inputs, starts), initializer=(before, state))


def step(
    cell: keras.layers.Layer, inputs: Tensor, state: list[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """Runs one step of a cell on inputs [n, F]; returns (output [n, units], new state)."""
    gated = _gated(cell)
    if gated is None:
        return _step_any(cell, inputs, state)
    state = gated.combine(gated.project(inputs), _recurrent(gated, state[0]), state)
    return state[0], state


def _step_any(
    cell: keras.layers.Layer, inputs: Tensor, state: list[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    structure = cell.get_initial_state(batch_size=1)
    output, state = cell(inputs, tf.nest.pack_sequence_as(structure, state))
    return output, tf.nest.flatten(state)


def _recurrent(gated: Gated, h: Tensor) -> list[Tensor]:
    return [h @ k + b for k, b in zip(gated.kernels, gated.biases, strict=True)]


def _gated(cell: keras.layers.Layer) -> Gated | None:
    """The parts of an LSTM or GRU without dropout; None for any other cell."""
    is_lstm = type(cell) is keras.layers.LSTMCell  # a subclass may compute something else
    if not is_lstm and not (type(cell) is keras.layers.GRUCell and cell.reset_after):
        return None
    if cell.dropout or cell.recurrent_dropout:
        return None
    gates = 4 if is_lstm else 3
    gate, squash = cell.recurrent_activation, cell.activation
    zeros = tf.zeros((2, gates * cell.units))
    bias = cell.bias.value if cell.use_bias else zeros
    of_inputs, of_state = (bias, zeros[1]) if is_lstm and cell.use_bias else (bias[0], bias[1])
    kernels = tf.split(cell.kernel.value, gates, axis=1)
    biases = tf.split(of_inputs, gates)

    def lstm(x: Gates, r: Gates, state: Gates) -> Gates:
        # Hochreiter and Schmidhuber 1997, forget gate by Gers et al. 2000
        enter, keep, new, leave = [a + b for a, b in zip(x, r, strict=True)]
        carry = gate(keep) * state[1] + gate(enter) * squash(new)
        return [gate(leave) * squash(carry), carry]

    def gru(x: Gates, r: Gates, state: Gates) -> Gates:
        # Cho et al. 2014, the reset gate after the matrix product
        keep = gate(x[0] + r[0])
        new = squash(x[2] + gate(x[1] + r[1]) * r[2])
        return [keep * state[0] + (1.0 - keep) * new]

    return Gated(
        lambda inputs: [inputs @ k + b for k, b in zip(kernels, biases, strict=True)],
        tf.split(cell.recurrent_kernel.value, gates, axis=1),
        tf.split(of_state, gates),
        lstm if is_lstm else gru,
    )


def _unroll_gated(
    gated: Gated, projected: list[Tensor], starts: Tensor, state: list[Tensor]
) -> list[Tensor]:
    """The states after each step, with a custom gradient: backpropagation through time.

    TensorFlow's gradient of a scan accumulates the kernels' gradients step by step. Here the
    backward pass only collects the gates' gradients; one matrix product over all steps then gives
    the kernels'.
    """
    count = len(projected), len(gated.kernels), len(gated.biases), len(state)

    @tf.custom_gradient
    def run(*flat: Tensor) -> tuple[Gates, Callable[..., Gates]]:
        projected, kernels, biases, state = _parts(flat, count)
        local = gated._replace(kernels=kernels, biases=biases)

        def advance(carry: tuple[Gates, Gates], now: Any) -> tuple[Gates, Gates]:
            x, start = now
            before = ops.emptied(start, carry[0])
            return local.combine(x, _recurrent(local, before[0]), before), before

        states, befores = tf.scan(advance, (projected, starts), initializer=(state, state))

        def backward(*d_states: Tensor) -> Gates:
            recurrent = ops.split_time(
                _recurrent(local, ops.merge_time(befores[0])), starts.shape[0]
            )
            back = [tf.transpose(k) for k in kernels]

            def retreat(carry: tuple[Gates, ...], now: Any) -> tuple[Gates, Gates, Gates]:
                x, r, before, start, d_here = now
                with tf.GradientTape() as tape:
                    tape.watch([x, r, before])
                    after = local.combine(x, r, before)
                d_after = [a + b for a, b in zip(carry[0], d_here, strict=True)]
                dx, dr, d_before = tape.gradient(
                    after, [x, r, before], d_after, unconnected_gradients="zero"
                )
                d_before[0] += tf.add_n([d @ k for d, k in zip(dr, back, strict=True)])
                return ops.emptied(start, d_before), dx, dr

            zeros = [tf.zeros_like(x[0]) for x in projected]
            d_state, dx, dr = tf.scan(
                retreat,
                (projected, recurrent, befores, starts, list(d_states)),
                initializer=([tf.zeros_like(s) for s in state], zeros, zeros),
                reverse=True,
            )
            h = ops.merge_time(befores[0])
            dk = [tf.matmul(h, ops.merge_time(d), transpose_a=True) for d in dr]
            db = [tf.reduce_sum(d, [0, 1]) for d in dr]
            return [*dx, *dk, *db, *[s[0] for s in d_state]]

        return states, backward

    states = run(*projected, *gated.kernels, *gated.biases, *state)
    return list(states) if isinstance(states, list | tuple) else [states]


def _parts(flat: Sequence[Tensor], counts: Sequence[int]) -> list[list[Tensor]]:
    ends = list(itertools.accumulate(counts))
    return [list(flat[end - n : end]) for n, end in zip(counts, ends, strict=True)]
