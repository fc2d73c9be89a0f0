"""From the embedding store into batches: what is known, in one lookup for some thousand rows.

read task   recall(): keys, one lookup, the vectors of the rows that are known
prior       computes the rows of a batch that have none
later on    workers/embeddings/storing.py
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from manifests import storage
from manifests.batch import Batch
from manifests.config import RunConfig
from manifests.embeddings.keys import KEY_TYPE, VECTORS, Origin, image_hash, key_of, vector_array, vectors
from manifests.embeddings.store import EmbeddingStore, Known
from manifests.errors import RowError, StorageError
from workers.device.device import DeviceKind
from workers.embeddings.origin import prior_origin
from workers.embeddings.provided import adopt

#: What `recall` does with a batch that has rows without an embedding: pass it on for the prior, leave it out, or
#: fail those rows.
IfUnknown = Literal["pass", "leave out", "fail"]

#: Rows and bytes of batches that are looked up together.
_LOOKUP_ROWS = 4096
_LOOKUP_BYTES = 64 << 20

_READ = ("prompt", "negative_prompt", "condition_sources", "seed", "image_index", "prior_steps", "prior_guidance_scale")


@dataclass(frozen=True)
class Memory:
    """A store, if there is one, and what makes embeddings in this run."""

    url: str | None
    origin: Origin


def remembered(config: RunConfig, kind: DeviceKind) -> Memory:
    """What a run on such devices knows of embeddings."""
    return Memory(config.embeddings_url, prior_origin(config.checkpoint, kind))


@dataclass(frozen=True)
class _Asked:
    """What a row asks the prior, as far as the store is concerned."""

    key: bytes
    conditions: str | None


def recall(batches: Iterable[Batch], memory: Memory, if_unknown: IfUnknown) -> Iterator[Batch]:
    """Batches with NEW_COLUMNS: vectors for the rows that bring them or the store knows, keys for those it does not.

    Args:
        batches: from the plan, in order; some are looked up together.

    Raises:
        StorageError: the store cannot be read; what is damaged in it counts as unknown.
    """
    batches = (adopt(batch, memory.origin) for batch in batches)
    if memory.url is None:
        for batch in batches:
            yield from _settled(batch, if_unknown, "there is no embedding store")
        return
    store = EmbeddingStore(memory.url)
    for keys, group in _lookups(batches, memory.origin):
        known = store.get(keys, memory.origin)
        for batch, questions, rows in group:
            recalled = _with_known(batch, questions, known, rows, memory.origin)
            yield from _settled(recalled, if_unknown, f"the store {memory.url} has no embedding for this row")


def recallable(batches: Iterable[Batch], memory: Memory, verify: bool) -> Iterator[tuple[Batch, int]]:
    """Each batch with the number of its rows that need the prior.

    Args:
        verify: read and check the embeddings; else the store's index is believed.
    """
    batches = (adopt(batch, memory.origin) for batch in batches)
    if memory.url is None:
        for batch in batches:
            yield batch, len(to_embed(batch))
        return
    store = EmbeddingStore(memory.url)
    for keys, group in _lookups(batches, memory.origin):
        has = store.get(keys, memory.origin).found if verify else store.has(keys)
        for batch, _, rows in group:
            yield batch, len(to_embed(batch)) - int(has[rows.start : rows.stop].sum())


def _settled(batch: Batch, if_unknown: IfUnknown, why: str) -> Iterator[Batch]:
    """What becomes of a batch that may have rows without embeddings."""
    unknown = to_embed(batch)
    if if_unknown == "pass" or not unknown:
        yield batch
    elif if_unknown == "fail":
        advice = "run the same with --stage prior first, or with --stage all; a row that gives one of image_embeds and "
        advice += "negative_image_embeds must give both"
        yield batch.fail(dict.fromkeys(unknown, RowError("failed_to_embed", f"{why}; {advice}")))


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


def given_rows(batch: Batch, rows: Sequence[int]) -> list[int]:
    """Those of the rows whose image embedding is there, so that they lack at most the negative one."""
    name = VECTORS[0]
    if name not in batch.samples.column_names:
        return []
    there = batch.samples.column(name).is_valid().to_numpy()
    return [row for row in rows if there[row]]


def filled(batch: Batch, column: str, kind: pa.DataType, values: dict[int, Any]) -> Batch:
    """The batch with values put into a column, which keeps what it has in other rows; vectors stay in any row."""
    if column in batch.samples.column_names:
        there = batch.samples.column(column).combine_chunks()
        rows = np.flatnonzero(there.is_valid().to_numpy(zero_copy_only=False))
        kept = there.take(pa.array(rows))
        if column in VECTORS:
            values = values | dict(zip(rows.tolist(), vectors(kept), strict=True))
        else:
            values = dict(zip(rows.tolist(), kept.to_pylist(), strict=True)) | values
    return batch.add(column, kind, values)


def _lookups(
    batches: Iterable[Batch], origin: Origin
) -> Iterator[tuple[list[bytes], list[tuple[Batch, dict[int, _Asked], range]]]]:
    """The keys of one lookup, and of each batch in it what its rows ask and where among the keys that is."""
    for group in _groups(batches):
        keys: list[bytes] = []
        found = []
        for batch in group:
            questions = _questions(batch, origin)
            found.append((batch, questions, range(len(keys), len(keys) + len(questions))))
            keys += [question.key for question in questions.values()]
        yield keys, found


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
    """What each row asks; left out are rows that bring an embedding, or name an image that cannot be read."""
    if batch.bucket is None:
        return {}
    names = [name for name in VECTORS if name in batch.samples.column_names]
    given = {row for name in names for row in np.flatnonzero(batch.samples.column(name).is_valid()).tolist()}
    interpolates = batch.bucket.task == "interpolate"
    images: dict[str, str | None] = {}
    found = {}
    for position, row in batch.rows(_READ, [row for row in batch.pending if row not in given]).items():
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
        absent = missing.copy()
        if name in batch.samples.column_names:
            given = batch.samples.column(name).combine_chunks()
            there = given.is_valid().to_numpy(zero_copy_only=False)
            column[there], absent[there] = vectors(given.drop_null()), False
        column[positions] = values[rows.start : rows.stop]
        batch = _set(batch, name, vector_array(column, absent))
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
    return replace(batch, samples=batch.drop([column]).samples.append_column(column, array))
