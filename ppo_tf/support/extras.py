"""The extras of ppo_tf: what they bring, and whether it is installed. Does without TensorFlow."""

from __future__ import annotations

from importlib import metadata

import gymnasium
from packaging.requirements import Requirement

# Packages of an environment's entry point, and the extra that brings what they need.
_OF_PACKAGE = {"mujoco": "mujoco", "box2d": "box2d", "ale_py": "atari"}


def needs(what: str, extra: str) -> str:
    """The message of an ImportError: what needs an extra that is not installed, and the remedy."""
    return f"{what} needs the extra {extra!r}: pip install 'ppo_tf[{extra}]'"


def extra_of_entry_point(entry_point: object) -> str | None:
    """The extra that an environment needs, by its spec's entry point; None: no extra."""
    parts = str(entry_point).replace(":", ".").split(".")
    return next((_OF_PACKAGE[part] for part in parts if part in _OF_PACKAGE), None)


def extra_of(env_id: str) -> str | None:
    """The extra that an environment, or a pattern of their ids, needs; None: no extra.

    Raises:
        LookupError: Gymnasium does not know the environment.
    """
    if is_atari_id(env_id):  # registered by its package alone
        return "atari"
    return extra_of_entry_point(gymnasium.registry[env_id].entry_point)


def is_atari_id(env_id: str) -> bool:
    """Whether it is an id of ale_py's, which registers its games when it is imported."""
    return env_id.startswith("ALE/") or "NoFrameskip-v" in env_id


def names() -> list[str]:
    """Names of all extras.

    Raises:
        importlib.metadata.PackageNotFoundError: ppo_tf is no installed package.
    """
    return metadata.metadata("ppo_tf").get_all("Provides-Extra") or []


def missing(extra: str, package: str = "ppo_tf") -> list[str]:
    """What pip would install for an extra: packages that are not there, or in another version.

    Args:
        extra: of the package.
        package: that is installed.

    Returns:
        Requirements in words, such as "envpool>=1.2"; empty where the extra is installed.

    Raises:
        importlib.metadata.PackageNotFoundError: the package is not installed.
    """
    found = []
    for text in metadata.requires(package) or []:
        requirement = Requirement(text)
        marker = requirement.marker
        if (
            marker is None
            or marker.evaluate({"extra": ""})
            or not marker.evaluate({"extra": extra})
        ):
            continue  # needed without the extra, or of another one
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            found.append(f"{requirement.name}{requirement.specifier}")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            found.append(f"{requirement.name}{requirement.specifier}, not {version}")
        for inner in sorted(requirement.extras):
            found += missing(inner, requirement.name)
    return list(dict.fromkeys(found))
