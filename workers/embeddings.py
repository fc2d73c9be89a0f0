"""Between the line and the embedding store: batches get what is known, finished parts give what is new.

    read task   recall(): the keys of some thousand rows, one lookup, the vectors of those that are known
    prior       computes the rows of a batch that have none
    staging     keeps what is new in the batch's part, beside the image
    seal        store_new(): the new rows of a shard's parts as one part of the store

So a store is written once per shard and read once per window of the plan, never per row; what a killed run had
computed and staged is stored by the run that goes on. Columns that travel for this, beside both vectors:

    embedding_key          under which the row is stored; null where it is known already or has no key
    embedding_checkpoint   fingerprint of the prior's repository
    embedding_conditions   JSON of an interpolation's conditions, images as SHA-256
    embedding_truncated    whether CLIP cut the prompt; not null where the prior embedded the row in this run
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests import storage
from manifests.batch import Batch
from manifests.config import RunConfig
from manifests.embedding_store import EmbeddingStore, Known
from manifests.embeddings import KEY_TYPE, VECTORS, Origin, image_hash, key_of, part_schema, vector_array, vectors
from manifests.errors import RowError, StorageError
from workers.checkpoint_fingerprint import prior_origin
from workers.device import DeviceKind

#: What `recall` does with a batch that has rows without an embedding: pass it on for the prior, leave it out, or
#: fail those rows.
IfUnknown = Literal["pass", "leave out", "fail"]

#: Columns of a batch that lead to its part of the store.
NEW_COLUMNS = ("embedding_key", "embedding_checkpoint", "embedding_conditions", "embedding_truncated", *VECTORS)

#: Rows and bytes of batches that are looked up together.
_LOOKUP_ROWS = 4096
_LOOKUP_BYTES = 64 << 20

#: New rows are stored in parts of at most so many bytes of vectors.
_PART_BYTES = 64 << 20

_READ = ("prompt", "negative_prompt", "condition_sources", "seed", "image_index", "prior_steps", "prior_guidance_scale")


@dataclass(frozen=True)
class Memory:
    """A store, and what makes embeddings in this run."""

    url: str
    origin: Origin


def remembered(config: RunConfig, kind: DeviceKind) -> Memory | None:
    """The embedding store that a run on such devices uses, if it uses one."""
    url = config.embeddings_url
    return None if url is None else Memory(url, prior_origin(config.checkpoint, kind))


@dataclass(frozen=True)
class _Asked:
    """What a row asks the prior, as far as the store is concerned."""

    key: bytes
    conditions: str | None


def recall(batches: Iterable[Batch], memory: Memory, if_unknown: IfUnknown) -> Iterator[Batch]:
    """Batches with NEW_COLUMNS: vectors for the rows that the store knows, keys for those it does not.

    Args:
        batches: from the plan, in order; some are looked up together.

    Raises:
        StorageError: the store cannot be read; what is damaged in it counts as unknown.
    """
    store = EmbeddingStore(memory.url)
    for group in _groups(batches):
        asked = [_questions(batch, memory.origin) for batch in group]
        keys = [question.key for row in asked for question in row.values()]
        known = store.get(keys, memory.origin)
        start = 0
        for batch, questions in zip(group, asked, strict=True):
            rows = range(start, start + len(questions))
            start = rows.stop
            filled = _with_known(batch, questions, known, rows, memory.origin)
            unknown = to_embed(filled)
            if unknown and if_unknown == "leave out":
                continue
            yield filled.fail({row: _unknown_error(memory.url) for row in unknown} if if_unknown == "fail" else {})


def recallable(batches: Iterable[Batch], memory: Memory, verify: bool) -> Iterator[tuple[Batch, int]]:
    """Each batch with the number of its rows that need the prior.

    Args:
        verify: read and check the embeddings; else the store's index is believed.
    """
    store = EmbeddingStore(memory.url)
    for group in _groups(batches):
        asked = [_questions(batch, memory.origin) for batch in group]
        keys = [question.key for row in asked for question in row.values()]
        has = store.get(keys, memory.origin).found if verify else store.has(keys)
        start = 0
        for batch, questions in zip(group, asked, strict=True):
            found = int(has[start : start + len(questions)].sum())
            start += len(questions)
            yield batch, (0 if batch.bucket is None else len(batch.pending) - found)


def to_embed(batch: Batch) -> list[int]:
    """Positions of the rows that need the prior."""
    if batch.bucket is None:
        return []
    missing: set[int] = set()
    for name in VECTORS:
        if name not in batch.samples.column_names:
            return batch.pending
        missing.update(np.flatnonzero(batch.samples.column(name).is_null().to_numpy(zero_copy_only=False)).tolist())
    return [row for row in batch.pending if row in missing]


def filled(batch: Batch, column: str, kind: pa.DataType, values: dict[int, Any]) -> Batch:
    """The batch with values put into a column, which keeps those that it has in other rows."""
    if column in batch.samples.column_names:
        there = batch.samples.column(column).combine_chunks()
        rows = np.flatnonzero(there.is_valid().to_numpy(zero_copy_only=False))
        kept = there.take(pa.array(rows))
        values = (
            dict(zip(rows.tolist(), vectors(kept) if column in VECTORS else kept.to_pylist(), strict=True)) | values
        )
    return batch.add(column, kind, values)


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
    return Batch(batch.shard, batch.index, batch.bucket, samples)


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


def _groups(batches: Iterable[Batch]) -> Iterator[list[Batch]]:
    """Consecutive batches that are looked up together; inline images bound how many."""
    group: list[Batch] = []
    rows = size = 0
    for batch in batches:
        group.append(batch)
        rows, size = rows + batch.samples.num_rows, size + batch.samples.nbytes
        if rows >= _LOOKUP_ROWS or size >= _LOOKUP_BYTES:
            yield group
            group, rows, size = [], 0, 0
    if group:
        yield group


def _questions(batch: Batch, origin: Origin) -> dict[int, _Asked]:
    """What each pending row asks; rows with an image that cannot be read are left out, they fail later on."""
    if batch.bucket is None:
        return {}
    interpolates = batch.bucket.task == "interpolate"
    images: dict[str, str | None] = {}
    found = {}
    for position, row in batch.rows(_READ, batch.pending).items():
        hashes = None
        if interpolates:
            hashes = [_condition(condition, images) for condition in row["condition_sources"] or ()]
            if None in hashes:
                continue
        # The prior does not see an interpolation's prompt.
        question = {**row, "condition_hashes": hashes, "prompt": None if interpolates else row["prompt"]}
        conditions = json.dumps(hashes, ensure_ascii=False) if interpolates else None
        found[position] = _Asked(key_of(origin, question), conditions)
    return found


def _condition(condition: dict[str, Any], images: dict[str, str | None]) -> list[Any] | None:
    """[text, SHA-256 of the image, weight]; None where the image cannot be read."""
    image = condition["image"]
    if image is None:
        return [condition["text"], None, condition["weight"]]
    if image["bytes"] is not None:
        return [None, image_hash(image["bytes"]), condition["weight"]]
    path = image["path"]
    if path not in images:
        try:
            images[path] = image_hash(storage.read_bytes(path))
        except (OSError, StorageError):
            images[path] = None
    return None if images[path] is None else [None, images[path], condition["weight"]]


def _with_known(batch: Batch, questions: dict[int, _Asked], known: Known, rows: range, origin: Origin) -> Batch:
    """The batch with NEW_COLUMNS; `rows` are those of `questions` in `known`."""
    if batch.bucket is None:
        return batch
    count = batch.samples.num_rows
    positions = np.fromiter(questions, np.int64, len(questions))
    found = known.found[rows.start : rows.stop]
    missing = np.ones(count, bool)
    missing[positions[found]] = False
    new = {row: question for row, question in questions.items() if missing[row]}
    for name, values in zip(VECTORS, (known.image_embeds, known.negative_image_embeds), strict=True):
        column = np.zeros((count, origin.width), origin.dtype)
        column[positions] = values[rows.start : rows.stop]
        batch = _set(batch, name, vector_array(column, missing))
    truncated = known.prompt_truncated[rows.start : rows.stop]
    batch = filled(
        batch,
        "prompt_truncated",
        pa.bool_(),
        dict(zip(positions[found].tolist(), truncated[found].tolist(), strict=True)),
    )
    batch = batch.add("embedding_key", KEY_TYPE, {row: question.key for row, question in new.items()})
    batch = batch.add("embedding_checkpoint", pa.string(), dict.fromkeys(new, origin.checkpoint))
    return batch.add("embedding_conditions", pa.string(), {row: question.conditions for row, question in new.items()})


def _set(batch: Batch, column: str, array: pa.Array) -> Batch:
    return Batch(batch.shard, batch.index, batch.bucket, batch.drop([column]).samples.append_column(column, array))


def _unknown_error(url: str) -> RowError:
    return RowError(
        "failed_to_embed",
        f"the store {url} has no embedding for this row; run the same with --stage prior first, or with --stage all",
    )
