"""The self-contained artefact: a SavedModel that acts with plain TensorFlow, without ppo_tf or
TFP."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from ppo_tf.policy import Policy

METADATA = Path("assets.extra") / "policy.json"  # the folder SavedModel keeps for users' files


def check_new_folder(path: str | os.PathLike, argument: str = "path") -> Path:
    """Returns path, of a folder that does not exist yet but can be made.

    Args:
        path: of the folder.
        argument: what errors call it.

    Raises:
        FileExistsError: something is there, and nothing is ever overwritten.
        NotADirectoryError, PermissionError: nothing can be made there.
    """
    path = Path(path)
    if path.exists():
        raise FileExistsError(
            f"{argument} exists and is not overwritten. Received: {argument}={path}"
        )
    parent = path.absolute().parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise NotADirectoryError(f"{parent} is not a folder. Received: {argument}={path}")
    if not os.access(parent, os.W_OK):
        raise PermissionError(f"{parent} cannot be written. Received: {argument}={path}")
    return path


def export_policy(
    policy: Policy,
    path: str | os.PathLike,
    *,
    critic: keras.Model | None = None,
    observation_spec: tf.TensorSpec | None = None,
    metadata: dict[str, Any] | None = None,
) -> Path:
    """Writes a SavedModel with everything inside: normalisation, squashing, rescaling, clipping.

    Signatures, all over a batch of observations as the environment gives them:
        serving_default(observation) -> {"action"}: the deterministic action, ready for `env.step`.
        sample(observation, seed int32 [2]) -> {"action"}: drawn from the policy; the same seed
        draws
            the same actions.
        value(observation) -> {"value" float [B]}: the critic's, where one is given.

    The folder appears complete or not at all.

    Args:
        policy: to export.
        path: of the new folder.
        critic: exported as `value`.
        observation_spec: of a batch of observations [None, ...]; needed only where the actor is a
            subclassed Keras model, which does not tell.
        metadata: JSON values kept in assets.extra/policy.json, for instance the environment's id.

    Raises:
        FileExistsError, NotADirectoryError, PermissionError: see `check_new_folder`.
        ValueError: no observation_spec where it is needed.
    """
    path = check_new_folder(path)
    spec = observation_spec or _observation_spec(policy.actor)

    @tf.function(input_signature=[spec], autograph=False)
    def serve(observation):
        return {"action": policy(observation, training=False)}

    @tf.function(
        input_signature=[spec, tf.TensorSpec((2,), tf.int32, name="seed")], autograph=False
    )
    def sample(observation, seed):
        return {"action": policy.action_map(policy.sample(observation, seed))}

    module = tf.Module()
    # tf.Module does not see Keras 3 variables: what is not tracked would not be saved.
    models = [policy] if critic is None else [policy, critic]
    module.tracked = [v.value for model in models for v in model.variables]
    module.serve, module.sample = serve, sample
    signatures = {
        "serving_default": serve.get_concrete_function(),
        "sample": sample.get_concrete_function(),
    }
    if critic is not None:
        value_function: keras.Model = critic

        @tf.function(input_signature=[spec], autograph=False)
        def value(observation):
            return {"value": value_function(observation, training=False)}

        module.value = value
        signatures["value"] = value.get_concrete_function()

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        os.chmod(temporary, 0o755)  # mkdtemp's folders are private
        tf.saved_model.save(module, str(temporary), signatures=signatures)
        (temporary / METADATA).parent.mkdir(exist_ok=True)
        (temporary / METADATA).write_text(json.dumps(metadata or {}, indent=2) + "\n")
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return path


def _observation_spec(actor: keras.Model) -> tf.TensorSpec:
    if not getattr(actor, "inputs", None):
        raise ValueError(
            f"A subclassed actor needs the argument observation_spec. Received: actor={actor}"
        )
    inputs = actor.inputs[0]
    return tf.TensorSpec((None, *inputs.shape[1:]), inputs.dtype, name="observation")
