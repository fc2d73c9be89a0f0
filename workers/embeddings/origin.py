"""What a checkpoint's prior is, as one hash: the same wherever the folder lies, another where other numbers come out.

Settings and tokenizer files count whole. Of weights, which are gigabytes, the names, shapes and sizes count and both
ends of every tensor: whoever trains or merges a model changes values all over it, so that no tensor keeps both ends.
A few megabytes are read, in a second or so. Of a checkpoint at a URL or on the Hub what that place says of its files
counts instead, so it is another one than a folder with the same content.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from manifests.embeddings.keys import Origin
from workers.checkpoints import random_weights
from workers.checkpoints.locations import COMPONENTS, PRIOR, RANDOM, own_revision, prior_content, prior_setting
from workers.checkpoints.repository_files import Listed
from workers.device import device
from workers.device.device import DeviceKind

#: Files up to this size count whole.
_WHOLE_BYTES = 4 << 20

#: Read at each end of a tensor.
_END_BYTES = 4096

#: Of weights in other formats so many pieces are read, evenly spread.
_PIECES = 256

#: What PriorTransformer's configuration means where it does not say.
_DEFAULT_WIDTH = 768


@lru_cache(maxsize=8)
def prior_origin(checkpoint: str, kind: DeviceKind) -> Origin:
    """What the prior of a checkpoint makes on such a device.

    Args:
        checkpoint: `demo`, `random`, or a folder, URL or prefix of the Hub that `checkpoints.check` has approved.
        kind: decides the dtype.
    """
    dtype = device.number_type(kind)
    if checkpoint == RANDOM:
        name = own_revision(checkpoint)
        return Origin(hashlib.sha256(name.encode()).hexdigest()[:32], dtype, random_weights.EMBEDDING)
    content = prior_content(checkpoint)
    fingerprint = _fingerprint(content, PRIOR) if isinstance(content, Path) else _listed_fingerprint(content)
    return Origin(fingerprint, dtype, int(prior_setting(checkpoint, "prior", "embedding_dim") or _DEFAULT_WIDTH))


def fingerprints(folder: Path, repositories: Sequence[str]) -> dict[str, str]:
    """Repository -> what it is, as one hash; the same for the same files, wherever the checkpoint came from.

    Args:
        folder: on this machine, that holds the repositories.
    """
    return {name: _fingerprint(folder / name, name) for name in repositories}


def image_encoder_fingerprint(folder: Path) -> str:
    """What the CLIP image encoder of a checkpoint on this machine is, with what prepares its images, as one hash."""
    return _of_components(folder / PRIOR, [], ("image_encoder", "image_processor"))


def _listed_fingerprint(files: Mapping[str, Listed]) -> str:
    """Of files that are not here: their SHA-256 where their place says it, else what it calls their version."""
    state = sorted((name, file.size, file.sha256 or file.version) for name, file in files.items())
    return hashlib.sha256(json.dumps(state).encode()).hexdigest()[:32]


def _fingerprint(folder: Path, repository: str) -> str:
    return _of_components(folder, [folder / "model_index.json"], (*COMPONENTS[repository], "image_processor"))


def _of_components(folder: Path, files: Sequence[Path], components: Sequence[str]) -> str:
    digest = hashlib.sha256()
    files = list(files)
    for component in components:
        files += sorted(path for path in (folder / component).rglob("*") if path.is_file())
    for path in files:
        if path.name.startswith(".") or not path.exists():
            continue
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder).as_posix()}/{size}/".encode())
        for piece in _pieces(path, size):
            digest.update(piece)
    return digest.hexdigest()[:32]


def _pieces(path: Path, size: int) -> Iterator[bytes]:
    """What counts of a file."""
    with path.open("rb") as file:
        if size <= _WHOLE_BYTES:
            yield file.read()
            return
        ends = _tensor_ends(file, size) if path.suffix == ".safetensors" else None
        for start, length in ends or [(size * i // _PIECES, _END_BYTES) for i in range(_PIECES)]:
            file.seek(start)
            yield file.read(length)


def _tensor_ends(file: Any, size: int) -> list[tuple[int, int]] | None:
    """(start, length) of a safetensors file's header and of both ends of each tensor; None where it is none."""
    length = int.from_bytes(file.read(8), "little")
    if length > size:
        return None
    try:
        tensors = json.loads(file.read(length))
        spans = sorted(tuple(one["data_offsets"]) for name, one in tensors.items() if name != "__metadata__")
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    ends = [(0, 8 + length)]
    for begin, end in spans:
        first, last = 8 + length + begin, 8 + length + end
        ends += [(first, min(_END_BYTES, last - first)), (max(first, last - _END_BYTES), _END_BYTES)]
    file.seek(0, os.SEEK_SET)
    return ends
