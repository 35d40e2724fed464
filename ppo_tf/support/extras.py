"""The extras of ppo_tf: what needs them, and whether they are installed. Needs no TensorFlow."""

from __future__ import annotations

from importlib import metadata

import gymnasium
from packaging.requirements import Requirement

# Packages in an environment's entry point, and the extra that installs what they need.
_EXTRA_OF_PACKAGE = {"mujoco": "mujoco", "box2d": "box2d", "ale_py": "atari"}


def needs(what: str, extra: str) -> str:
    """Returns an ImportError's message: what needs the extra, and how to install it."""
    return f"{what} needs the extra {extra!r}: pip install 'ppo_tf[{extra}]'"


def extra_of_entry_point(entry_point: object) -> str | None:
    """Returns the extra that an environment with this entry point needs, or None."""
    parts = str(entry_point).replace(":", ".").split(".")
    return next((_EXTRA_OF_PACKAGE[part] for part in parts if part in _EXTRA_OF_PACKAGE), None)


def extra_of(env_id: str) -> str | None:
    """Returns the extra that an environment id, or a pattern of ids, needs, or None.

    Raises:
        LookupError: Gymnasium does not know the environment.
    """
    if is_atari_id(env_id):  # registered only by ale_py itself
        return "atari"
    return extra_of_entry_point(gymnasium.registry[env_id].entry_point)


def is_atari_id(env_id: str) -> bool:
    """Whether the id is one of ale_py's, which registers its games when imported."""
    return env_id.startswith("ALE/") or "NoFrameskip-v" in env_id


def names() -> list[str]:
    """Returns the names of all extras.

    Raises:
        importlib.metadata.PackageNotFoundError: ppo_tf is not an installed package.
    """
    return metadata.metadata("ppo_tf").get_all("Provides-Extra") or []


def missing(extra: str, package: str = "ppo_tf") -> list[str]:
    """Lists what pip would install for an extra: packages missing or of an unsuitable version.

    Args:
        extra: name of the extra.
        package: name of the installed package that declares it.

    Returns:
        The requirements, for instance "envpool>=1.2"; empty if the extra is installed.

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
            continue  # needed without this extra, or by another one
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
