"""What the embedding store keeps of one image: its columns, the key it is found under, and the checksum it is held to.

The key is the 128-bit BLAKE2b of everything the prior's answer depends on, so the same question finds the same answer
in any run, manifest or task: the checkpoint's fingerprint, the dtype, prompt and negative prompt, for interpolations
the conditions with the SHA-256 of their image files, seed, image index, prior steps and prior guidance. The checksum
is the 128-bit BLAKE2b of key, dtype and both vectors: a row is used only if key and checksum are its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from manifests.records import GIVEN_EMBEDDINGS

Array = npt.NDArray[Any]

#: Raise it when the prior's answer to the same question changes, so that earlier answers are not found any more.
KEY_VERSION = 1

KEY_TYPE = pa.binary(16)

#: The vectors, in the order that the checksum takes them.
VECTORS = GIVEN_EMBEDDINGS

#: What a key is made of, beside the origin. `condition_hashes` is None except for interpolations.
QUESTION = (
    "prompt",
    "negative_prompt",
    "condition_hashes",
    "seed",
    "image_index",
    "prior_steps",
    "prior_guidance_scale",
)


def _field(name: str, kind: pa.DataType, description: str) -> pa.Field:
    return pa.field(name, kind, metadata={"description": description})


@dataclass(frozen=True)
class Origin:
    """What makes embeddings: part of every key.

    Attributes:
        checkpoint: fingerprint of the prior's repository, hex (workers/embeddings/origin.py).
        dtype: 'float16' or 'float32'.
        width: elements of one vector.
    """

    checkpoint: str
    dtype: str
    width: int

    @property
    def vector_type(self) -> pa.DataType:
        """Arrow type of one vector."""
        return pa.list_(pa.from_numpy_dtype(np.dtype(self.dtype)), self.width)


def part_schema(vector_type: pa.DataType) -> pa.Schema:
    """The columns of a part of the store."""
    return pa.schema(
        [
            _field("key", KEY_TYPE, "hash of everything below that the prior's answer depends on"),
            _field("checksum", KEY_TYPE, "BLAKE2b-128 of key, dtype, image_embeds and negative_image_embeds"),
            _field("checkpoint", pa.string(), "fingerprint of the prior's repository; 'import' where it is not known"),
            _field("prompt", pa.string(), "as given to the prior; an interpolation has its condition texts"),
            _field("negative_prompt", pa.string(), "null: the zero-image embedding"),
            _field("conditions", pa.string(), "interpolations: JSON list of [text, SHA-256 of the image, weight]"),
            _field("seed", pa.uint64(), "seed of the request"),
            _field("image_index", pa.int32(), "which of the request's images"),
            _field("prior_steps", pa.int32(), "steps of the prior"),
            _field("prior_guidance_scale", pa.float64(), "guidance of the prior"),
            _field("prompt_truncated", pa.bool_(), "CLIP's tokenizer cut the prompt at 77 tokens"),
            _field("image_embeds", vector_type, "CLIP image embedding, as the decoder takes it"),
            _field("negative_image_embeds", vector_type, "the one it is guided away from"),
        ]
    )


def key_of(origin: Origin, question: Mapping[str, Any]) -> bytes:
    """The key of one image, 16 bytes.

    Args:
        question: the columns `QUESTION`; `condition_hashes` is a list of [text, sha256 or None, weight], or None.
    """
    words = [KEY_VERSION, origin.checkpoint, origin.dtype, origin.width, *(question[name] for name in QUESTION)]
    return hashlib.blake2b(json.dumps(words, ensure_ascii=False).encode(), digest_size=16).digest()


def image_hash(data: bytes) -> str:
    """How an image of a condition enters a key."""
    return hashlib.sha256(data).hexdigest()


def checksum(key: bytes, positive: Array, negative: Array) -> bytes:
    """What the columns `key` and `VECTORS` of one row are held to."""
    digest = hashlib.blake2b(key, digest_size=16)
    digest.update(positive.dtype.name.encode())
    digest.update(np.ascontiguousarray(positive).data)
    digest.update(np.ascontiguousarray(negative).data)
    return digest.digest()


def vectors(column: pa.Array | pa.ChunkedArray) -> Array:
    """A vector column without nulls as (rows, width)."""
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    flat: Array = column.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(-1, column.type.list_size)


def vector_array(values: Array, missing: npt.NDArray[np.bool_] | None = None) -> pa.Array:
    """(rows, width) as a vector column, null where `missing`."""
    mask = None if missing is None else pa.array(missing)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1], mask=mask)


def with_checksums(rows: pa.Table) -> pa.Table:
    """Rows of the store with their checksums filled in."""
    keys = rows.column("key").to_pylist()
    pairs = zip(keys, *(vectors(rows.column(name)) for name in VECTORS), strict=True)
    sums = pa.array([checksum(*row) for row in pairs], KEY_TYPE)
    place = rows.schema.get_field_index("checksum")
    return rows.set_column(place, rows.schema.field(place), sums)


def right_rows(rows: pa.Table, keys: Sequence[bytes] | None = None) -> npt.NDArray[np.bool_]:
    """Which rows are what their checksums say, finite, and have these keys (their own where None)."""
    stored, sums = rows.column("key").to_pylist(), rows.column("checksum").to_pylist()
    wanted = stored if keys is None else keys
    right = np.zeros(rows.num_rows, bool)
    if any(rows.column(name).null_count for name in VECTORS):
        return right
    positive, negative = (vectors(rows.column(name)) for name in VECTORS)
    for row, (key, asked, summed) in enumerate(zip(stored, wanted, sums, strict=True)):
        right[row] = key == asked and key is not None and checksum(key, positive[row], negative[row]) == summed
    return right & np.isfinite(positive).all(axis=1) & np.isfinite(negative).all(axis=1)
