"""Digests of a checkpoint's weights, to tell a difference of weights from a difference of computation."""

from __future__ import annotations

import hashlib
from pathlib import Path

from safetensors.numpy import load_file


def digests(checkpoint: Path) -> dict[str, str]:
    """SHA-256 over names and values of each weights file, by its path in the checkpoint.

    Position ids are left out: MindSpore's text encoder stores that constant, PyTorch's does not.
    """
    result = {}
    for file in sorted(checkpoint.rglob("*.safetensors")):
        digest = hashlib.sha256()
        for name, values in sorted(load_file(file).items()):
            if not name.endswith("position_ids"):
                digest.update(f"{name} {values.dtype} {values.shape} ".encode())
                digest.update(values.tobytes())
        result[str(file.relative_to(checkpoint))] = digest.hexdigest()
    return result
