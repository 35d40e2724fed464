"""Arrays and JSON values as bytes, and back, whatever the bytes are.

Nothing is unpickled, decompressed or allocated on a file's word: its arrays are views of its bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import zipfile
from typing import Any

import numpy as np

FORMAT = 4  # format 3 had no boundaries, 2 was not bound to a run, 1 had variables by order
_VALUES = "values.json"  # the array of the .npz with the JSON text, as bytes

State = tuple[dict[str, np.ndarray], dict[str, Any]]  # variables by name, JSON values


class DamagedCheckpoint(ValueError):
    """A checkpoint file differs from what was written."""


def pack(variables: dict[str, np.ndarray], values: dict[str, Any]) -> bytes:
    """Returns the contents of a checkpoint file."""
    text = np.frombuffer(json.dumps(values).encode(), np.uint8)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:  # as numpy.savez, whose names would be arguments
        for name, array in {**variables, _VALUES: text}.items():
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
    payload = buffer.getvalue()
    digest = hashlib.sha256(payload).hexdigest()
    return f"ppo_tf checkpoint {FORMAT} sha256={digest}\n".encode() + payload


def unpack(content: bytes) -> State:
    """The inverse of `pack`.

    Raises:
        DamagedCheckpoint: the bytes are not from `pack`, or of another format.
    """
    header, newline, payload = content.partition(b"\n")
    words = header.split(b" ")
    if words[:2] != [b"ppo_tf", b"checkpoint"] or len(words) != 4 or not newline:
        raise DamagedCheckpoint("its first line is not a checkpoint's")
    if words[3] != b"sha256=" + hashlib.sha256(payload).hexdigest().encode():
        raise DamagedCheckpoint("its SHA-256 differs")
    if words[2] != str(FORMAT).encode():
        raise DamagedCheckpoint(f"its format is {words[2]!a}, this ppo_tf reads {FORMAT}")
    try:
        arrays = _arrays(payload)
        values = json.loads(arrays.pop(_VALUES).tobytes())
    except DamagedCheckpoint:
        raise
    except Exception as error:  # zipfile, NumPy and JSON have many
        raise DamagedCheckpoint(f"its contents: {type(error).__name__}: {error}") from error
    return arrays, values


def _arrays(payload: bytes) -> dict[str, np.ndarray]:
    """Returns the arrays of an .npz by name."""
    arrays = {}
    with zipfile.ZipFile(io.BytesIO(payload)) as archive:
        for info in archive.infolist():
            name = info.filename.removesuffix(".npy")
            if info.compress_type != zipfile.ZIP_STORED or info.file_size > len(payload):
                raise DamagedCheckpoint(f"its {name!a} is compressed")
            if name in arrays:
                raise DamagedCheckpoint(f"its {name!a} is there twice")
            arrays[name] = _array(archive.read(info), name)
    return arrays


def _array(content: bytes, name: str) -> np.ndarray:
    """Returns the array of an .npy file."""
    file = io.BytesIO(content)
    if np.lib.format.read_magic(file) != (1, 0):
        raise DamagedCheckpoint(f"its {name!a} has another format")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    rest = memoryview(content)[file.tell() :]
    if dtype.kind not in "biuf" or math.prod(shape) * dtype.itemsize != len(rest):
        raise DamagedCheckpoint(f"its {name!a} is not the array that it says")
    array: np.ndarray = np.ndarray(shape, dtype, rest, order="F" if fortran else "C")
    return array
