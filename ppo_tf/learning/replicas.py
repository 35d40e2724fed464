"""Learning on several devices of one machine, each with a copy of all variables.

    for each minibatch:
        standardise its advantages, and split it into a part for each device
        g_r = gradient of part r's share of the minibatch's loss         on all devices at once
        g = sum of all g_r                                               the one reduction
        clip g; theta <- theta - optimizer(g)                            on each device's copy

All else is computed once, from the whole batch on the first device: old distributions, values,
advantages, the statistics of normalisers, how far the policy moved. What it assigns goes to all
copies. So one device and several take the same steps, up to the rounding of sums.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from ppo_tf import ops
from ppo_tf.learning.batch import Batch
from ppo_tf.learning.naming import Variable
from ppo_tf.learning.objective import Objective, Terms
from ppo_tf.learning.updates.rule import UPDATE_RULE_KEYWORDS, UpdateRule, plain
from ppo_tf.support import keywords
from ppo_tf.types import Metrics, Tensor

Measured = tuple[Sequence[Tensor | None], Metrics, Tensor]  # gradients, metrics, mean KL


class Share(NamedTuple):
    """How much of a minibatch a part of it is.

    Attributes:
        samples: float scalar, its share of the valid samples: the weight of means over these.
        rows: float scalar, its share of all rows: the weight of `model.losses`.
    """

    samples: Tensor
    rows: Tensor

    def of(self, loss: Tensor, terms: Terms) -> tuple[Tensor, Terms]:
        """Turns a part's loss and metrics into summands of the minibatch's."""
        metrics = {name: self.samples * x for name, x in terms.metrics.items()}
        loss = self.samples * loss
        if terms.model_loss is not None:
            metrics["model_loss"] = self.rows * terms.model_loss
            loss += (self.rows - self.samples) * terms.model_loss
        return loss, terms._replace(metrics=metrics)


class Replicas:
    """The devices that a learner learns on.

    Args:
        strategy: holds the copies of the variables.
        jit_compile: whether XLA compiles each device's gradients. It can't compile the whole
            update, because a program of one device can't reach the variables of another.

    Attributes:
        count: number of devices.
    """

    def __init__(self, strategy: tf.distribute.MirroredStrategy, jit_compile: bool):
        self._strategy = strategy
        self._jit_compile = jit_compile
        self.count: int = strategy.num_replicas_in_sync

    def check(self, update_rule: UpdateRule, variables: Mapping[str, Variable]) -> None:
        """Raises ValueError for a rule that can't use them, and for variables without copies."""
        if "replicas" not in keywords.accepted(update_rule, UPDATE_RULE_KEYWORDS, "update_rule"):
            raise ValueError(
                "update_rule must take replicas, as MinibatchUpdate does, to learn on several "
                f"devices. Received: update_rule={update_rule}"
            )
        for name, variable in variables.items():
            value = variable.value if isinstance(variable, keras.Variable) else variable
            if not self._strategy.extended.variable_created_in_scope(value):
                raise ValueError(
                    "Models, optimizer and losses must be made in the scope of strategy: "
                    f"`with strategy.scope():`. Received: {name}, made outside"
                )

    def check_batch(self, update_rule: UpdateRule, sequence_length: int) -> None:
        """Raises ValueError if minibatches have fewer sequences than there are devices."""
        size = getattr(update_rule, "minibatch_size", math.inf)
        if size < self.count * sequence_length:
            raise ValueError(
                "minibatch_size must give each device a sequence at least. Received: "
                f"minibatch_size={size}, sequence_length={sequence_length}, devices={self.count}"
            )

    def check_context(self) -> None:
        """Raises RuntimeError in the strategy's scope, where optimizers can't be applied."""
        if tf.distribute.in_cross_replica_context():
            raise RuntimeError("update must be called outside of strategy.scope()")

    @plain
    def total(
        self, measure: Callable[..., Measured], objective: Objective, minibatch: Batch
    ) -> Measured:
        """Measures a minibatch on all devices, each with a part of it.

        Args:
            measure: function of an objective, a part and its `Share`, that returns summands.
            objective: what is measured.
            minibatch: its sequences are split as evenly as they can be.

        Returns:
            The sums of what `measure` returned, on the first device.
        """
        if objective.standardize_advantages == "minibatch":
            advantages = ops.standardize(minibatch.advantages, minibatch.valid)
            minibatch = minibatch._replace(advantages=advantages)
            objective = dataclasses.replace(objective, standardize_advantages="off")
        parts, shares = self._split(minibatch)
        structure: Any = None

        def measure_part(replica: int) -> Tensor:
            nonlocal structure
            structure = measure(objective, parts[replica], shares[replica])
            return _joined(structure)

        def on_replica() -> Tensor:
            context = tf.distribute.get_replica_context()
            replica = tf.get_static_value(context.replica_id_in_sync_group)
            if not self._jit_compile:
                return measure_part(replica)
            compute = functools.partial(measure_part, replica)
            return tf.function(compute, jit_compile=True, autograph=False)()

        # One vector, so that there is one reduction.
        total = self._strategy.extended.reduce_to(
            tf.distribute.ReduceOp.SUM,
            self._strategy.run(on_replica),
            self._strategy.extended.worker_devices[0],
        )
        return _parted(total, structure)

    def _split(self, minibatch: Batch) -> tuple[list[Batch], list[Share]]:
        """Returns the parts of a minibatch and their shares."""
        count = minibatch.valid.shape[1]
        ends = [count * i // self.count for i in range(self.count + 1)]
        parts = [minibatch.part(*pair) for pair in itertools.pairwise(ends)]
        valid = tf.stack([tf.reduce_sum(tf.cast(part.valid, tf.float32)) for part in parts])
        rows = tf.constant([part.valid.shape[1] / count for part in parts])
        none = tf.reduce_all(tf.equal(valid, 0.0))
        samples = tf.where(none, rows, tf.math.divide_no_nan(valid, tf.reduce_sum(valid)))
        return parts, [Share(samples[i], rows[i]) for i in range(self.count)]


def scope_of(
    strategy: tf.distribute.MirroredStrategy | None,
) -> contextlib.AbstractContextManager[Any]:
    """Returns the scope in which variables get a copy on each device; None has one that does not
    matter.

    Raises:
        ValueError: the strategy is none for devices of one machine.
    """
    if strategy is None:
        return contextlib.nullcontext()
    if not isinstance(strategy, tf.distribute.MirroredStrategy):
        raise ValueError(
            "strategy must be a tf.distribute.MirroredStrategy, for devices of one machine. "
            f"Received: strategy={strategy}"
        )
    return strategy.scope()


def mirrored(devices: int) -> tf.distribute.MirroredStrategy | None:
    """Returns a strategy for the first devices of this machine; None for one device.

    Args:
        devices: number of GPUs; without a GPU, of logical CPU devices, which are for tests.

    Raises:
        ValueError: there are not so many.
    """
    if devices == 1:
        return None
    kind = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    found = [device.name for device in tf.config.list_logical_devices(kind)]
    if devices > len(found):
        raise ValueError(
            f"devices must be at most {len(found)}, the number of TensorFlow's {kind} devices. "
            f"Received: devices={devices}"
        )
    return tf.distribute.MirroredStrategy(found[:devices])


def _joined(nest: Any) -> Tensor:
    """All tensors of a nest as one vector, without the places of None."""
    found = [x for x in tf.nest.flatten(nest) if x is not None]
    return tf.concat([tf.reshape(tf.convert_to_tensor(x), [-1]) for x in found], 0)


def _parted(vector: Tensor, structure: Any) -> Any:
    """The inverse of `_joined`."""
    leaves = tf.nest.flatten(structure)
    sizes = [math.prod(x.shape) for x in leaves if x is not None]
    parts = iter(tf.split(vector, sizes))
    found = [None if x is None else tf.reshape(next(parts), x.shape) for x in leaves]
    return tf.nest.pack_sequence_as(structure, found)
