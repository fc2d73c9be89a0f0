"""Small batches for the tests of the CPU stages, as the plan would hand them over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from manifests.batch import Batch, Bucket
from manifests.records import RECORD_FIELDS, SOURCE_FIELDS


def make_batch(
    task: str,
    rows: Sequence[dict[str, Any]],
    size: tuple[int, int] = (64, 64),
    place: tuple[int, int] = (0, 0),
    extra_fields: Sequence[pa.Field] = (),
) -> Batch:
    """A batch of one bucket.

    Args:
        rows: what differs from a plain successful sample, by column.
        size: (width, height).
        place: (shard, batch).
        extra_fields: the manifest's other columns.
    """
    width, height = size
    shard, index = place
    strength = 0.5 if task == "img2img" else None
    plain = {
        "image_index": 0,
        "task": task,
        "status": "success",
        "manifest_row": 0,
        "seed": 7,
        "caption": "a cat",
        "prompt": "a cat",
        "height": height,
        "width": width,
        "steps": 10,
        "guidance_scale": 4.0,
        "prior_steps": 5,
        "prior_guidance_scale": 1.0,
        "strength": strength,
        "prompt_truncated": False,
        "checkpoint": "random",
    }
    if task == "inpaint":
        plain["mask_polarity"] = "white"
    full = []
    for i, row in enumerate(rows):
        number = index * 100 + i
        full.append({**plain, "key": f"{shard:05d}{number:06d}", "id": f"r{number}", **row})
    schema = pa.schema([*RECORD_FIELDS, *SOURCE_FIELDS, *extra_fields])
    bucket = Bucket(
        task=task,
        height=height,
        width=width,
        steps=10,
        guidance_scale=4.0,
        prior_steps=5,
        prior_guidance_scale=1.0,
        strength=strength,
        has_negative=any(row.get("negative_prompt") is not None for row in rows),
    )
    return Batch(shard, index, bucket, pa.Table.from_pylist(full, schema))
