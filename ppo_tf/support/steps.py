"""Counting environment steps."""

from __future__ import annotations


def passes_multiple(every: int, previous: int, steps: int) -> bool:
    """Whether a multiple of `every` lies in (previous, steps], all three in environment steps."""
    return steps // every > previous // every
