"""The fingerprint of a plan: one hash over everything that decides the images, their names and their places.

It covers the content of the request columns, where windows are cut, the other columns' names and types, and
the settings of the job that reach an image or a name. It does not cover where the manifest lies, how its
files are compressed, or in which types a request column is stored. Inline images are covered by the size of
their columns (and by the id, where that comes from the content), because the driver does not read them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from manifests.config import RunConfig
from manifests.requests.files import Manifest
from manifests.requests.schema import REQUEST_NAMES, SETTINGS

#: Raise it when planning changes, so that an output begun by the former rules is not continued by new ones.
PLAN_VERSION = 2

_JOB_FIELDS = ("seed", "batch_size", "shard_size", "checkpoint", "image_format", "quality", "dump_latents", *SETTINGS)


class Fingerprint:
    """Grows with each window; the order of windows counts."""

    def __init__(self, config: RunConfig, manifest: Manifest) -> None:
        job = {name: getattr(config, name) for name in _JOB_FIELDS}
        if config.dedupe:
            # Left out where it is not used: outputs that were begun before there was such a setting go on.
            job["dedupe"] = True
        if config.batch_pixels is not None:
            job["batch_pixels"] = config.batch_pixels
        if config.graph == "on":
            # What `auto` comes to is known on the devices only, as with `--attention` (infra/adr/0018-self-checks.md).
            job["graph"] = True
        if config.mark:
            job["mark"] = True
        extras = [[field.name, str(field.type)] for field in manifest.extras]
        head = {"version": PLAN_VERSION, "job": job, "extras": extras}
        self._hash = hashlib.sha256(json.dumps(head, sort_keys=True).encode())
        self._files = manifest.files
        self._rows = 0
        self._no_text: set[str] = set()

    def add(self, digest: bytes, rows: int, no_text: Iterable[str] = ()) -> None:
        """Take in the next window: its `window_digest`, its rows, and the columns of text that are none in it."""
        self._hash.update(digest)
        self._no_text.update(no_text)
        self._rows += rows

    def hexdigest(self) -> str:
        """The hash of all that was added, 64 hex digits; what follows may still be added."""
        inline, begin = 0, 0
        for file in self._files:
            # A file that goes on behind the last window counts whole: rows with inline images that are appended to
            # it cannot be told from others that were changed.
            inline += file.inline_bytes if begin < self._rows else 0
            begin += file.rows
        whole = self._hash.copy()
        whole.update(f"inline_bytes={inline}".encode())
        if self._no_text:
            whole.update(f"binary={sorted(self._no_text)}".encode())
        return whole.hexdigest()


def window_digest(columns: Mapping[str, pa.Array], contents: npt.NDArray[np.uint64]) -> bytes:
    """The hash of one window: its request columns, and the content hashes of its rows without id."""
    # BLAKE2b is the faster one here, and 250,000 rows per second pass through it.
    window = hashlib.blake2b(digest_size=32)
    window.update(np.ascontiguousarray(contents).tobytes())
    for name in REQUEST_NAMES:
        array = columns[name]
        window.update(f"{name}/{len(array)}/".encode())
        if array.null_count < len(array):
            _feed(window, array)
    return window.digest()


def _feed(hasher: Any, array: pa.Array) -> None:
    """Hash an array by its values alone; what lies in memory under its nulls does not count."""
    kind = array.type
    hasher.update(np.packbits(array.is_valid().to_numpy(zero_copy_only=False)).tobytes())
    if pa.types.is_struct(kind):
        for field in kind:
            _feed(hasher, pc.struct_field(array, field.name))
    elif pa.types.is_list(kind):
        hasher.update(pc.list_value_length(array).fill_null(0).to_numpy().tobytes())
        _feed(hasher, array.flatten())
    elif pa.types.is_string(kind) or pa.types.is_binary(kind):
        filled = array.fill_null("" if pa.types.is_string(kind) else b"")
        hasher.update(pc.binary_length(filled).to_numpy().tobytes())
        _, offsets, data = filled.buffers()
        if data is not None and len(filled):
            bounds = np.frombuffer(offsets, np.int32)
            begin, end = int(bounds[filled.offset]), int(bounds[filled.offset + len(filled)])
            hasher.update(memoryview(data)[begin:end])
    else:
        hasher.update(array.fill_null(0).to_numpy().tobytes())
