"""From finished batches into the embedding store: what the prior has embedded, once per shard.

    prior     computes the rows of a batch that have no embeddings yet
    decoder   only_new(): drops the vectors of the others
    staging   keeps what is new in the batch's part, beside the image
    seal      store_new(): the new rows of a shard's parts as one part of the store

What a killed run had computed and staged is stored by the run that goes on. Columns that travel for this, beside both
vectors:

    embedding_key          under which the row is stored; null where it is known already or has no key
    embedding_checkpoint   fingerprint of the prior's repository
    embedding_conditions   JSON of an interpolation's conditions, images as SHA-256
    embedding_truncated    whether CLIP cut the prompt; not null where the prior embedded the row in this run
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests.batch import Batch
from manifests.embeddings.keys import KEY_TYPE, VECTORS, part_schema
from manifests.embeddings.store import EmbeddingStore

#: Columns of a batch that lead to its part of the store.
NEW_COLUMNS = ("embedding_key", "embedding_checkpoint", "embedding_conditions", "embedding_truncated", *VECTORS)

#: New rows are stored in parts of at most so many bytes.
_PART_BYTES = 64 << 20


def only_new(batch: Batch) -> Batch:
    """The batch with vectors only where they are to be stored; without NEW_COLUMNS where there is nothing to store."""
    names = batch.samples.column_names
    if not set(NEW_COLUMNS) <= set(names):
        return batch.drop([name for name in NEW_COLUMNS if name != "embedding_truncated"])
    new = pc.and_(batch.samples.column("embedding_key").is_valid(), batch.samples.column(VECTORS[1]).is_valid())
    flags = new.to_numpy(zero_copy_only=False)
    if not flags.any():
        return batch.drop([name for name in NEW_COLUMNS if name != "embedding_truncated"])
    take = pa.array(np.arange(len(flags)), mask=~flags)
    samples = batch.samples
    for name in (*VECTORS, "embedding_key"):
        place = samples.schema.get_field_index(name)
        samples = samples.set_column(place, name, samples.column(name).take(take))
    return replace(batch, samples=samples)


def newly_embedded(samples: pa.Table) -> int:
    """Rows that the prior embedded in this run."""
    name = "embedding_truncated"
    return samples.num_rows - samples.column(name).null_count if name in samples.column_names else 0


def store_new(parts: Iterable[pa.Table], store_url: str | None) -> Iterator[pa.Table]:
    """Staged parts without NEW_COLUMNS; what was new in them is in the store when the last one has been taken.

    Args:
        store_url: None stores nothing.

    Raises:
        StorageError: the store cannot be written.
    """
    waiting: list[pa.Table] = []
    for part in parts:
        new = _store_rows(part) if store_url is not None else None
        if new is not None:
            # Rows of another dtype are of a start on another device.
            if waiting and waiting[0].schema != new.schema:
                waiting = _flush(waiting, store_url)
            waiting.append(new)
            if sum(table.nbytes for table in waiting) > _PART_BYTES:
                waiting = _flush(waiting, store_url)
        yield part.drop_columns([name for name in NEW_COLUMNS if name in part.column_names])
    _flush(waiting, store_url)


def _flush(waiting: Sequence[pa.Table], store_url: str | None) -> list[pa.Table]:
    if waiting and store_url is not None:
        EmbeddingStore(store_url).add(pa.concat_tables(waiting))
    return []


def _store_rows(part: pa.Table) -> pa.Table | None:
    """The rows of a staged part or a batch that are to be stored, in the store's columns."""
    if not set(NEW_COLUMNS) <= set(part.column_names):
        return None
    part = part.filter(pc.and_(part.column("embedding_key").is_valid(), part.column(VECTORS[1]).is_valid()))
    if not part.num_rows:
        return None
    conditions = part.column("embedding_conditions")
    columns = {
        "key": part.column("embedding_key"),
        "checksum": pa.nulls(part.num_rows, KEY_TYPE),
        "checkpoint": part.column("embedding_checkpoint"),
        "prompt": pc.if_else(conditions.is_valid(), part.column("caption"), part.column("prompt")),
        "conditions": conditions,
        "prompt_truncated": part.column("embedding_truncated"),
    }
    schema = part_schema(part.schema.field("image_embeds").type)
    arrays = [columns[name] if name in columns else part.column(name) for name in schema.names]
    return pa.table([array.cast(field.type) for array, field in zip(arrays, schema, strict=True)], schema=schema)
