"""Self-contained SavedModels that act with plain TensorFlow, without ppo_tf or TFP."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from ppo_tf.artefacts.metadata import MARKER, METADATA, NAMES
from ppo_tf.networks import recurrent
from ppo_tf.policies.policy import Policy
from ppo_tf.spaces import argument_names, result_names
from ppo_tf.support.folders import check_new_folder, check_replaceable, complete_folder
from ppo_tf.support.json_files import write_json
from ppo_tf.types import Nest, NonFiniteError, Tensor


def export_policy(
    policy: Policy,
    path: str | os.PathLike[str],
    *,
    critic: keras.Model | None = None,
    observation_spec: tf.TensorSpec | dict[str, tf.TensorSpec] | None = None,
    metadata: dict[str, Any] | None = None,
    replace: bool = False,
) -> Path:
    """Writes a SavedModel with everything included: normalisation, squashing, rescaling, clipping.

    Signatures, all over a batch of observations as the environment returns them:
        serving_default(observation) -> {"action"}: the deterministic action, ready for `env.step`.
        sample(observation, seed int32 [2]) -> {"action"}: drawn from the policy; the same seed
            draws the same actions.
        value(observation) -> {"value" float [B]}: the critic's value, if a critic is given.

    Each leaf of a Dict or Tuple is a separate argument or result: the observation "arm/0" is the
    argument arm_0, the action "arm/0" the result action_arm_0. See `spaces.argument_names` for
    paths that are no identifiers; assets.extra/policy.json has all names by path. A recurrent
    policy also takes state_0, state_1, ..., each [B, units], and returns their values after the
    step; an episode starts with zeros, returned by initial_state(batch_size int32).

    The folder appears complete or not at all. A policy that is replaced is moved to
    `.NAME.replaced` beside it during the change: after a crash, a complete policy, old or new, is
    in one of the two places, and the next call with replace=True cleans up.

    Args:
        policy: policy to export.
        path: path of the folder.
        critic: critic to export as `value`.
        observation_spec: tf.TensorSpec of a batch of observations [None, ...], or a dict of them;
            needed only for subclassed Keras models, which do not know their input.
        metadata: JSON values to keep in assets.extra/policy.json, such as the environment's id,
            beside "names", {"observations": {path: argument}, "actions": {path: result}}.
        replace: whether to replace a saved policy at path; safe for one process at a time.

    Raises:
        FileExistsError, NotADirectoryError, PermissionError: see `check_new_folder`; with replace,
            FileExistsError means that path is not a saved policy.
        OSError: the policy can't be written.
        NonFiniteError: a weight of the policy or critic is NaN or infinite.
        ValueError: observation_spec is needed but missing, metadata has the key "names", or the
            policy depends on variables outside its models.
    """
    _checked(path, metadata or {}, replace)
    traced = TracedPolicy(policy, critic, observation_spec)
    return traced.write(path, metadata=metadata, replace=replace)


class TracedPolicy:
    """A policy that is ready to be exported: what can't be is an error before anything is written.

    Its weights are those at the time of `write`, so it can be made before training.

    Args:
        policy, critic, observation_spec: see `export_policy`.

    Raises:
        ValueError: observation_spec is needed but missing, or the policy depends on a variable that
            is not its models'. Also what the policy raises while it is traced.
    """

    def __init__(
        self,
        policy: Policy,
        critic: keras.Model | None = None,
        observation_spec: tf.TensorSpec | dict[str, tf.TensorSpec] | None = None,
    ):
        self._models = [policy.actor] if critic is None else [policy.actor, critic]
        arguments = argument_names(_observed(self._models, observation_spec))
        results: dict[str, str] = {}  # known once the first signature is traced
        seed_spec = {"seed": tf.TensorSpec((2,), tf.int32)}

        def serve(
            observations: Nest, state: list[Tensor], seed: Tensor | None = None
        ) -> tuple[dict[str, Nest], list[Tensor]]:
            parameters, state = policy.step(observations, state)
            actions = policy.action_map(policy.draw(parameters, seed))
            leaves = actions if isinstance(actions, dict) else {"": actions}
            results.update(result_names(leaves))
            return {results[path]: leaf for path, leaf in leaves.items()}, state

        self._signatures = {
            "serving_default": _signature(serve, policy.actor, arguments, observation_spec),
            "sample": _signature(serve, policy.actor, arguments, observation_spec, seed_spec),
        }
        if policy.recurrent:
            self._signatures["initial_state"] = _initial_state(policy.actor)
        if critic is not None:
            self._signatures["value"] = _value(critic, arguments, observation_spec)
        self._names = {"observations": arguments, "actions": results}
        self._module = tf.Module()
        # tf.Module does not see Keras 3 variables; without this they would not be saved.
        self._module.tracked = [v.value for model in self._models for v in model.variables]
        _check_captured(self._signatures, self._module.tracked)

    def write(
        self,
        path: str | os.PathLike[str],
        *,
        metadata: dict[str, Any] | None = None,
        replace: bool = False,
    ) -> Path:
        """Writes the SavedModel; see `export_policy` for arguments and errors."""
        metadata = metadata or {}
        path = _checked(path, metadata, replace)
        _check_finite(self._models)
        with complete_folder(path, MARKER if replace else None) as temporary:
            try:
                tf.saved_model.save(self._module, str(temporary), signatures=self._signatures)
            except tf.errors.OpError as error:  # TensorFlow raises its own errors, for files too
                reason = error.message.splitlines()[0]
                raise OSError(f"cannot write the policy {path}: {reason}") from error
            (temporary / METADATA).parent.mkdir(exist_ok=True)
            write_json(temporary / METADATA, {**metadata, NAMES: self._names})
        return path


def _checked(path: str | os.PathLike[str], metadata: dict[str, Any], replace: bool) -> Path:
    """Returns the path of the folder, once it and the metadata are checked."""
    if NAMES in metadata:
        raise ValueError(f"metadata must not have the key {NAMES!r}. Received: metadata={metadata}")
    return check_replaceable(path, MARKER) if replace else check_new_folder(path)


def _check_captured(signatures: Mapping[str, Any], tracked: Sequence[Any]) -> None:
    """Checks that the signatures read no variables but the models'; others could not be saved."""
    known = {id(variable.handle) for variable in tracked}
    for name, signature in signatures.items():
        for tensor in signature.captured_inputs:
            if tensor.dtype == tf.resource and id(tensor) not in known:
                raise ValueError(
                    "A policy that depends on variables outside its models can't be exported. "
                    f"Received: signature={name}"
                )


def _value(critic: keras.Model, arguments: Mapping[str, str], observation_spec: Any) -> Any:
    """The concrete function of the critic's values."""

    def value(observations: Nest, state: list[Tensor]) -> tuple[dict[str, Nest], list[Tensor]]:
        values, state = recurrent.step(critic, observations, state)
        return {"value": values}, state

    return _signature(value, critic, arguments, observation_spec)


def _signature(
    function: Callable[..., tuple[dict[str, Nest], list[Tensor]]],
    model: keras.Model,
    names_by_path: Mapping[str, str],
    observation_spec: Any,
    more: dict[str, tf.TensorSpec] | None = None,
) -> Any:
    """The concrete function with one named argument per leaf of the observation and state."""
    spec = _observation_spec(model) if observation_spec is None else observation_spec
    states = recurrent.initial_state(model, 1)
    leaves = spec if isinstance(spec, dict) else {"": spec}
    more = more or {}
    names = [names_by_path[path] for path in leaves]
    state_names = [f"state_{i}" for i in range(len(states))]
    state_specs = [tf.TensorSpec((None, *s.shape[1:]), s.dtype) for s in states]
    arguments = [*names, *state_names, *more]
    specs = [*leaves.values(), *state_specs, *more.values()]

    def call(**tensors: Tensor) -> dict[str, Nest]:
        seen = [tensors[name] for name in names]
        observations = dict(zip(leaves, seen, strict=True)) if isinstance(spec, dict) else seen[0]
        state = [tensors[name] for name in state_names]
        result, state = function(observations, state, **{name: tensors[name] for name in more})
        return result | dict(zip(state_names, state, strict=True))

    return tf.function(call, autograph=False).get_concrete_function(
        **{
            name: tf.TensorSpec(s.shape, s.dtype, name=name)
            for name, s in zip(arguments, specs, strict=True)
        }
    )


def _initial_state(model: recurrent.Recurrent) -> Any:
    def initial_state(batch_size: Any) -> dict[str, Tensor]:
        return {f"state_{i}": s for i, s in enumerate(model.initial_state(batch_size))}

    return tf.function(initial_state, autograph=False).get_concrete_function(
        batch_size=tf.TensorSpec((), tf.int32, name="batch_size")
    )


def _check_finite(models: Sequence[keras.Model]) -> None:
    for variable in (variable for model in models for variable in model.variables):
        value = tf.convert_to_tensor(variable.value)
        if value.dtype.is_floating and not tf.reduce_all(tf.math.is_finite(value)):
            raise NonFiniteError(
                "A policy with numbers that are not finite is never exported. "
                f"Received: variable={variable.path}"
            )


def _observed(models: Sequence[keras.Model], spec: Any) -> list[str]:
    """The paths of all leaves that some model takes; [""] for a plain observation."""
    specs = [_observation_spec(model) if spec is None else spec for model in models]
    paths = [path for each in specs for path in (each if isinstance(each, dict) else [""])]
    return list(dict.fromkeys(paths))


def _observation_spec(model: keras.Model) -> Any:
    """The model's inputs with a free batch size: a spec or {path: spec}."""
    spec = recurrent.observation_spec(model)
    if spec is None:
        raise ValueError(
            f"A subclassed model needs the argument observation_spec. Received: model={model}"
        )
    return spec
