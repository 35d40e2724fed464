"""A saved policy acts again: the folder that `export_policy` wrote, run in an environment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import tensorflow as tf

from ppo_tf import spaces
from ppo_tf.artefacts.metadata import METADATA, MODEL, NAMES
from ppo_tf.support.files import reason_of
from ppo_tf.support.json_files import read_json
from ppo_tf.support.schema import OBJECT, TEXT, Named, check

_BY_PATH = Named(TEXT, TEXT)


class ExportedPolicy:
    """A saved policy as `evaluate` and `record_video` take one: a function from (observations,
    seed, starts) to actions.

    The SavedModel computes everything. This class names its arguments by the environment's
    spaces and carries the state of a memory, which is zero where an episode starts.

    Args:
        policy: folder that `export_policy` wrote.
        envs: the environments to act in, any number of them; only their spaces are used.
        deterministic: whether actions are the policy's mode or drawn from it.

    Attributes:
        metadata: JSON values by name that were exported with the policy; "env" is the id of the
            environment on which the training command trained it.

    Raises:
        ValueError: the folder holds no policy that can be loaded, or one that observes or does
            something else than the environment has.
    """

    def __init__(
        self,
        policy: str | os.PathLike[str],
        envs: gymnasium.vector.VectorEnv,
        *,
        deterministic: bool = True,
    ):
        self.metadata = read_metadata(policy)
        self._model = _load(policy)  # owns the variables that its signatures read
        signatures = self._model.signatures
        self._signature = signatures["serving_default" if deterministic else "sample"]
        self._arguments = self._signature.structured_input_signature[1]
        self._initial_state = signatures.get("initial_state")
        self._names = _read_names(policy)
        self._state: dict[str, tf.Tensor] = {}
        self._observation_space = envs.single_observation_space
        self._action_space = envs.single_action_space
        self._check_spaces(f"Received: policy={policy}, envs={envs}")

    def __call__(self, observations: Any, seed: np.ndarray, starts: np.ndarray) -> Any:
        """Acts once in every environment.

        Args:
            observations: [B, ...], nested as the vector environment gives them.
            seed: int32 [2], for actions that are drawn.
            starts: bool [B], where an episode starts; everywhere in the first call.

        Returns:
            Actions [B, ...], nested as the vector environment takes them.
        """
        flat = _by_path(spaces.flatten(self._observation_space, observations))
        names = self._names["observations"]
        given = {names[path]: leaf for path, leaf in flat.items() if path in names}
        given["seed"] = seed
        if self._initial_state is not None and starts.all():
            self._state = self._initial_state(batch_size=tf.constant(len(starts)))
        for name, state in self._state.items():
            given[name] = tf.where(starts[:, None], tf.zeros_like(state), state)
        results = self._signature(
            **{name: tf.cast(given[name], spec.dtype) for name, spec in self._arguments.items()}
        )
        self._state = {name: results[name] for name in self._state}
        leaves = _by_path(spaces.leaves(self._action_space))
        actions = {path: results[self._names["actions"][path]].numpy() for path in leaves}
        composite = spaces.is_composite(self._action_space)
        return spaces.unflatten(self._action_space, actions if composite else actions[""])

    def _check_spaces(self, received: str) -> None:
        """Raises ValueError unless the policy's arguments and results have the spaces' shapes."""
        observed = _by_path(spaces.leaves(self._observation_space))
        done = _by_path(spaces.leaves(self._action_space))
        names = self._names["observations"]
        there = {names[path]: leaf.shape for path, leaf in observed.items() if path in names}
        states = set(self._initial_state.structured_outputs) if self._initial_state else set()
        for name in self._arguments.keys() - states - {"seed"}:
            shape = tuple(self._arguments[name].shape[1:])
            if there.get(name) != shape:
                raise ValueError(
                    f"The policy takes {name} of shape {shape}, the environment has "
                    f"{there.get(name, 'none')}. {received}"
                )
        names = spaces.result_names(done) | self._names["actions"]
        wanted = {names[path]: leaf.shape for path, leaf in done.items()}
        results = self._signature.structured_outputs
        made = {name: tuple(results[name].shape[1:]) for name in results.keys() - states}
        if made != wanted or done.keys() != self._names["actions"].keys():
            raise ValueError(
                f"The policy makes actions of shapes {made}, the environment takes {wanted}. "
                f"{received}"
            )


def read_metadata(policy: str | os.PathLike[str]) -> dict[str, Any]:
    """What was exported with a policy as its metadata, JSON values by name.

    Args:
        policy: folder that `export_policy` wrote.

    Raises:
        ValueError: it is no such folder.
    """
    return {name: value for name, value in _read(policy).items() if name != NAMES}


def _read_names(policy: str | os.PathLike[str]) -> dict[str, dict[str, str]]:
    """The signatures' names by path: {"observations": arguments, "actions": results}."""
    content = _read(policy)
    try:
        check(content, {NAMES: {"observations": _BY_PATH, "actions": _BY_PATH}}, str(METADATA))
    except ValueError as error:
        raise ValueError(
            f"policy has no {NAMES!r} in {METADATA}: {error} Received: policy={policy}"
        ) from error
    return dict(content[NAMES])


def _read(policy: str | os.PathLike[str]) -> dict[str, Any]:
    """All of the JSON file beside the SavedModel."""
    if not (Path(policy) / MODEL).is_file():
        raise ValueError(
            f"policy must be a folder that export_policy wrote. Received: policy={policy}"
        )
    try:
        content = read_json(Path(policy) / METADATA, OBJECT, follow=True)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"policy has no readable {METADATA}: {reason_of(error)}. Received: policy={policy}"
        ) from error
    return dict(content)


def _load(policy: str | os.PathLike[str]) -> Any:
    """The SavedModel; TensorFlow has an error of its own for each kind of damage."""
    try:
        model = tf.saved_model.load(str(policy))
    except (OSError, ValueError, LookupError, tf.errors.OpError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"policy cannot be loaded: {reason} Received: policy={policy}") from error
    if lacking := {"serving_default", "sample"} - model.signatures.keys():
        raise ValueError(
            f"policy has no signature {' and '.join(sorted(lacking))}, so export_policy did not "
            f"write it. Received: policy={policy}"
        )
    return model


def _by_path(leaves: Any) -> dict[str, Any]:
    """Leaves by path; the only leaf of a plain space has the path ""."""
    return leaves if isinstance(leaves, dict) else {"": leaves}
