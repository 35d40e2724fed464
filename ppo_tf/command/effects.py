"""Which settings have no effect with the others, or in an environment.

When a setting has one is part of its declaration; see `declarations.Declaration`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium

from ppo_tf import spaces
from ppo_tf.command.declarations import Declaration, as_text
from ppo_tf.command.presets import Setting
from ppo_tf.command.settings import SETTINGS
from ppo_tf.networks.features import is_image
from ppo_tf.networks.models import observation_space

Box = gymnasium.spaces.Box


def without_effect(
    settings: Mapping[str, Setting], envs: gymnasium.vector.VectorEnv, env_id: str
) -> list[str]:
    """Returns a line for each flag that the user gave and that has no effect.

    Values from presets, defaults and files are not mentioned: nobody asked for them here.

    Args:
        settings: every setting by name.
        envs: the environments.
        env_id: their id.
    """
    values = {name: setting.value for name, setting in settings.items()}
    lines = []
    for name, setting in settings.items():
        if setting.source == "flag" and (reason := _reason(SETTINGS[name], values, envs, env_id)):
            lines.append(f"--{name}={as_text(setting.value)} has no effect {reason}")
    return lines


def _reason(
    setting: Declaration,
    values: Mapping[str, Any],
    envs: gymnasium.vector.VectorEnv,
    env_id: str,
) -> str:
    """Why a setting has no effect; "" if it has one."""
    if setting.only_for and not TRAITS[setting.only_for](envs, values):
        return f"in {env_id}; it needs {setting.only_for}"
    chosen = setting.only_with
    if chosen and not any(values[name] in needed for name, needed in chosen.items()):
        received = " and ".join(f"{name}={as_text(values[name])}" for name in chosen)
        return f"with {received}; it needs {setting.needed}"
    for name, value in setting.unless.items():
        if values[name] == value:
            return f"with {name}={as_text(value)}"
    return ""


def _leaves(space: gymnasium.Space[Any]) -> list[gymnasium.Space[Any]]:
    found = spaces.leaves(space)
    return list(found.values()) if isinstance(found, dict) else [found]


def _has_box_actions(envs: gymnasium.vector.VectorEnv, values: Mapping[str, Any]) -> bool:
    return any(isinstance(leaf, Box) for leaf in _leaves(envs.single_action_space))


def _has_images(envs: gymnasium.vector.VectorEnv, values: Mapping[str, Any]) -> bool:
    return any(is_image(leaf) for leaf in _leaves(observation_space(envs)))


def _has_vectors(envs: gymnasium.vector.VectorEnv, values: Mapping[str, Any]) -> bool:
    found = _leaves(observation_space(envs))
    return any(isinstance(leaf, Box) and not is_image(leaf) for leaf in found)


def _may_be_longer(envs: gymnasium.vector.VectorEnv, values: Mapping[str, Any]) -> bool:
    limit = getattr(envs.spec, "max_episode_steps", None)
    return limit is None or limit > values["eval_max_steps"]


# What an environment may have to have: {words of `Declaration.only_for`: whether it has it}.
TRAITS: dict[str, Callable[[gymnasium.vector.VectorEnv, Mapping[str, Any]], bool]] = {
    "Box actions": _has_box_actions,
    "images": _has_images,
    "Box observations that are no images": _has_vectors,
    "episodes that may be longer": _may_be_longer,
}
