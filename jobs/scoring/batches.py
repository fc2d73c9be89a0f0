"""The batches of a sealed shard as they left the decoder: pixels out of the tar, the rest from manifest and store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from manifests.batch import Batch
from manifests.config import RunConfig
from manifests.errors import SUCCESS
from workers.embeddings.lookup import Memory, recall
from workers.stages.inputs import load_inputs
from workers.stages.pixels import decode, to_rgb
from workers.stages.reseal import sealed_rows


def made_batches(
    shard: int, planned: Iterable[Batch], memory: Memory, condition_size: int, config: RunConfig
) -> Iterator[Batch]:
    """The shard's batches with `pixels`, `image_pixels`, `condition_inputs`, and `image_embeds` where these are known.

    Only samples that have an image are pending. An input that cannot be read any more is null.

    Args:
        planned: the shard's, from the manifest, in order.

    Raises:
        StorageError: the shard or the store cannot be read.
    """
    stored = _samples(shard, config)
    for batch in recall(planned, memory, "pass"):
        rows = [next(stored) for _ in range(batch.samples.num_rows)]
        loaded = load_inputs(batch, condition_size, config.input_timeout)
        # As the run ended, whatever its inputs are now.
        loaded = loaded.add("status", pa.string(), dict(enumerate(row["status"] for row in rows)))
        pixels = {i: to_rgb(decode(row["encoded"])).tobytes() for i, row in enumerate(rows) if row["encoded"]}
        yield loaded.add("pixels", pa.large_binary(), pixels)


def _samples(shard: int, config: RunConfig) -> Iterator[dict[str, Any]]:
    for rows in sealed_rows(shard, config.output, config, clip=False):
        for row in rows.select(["key", "status", "encoded"]).to_pylist():
            yield row if row["status"] == SUCCESS else {**row, "encoded": None}
