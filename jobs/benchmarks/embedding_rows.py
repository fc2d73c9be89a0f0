"""Made-up embeddings for the benchmark: every part can be made again from its number alone."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from manifests.embeddings.keys import KEY_TYPE, Origin, part_schema, vector_array

CHECKPOINT = "0" * 32

#: Rows of a part.
PART_ROWS = 50_000


def part_keys(part: int, rows: int) -> list[bytes]:
    """The keys of a part, spread like hashes."""
    data = np.random.default_rng([part, 0]).bytes(16 * rows)
    return [data[start : start + 16] for start in range(0, len(data), 16)]


def part_rows(part: int, rows: int, origin: Origin) -> pa.Table:
    """A part, in the store's columns and without checksums."""
    rng = np.random.default_rng([part, 1])
    positive, negative = (rng.standard_normal((rows, origin.width), np.float32).astype(origin.dtype) for _ in "ab")
    schema = part_schema(origin.vector_type)
    columns = {
        "key": pa.array(part_keys(part, rows), KEY_TYPE),
        "checkpoint": pa.array(np.full(rows, origin.checkpoint, object), pa.string()),
        "prompt": pa.array([f"a prompt of a fair length, number {part * rows + row}" for row in range(rows)]),
        "seed": pa.array(np.arange(rows, dtype=np.uint64)),
        "prior_steps": pa.array(np.full(rows, 25, np.int32)),
        "prior_guidance_scale": pa.array(np.full(rows, 4.0)),
        "prompt_truncated": pa.array(np.zeros(rows, bool)),
        "image_embeds": vector_array(positive),
        "negative_image_embeds": vector_array(negative),
    }
    return pa.table([columns.get(f.name, pa.nulls(rows, f.type)) for f in schema], schema=schema)
