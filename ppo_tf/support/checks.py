"""Checks of arguments that many components share."""

from __future__ import annotations


def check_at_least_one(**values: float) -> None:
    """Raises ValueError that names the first argument below 1."""
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1. Received: {name}={value}")
