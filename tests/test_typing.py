"""Components and collectors of a user's own, checked by mypy against the public types."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy")

ROOT = Path(__file__).parents[1]


def test_mypy_accepts_right_uses_and_refuses_wrong_ones():
    """In the file, a wrong use that mypy accepts is an unused `type: ignore`: an error."""
    command = [sys.executable, "-m", "mypy", "tests/typing/components.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.startswith("Success"), done.stdout + done.stderr
