"""Rows for the tests of the embedding store."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from manifests.embeddings.keys import KEY_TYPE, Origin, key_of, part_schema, vector_array

ORIGIN = Origin(checkpoint="0" * 32, dtype="float16", width=24)


def question(number: int) -> dict[str, object]:
    """What the prior was asked for one image."""
    return {
        "prompt": f"prompt {number}",
        "negative_prompt": None,
        "condition_hashes": None,
        "seed": number,
        "image_index": 0,
        "prior_steps": 25,
        "prior_guidance_scale": 4.0,
    }


def keys(numbers: Sequence[int], origin: Origin = ORIGIN) -> list[bytes]:
    return [key_of(origin, question(number)) for number in numbers]


def embeds(number: int, origin: Origin = ORIGIN) -> np.ndarray:
    """Both vectors, (2, width)."""
    return np.random.default_rng(number).standard_normal((2, origin.width)).astype(origin.dtype)


def rows(numbers: Sequence[int], origin: Origin = ORIGIN) -> pa.Table:
    """Rows of the store as the run hands them over: without checksums."""
    both = np.stack([embeds(number, origin) for number in numbers])
    asked = [question(number) for number in numbers]
    columns = {name: [one[name] for one in asked] for name in ("prompt", "negative_prompt", "seed", "image_index")}
    columns |= {name: [one[name] for one in asked] for name in ("prior_steps", "prior_guidance_scale")}
    count = len(numbers)
    arrays = {
        "key": pa.array(keys(numbers, origin), KEY_TYPE),
        "checksum": pa.nulls(count, KEY_TYPE),
        "checkpoint": [origin.checkpoint] * count,
        "conditions": pa.nulls(count, pa.string()),
        "prompt_truncated": [number % 2 == 1 for number in numbers],
        "image_embeds": vector_array(both[:, 0]),
        "negative_image_embeds": vector_array(both[:, 1]),
        **columns,
    }
    schema = part_schema(origin.vector_type)
    return pa.table({name: arrays[name] for name in schema.names}, schema=schema)
