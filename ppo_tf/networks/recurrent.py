"""Recurrent models, and one way to run models over time, with or without a memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from ppo_tf import ops
from ppo_tf.actions.specs import ActionSpec
from ppo_tf.networks import cells, layers, models
from ppo_tf.networks.initialization import Seeds
from ppo_tf.networks.precision import as_float32
from ppo_tf.spaces.masks import MASK_KEY
from ppo_tf.types import Nest, Tensor


@keras.saving.register_keras_serializable("ppo_tf")
class Recurrent(keras.Model):
    """Observations -> encoder -> recurrent cell -> head: an actor or a critic with a memory.

    `model(observations, state)` is one step and returns (outputs, new state); `unroll` runs whole
    sequences. The state is a list of float tensors [B, units], zero where an episode starts.

    Args:
        encoder: keras.Model from observations [B, ...] to features [B, F].
        cell: Keras cell, such as `keras.layers.LSTMCell(128)` or `GRUCell`.
        head: keras.Model from the cell's output [B, units] to the model's outputs. If its input is
            a dict, it takes the cell's output as "features", and leaves of the observation, such as
            an action mask, by their paths.
    """

    def __init__(
        self, encoder: keras.Model, cell: keras.layers.Layer, head: keras.Model, **kwargs: Any
    ):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.encoder, self.cell, self.head = encoder, cell, head
        if not cell.built:
            cell.build(tuple(encoder.output.shape))
        self.built = True

    def initial_state(self, batch_size: int) -> list[Tensor]:
        """Returns zeros [batch_size, units] for each part of the cell's state."""
        return tf.nest.flatten(self.cell.get_initial_state(batch_size=batch_size))

    def call(self, observations: Nest, state: Sequence[Tensor]) -> tuple[Any, list[Tensor]]:
        """Runs one step.

        Args:
            observations: [B, ...].
            state: state after the previous step.

        Returns:
            (outputs [B, ...], state after this step).
        """
        features = forward(self.encoder, observations)
        output, state = cells.step(self.cell, features, list(state))
        return self._outputs(output, observations), state

    def unroll(
        self, observations: Nest, state: Sequence[Tensor], starts: Tensor
    ) -> tuple[Any, list[Tensor]]:
        """Runs whole sequences, zeroing the state before each step where starts is true.

        Args:
            observations: [T, B, ...].
            state: state before the first step, each [B, units].
            starts: bool [T, B].

        Returns:
            (outputs [T, B, ...], states after each step, each [T, B, units]).
        """
        merged = ops.merge_time(observations)
        features = ops.split_time(forward(self.encoder, merged), starts.shape[0])
        output, states = cells.unroll(self.cell, features, starts, list(state))
        outputs = self._outputs(ops.merge_time(output), merged)
        return ops.split_time(outputs, starts.shape[0]), states

    def _outputs(self, output: Tensor, observations: Nest) -> Any:
        if isinstance(self.head.input, dict):
            known = observations if isinstance(observations, dict) else {}
            return forward(self.head, {**known, "features": output})
        return forward(self.head, output)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, serialised."""
        parts = {"encoder": self.encoder, "cell": self.cell, "head": self.head}
        serialize = keras.saving.serialize_keras_object
        return {**super().get_config(), **{k: serialize(v) for k, v in parts.items()}}

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> Recurrent:
        """The inverse of `get_config`."""
        config = dict(config)
        for name in ("encoder", "cell", "head"):
            config[name] = keras.saving.deserialize_keras_object(
                config[name], custom_objects=custom_objects
            )
        return cls(**config)


def recurrent_actor(
    envs: models.Environment,
    spec: ActionSpec | None = None,
    *,
    cell: str | keras.layers.Layer = "lstm",
    units: int = 64,
    seed: int | None = None,
    mask_key: str | None = MASK_KEY,
    initial_scale: float = 1.0,
    state_dependent_scale: bool = False,
    **options: Any,
) -> Recurrent:
    """Creates `models.mlp_actor` with a recurrent cell between the hidden layers and the head.

    Args:
        envs, spec, mask_key, initial_scale, state_dependent_scale: as in `models.mlp_actor`.
        cell: "lstm", "gru" or a Keras cell.
        units: size of the cell's state; ignored for a Keras cell, which has its own.
        seed: seed of the initialisation; None draws one.
        options: options of `models.encoder`, for instance hidden_sizes.

    Raises:
        ValueError: the cell is unknown; also as in `models.mlp_actor`.
    """
    seeds = Seeds(seed)
    encoder = models.encoder(envs, seed=seeds.next(), mask_key=mask_key, **options)
    cell = cells.make_cell(cell, units, seeds)
    head = models.actor_head(
        envs,
        cell.output_size,
        spec,
        mask_key=mask_key,
        initial_scale=initial_scale,
        state_dependent_scale=state_dependent_scale,
        seed=seeds.next(),
    )
    return Recurrent(encoder, cell, head, name="actor")


def recurrent_critic(
    envs: models.Environment,
    *,
    cell: str | keras.layers.Layer = "lstm",
    units: int = 64,
    seed: int | None = None,
    **options: Any,
) -> Recurrent:
    """Creates `models.mlp_critic` with a recurrent cell; arguments as in `recurrent_actor`."""
    seeds = Seeds(seed)
    encoder = models.encoder(envs, seed=seeds.next(), **options)
    cell = cells.make_cell(cell, units, seeds)
    head = models.critic_head(cell.output_size, seed=seeds.next())
    return Recurrent(encoder, cell, head, name="critic")


def forward(model: keras.Model, observations: Nest) -> Any:
    """Runs a model; from a dict of observations it gets only the leaves that it takes. Its outputs
    are float32 even if it computes in bfloat16.

    Raises:
        ValueError: a leaf that the model needs is missing.
    """
    wanted = input_paths(model)
    if isinstance(observations, dict) and wanted is not None:
        if missing := wanted - observations.keys():
            raise ValueError(
                f"{model.name} needs the observations {sorted(wanted)}. "
                f"Received: {sorted(observations)}, without {sorted(missing)}"
            )
        observations = {path: observations[path] for path in model.input}
    return as_float32(model(observations, training=False))


def input_paths(model: keras.Model) -> set[str] | None:
    """Returns the paths of the observations that a model takes; None if it takes one tensor, or
    does not say."""
    if isinstance(model, Recurrent):
        masks = (input_paths(model.head) or set()) - {"features"}
        return (input_paths(model.encoder) or set()) | masks or None
    if not getattr(model, "inputs", None) or not isinstance(model.input, dict):
        return None
    return set(model.input)


def observation_spec(model: keras.Model) -> Any:
    """Returns the tf.TensorSpec [None, ...] of the observations that a model takes, or one for each
    path; None if the model does not say."""
    if isinstance(model, Recurrent):
        spec, head = observation_spec(model.encoder), observation_spec(model.head)
        if not isinstance(spec, dict) or not isinstance(head, dict):
            return spec
        masks = {path: mask for path, mask in head.items() if path != "features"}
        return {**spec, **masks}
    if not getattr(model, "inputs", None):
        return None

    def of(tensor: Tensor) -> tf.TensorSpec:
        return tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype)

    if isinstance(model.input, dict):
        return {path: of(tensor) for path, tensor in model.input.items()}
    return of(model.inputs[0])


def zero_observations(model: keras.Model, rows: int) -> Any:
    """Returns observations of 0, [rows, ...]; None if the model does not say their shape."""
    specs = observation_spec(model)
    if specs is None or any(None in spec.shape[1:] for spec in tf.nest.flatten(specs)):
        return None
    return tf.nest.map_structure(lambda s: tf.zeros((rows, *s.shape[1:]), s.dtype), specs)


def is_recurrent(model: keras.Model | None) -> bool:
    """Whether a model keeps a state from step to step."""
    return hasattr(model, "initial_state")


def initial_state(model: keras.Model | None, batch_size: int) -> list[Tensor]:
    """Returns the state before an episode; empty for a model without a memory."""
    if model is None or not is_recurrent(model):
        return []
    return model.initial_state(batch_size)


def step(model: keras.Model, observations: Nest, state: list[Tensor]) -> tuple[Any, list[Tensor]]:
    """Runs one step of any model; returns (outputs [B, ...], new state)."""
    if is_recurrent(model):
        return model(observations, state)
    return forward(model, observations), []


def unroll(
    model: keras.Model, observations: Nest, state: list[Tensor], starts: Tensor
) -> tuple[Any, list[Tensor]]:
    """Runs any model over sequences; returns (outputs [T, B, ...], states after each step).

    See `Recurrent.unroll`.
    """
    if is_recurrent(model):
        return model.unroll(observations, state, starts)
    outputs = forward(model, ops.merge_time(observations))
    return ops.split_time(outputs, starts.shape[0]), []


def learn_statistics(
    model: keras.Model, observations: Nest, state: list[Tensor], starts: Tensor
) -> None:
    """Runs what a model needs to update its normalisers, inside `layers.learn_statistics`.

    Args:
        model: any model.
        observations: [T, B, ...].
        state: state before the first step, each [B, units].
        starts: bool [T, B].
    """
    with layers.whole_pass():
        if not isinstance(model, Recurrent):
            forward(model, ops.merge_time(observations))
        elif layers.normalizations(model.head):
            model.unroll(observations, state, starts)
        else:
            forward(model.encoder, ops.merge_time(observations))
