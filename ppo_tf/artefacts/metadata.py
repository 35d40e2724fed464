"""What a saved policy says of itself, known without TensorFlow."""

from __future__ import annotations

from pathlib import Path

METADATA = Path("assets.extra") / "policy.json"  # the folder SavedModel reserves for users' files
MARKER = str(METADATA)  # the file that identifies a policy of ours; any SavedModel has its own
MODEL = "saved_model.pb"
NAMES = "names"  # the key of policy.json that holds the names of the signatures by path
MOST_BYTES = 2**24  # of policy.json, which has some kB and what the user adds
