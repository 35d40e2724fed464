"""JSON files: read with a check, written completely or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ppo_tf.support.files import read_regular, write_text
from ppo_tf.support.schema import check

MOST_BYTES = 2**24  # of a file: a config.json has some kB, and a line for each boundary


def read_json(path: str | os.PathLike[str], schema: Any, *, follow: bool = False) -> Any:
    """Reads a JSON file that fits a schema; see `schema`.

    Raises:
        OSError: it can't be read, is larger than `MOST_BYTES`, or is no regular file; unless
            follow, also a symbolic link.
        ValueError: it is no JSON, or does not fit; the message does not name the folder.
    """
    try:
        value = json.loads(read_regular(path, MOST_BYTES, follow=follow))
    except RecursionError as error:
        raise ValueError("it is too deeply nested") from error
    check(value, schema, Path(path).name)
    return value


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file atomically.

    Raises:
        OSError: the file can't be written; the message names it.
    """
    write_text(path, f"{json.dumps(value, indent=2)}\n")
