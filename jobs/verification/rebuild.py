"""Build a damaged shard again from what is right of it, and prove each file before it takes its place.

A file that is built again is right where it has the bytes that the commit record says, or those that lie there already.
Only what is damaged is replaced, each file in one step, so a reader never sees less than before.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import IO, Any

import pyarrow as pa

from jobs.verification.salvage import FACTS, Salvage
from manifests import commit, storage
from manifests.batch import Batch
from manifests.commit import FileStats, ShardStats
from manifests.config import RunConfig
from manifests.errors import SUCCESS
from manifests.rankings import fields_at
from manifests.records import SOURCE_FIELDS
from workers.scoring.columns import columns_of
from workers.stages.shards import build_shard, part_table, read_part

#: Samples that a message names.
SHOWN = 3


@dataclass(frozen=True)
class Mending:
    """What came of a damaged shard.

    Attributes:
        mended: names of the files that were replaced or written.
        trouble: why some of it could not be mended; None where all of it was.
    """

    shard: int
    mended: tuple[str, ...] = ()
    trouble: str | None = None


def rows_to_make(found: Salvage, batches: Iterable[Batch]) -> dict[tuple[int, int], tuple[int, ...]]:
    """(shard, batch) -> positions in the batch whose images, or what came of them, nobody knows any more."""
    status = None if found.rows is None else found.rows.column("status").to_pylist()
    lost: dict[tuple[int, int], tuple[int, ...]] = {}
    first = 0
    for batch in batches:
        keys, planned = (batch.samples.column(name).to_pylist() for name in ("key", "status"))
        known = planned if status is None else status[first : first + len(keys)]
        first += len(keys)
        rows = tuple(row for row, key in enumerate(keys) if known[row] == SUCCESS and key not in found.members)
        if rows:
            lost[batch.shard, batch.index] = rows
    return lost


def rebuild(
    found: Salvage, batches: Iterable[Batch], made: Collection[tuple[int, int]], made_at: str, config: RunConfig
) -> Mending:
    """Build the shard, prove it, and replace what is damaged.

    Args:
        batches: the shard's, as planned.
        made: those with rows that were made again, staged as parts under `made_at`.

    Raises:
        StorageError: the output cannot be written or read.
    """
    unlike: list[str] = []
    with storage.temporary_folder("repair-") as folder, ExitStack() as stack:
        tar = None
        if found.members:
            tar = stack.enter_context(storage.open_read(storage.join(config.output, commit.tar_name(found.shard))))
        columns = [*columns_of(config.score_names, config.checkpoint).values(), *_rankings(found, config.output)]
        parts = _parts(found, batches, made, made_at, tar, config.dump_latents, columns, unlike)
        # Embeddings are not made again here, and those of images that are the same are the same.
        built = build_shard(found.shard, parts, folder, config.model_copy(update={"keep_clip": False}))
        built = built.model_copy(update={"clip": found.clip})
        if unlike:
            more = f" and {len(unlike) - SHOWN} more" if len(unlike) > SHOWN else ""
            return Mending(
                found.shard,
                trouble=f"this device makes other bits than the index says for {', '.join(unlike[:SHOWN])}{more}; a "
                "device like the one that made them, with --deterministic on Ascend, makes the same",
            )
        mending = _put_in_place(found, built, folder, config.output)
        if found.lost_clip and mending.trouble is None:
            return replace(mending, trouble="its embeddings are damaged; jobs/score.py --keep-clip makes them again")
        return mending


def _put_in_place(found: Salvage, built: ShardStats, folder: str, output: str) -> Mending:
    """Replace files that are damaged by what was built, where that is proved."""
    recorded = found.stats
    claims = (None, None) if recorded is None else (recorded.parquet, recorded.tar)
    files = zip((built.parquet, built.tar), (found.index, found.tar), claims, strict=True)
    damaged = [(file, claim) for file, there, claim in files if file is not None and not _same(file, there)]
    # The images have the checksums of the index, which is as it was committed or as the manifest asks.
    by_index = recorded is None and found.rows is not None
    unproved = [file for file, claim in damaged if not _same(file, claim) and not (by_index and file is built.tar)]
    if unproved:
        which = " and ".join(file.name for file in unproved)
        why = "its commit record is lost" if recorded is None else "its commit record has another checksum"
        return Mending(
            found.shard,
            trouble=f"{which}, made again, cannot be proved to be what was there: {why}; remove the shard's files "
            f"({commit.shard_name(found.shard)}*) and start the job again to make all of it anew",
        )
    storage.put_together([os.path.join(folder, file.name) for file, _ in damaged], output)
    names = [file.name for file, _ in damaged]
    if recorded != built:
        commit.write_stats(output, built)
        names.append(commit.stats_name(found.shard))
    return Mending(found.shard, tuple(names))


def _same(one: FileStats, other: FileStats | None) -> bool:
    return other is not None and (one.bytes, one.sha256) == (other.bytes, other.sha256)


def _parts(
    found: Salvage,
    batches: Iterable[Batch],
    made: Collection[tuple[int, int]],
    made_at: str,
    tar: IO[bytes] | None,
    latents: bool,
    columns: Sequence[pa.Field],
    unlike: list[str],
) -> Iterator[pa.Table]:
    """The shard's parts, as they were when it was sealed.

    Args:
        columns: of the run's scores, and rankings that the shard has.
        unlike: is told the keys of images that were made again and are not what the index says.
    """
    first = 0
    for batch in batches:
        again = read_part(batch.shard, batch.index, made_at) if (batch.shard, batch.index) in made else None
        samples = batch.drop([*(field.name for field in SOURCE_FIELDS), "same_as"]).samples
        rows = _records(found, samples, first, again, columns)
        first += rows.num_rows
        contents = _contents(found, rows, again, tar, latents)
        for column, values in zip(("encoded", "latents") if latents else ("encoded",), contents, strict=True):
            rows = rows.append_column(column, pa.array(values, pa.large_binary()))
        for row in rows.select(["key", "status", "sha256", "encoded"]).to_pylist():
            if row["status"] == SUCCESS and hashlib.sha256(row["encoded"]).hexdigest() != row["sha256"]:
                unlike.append(row["key"])
        yield part_table(rows)


def _records(
    found: Salvage, samples: pa.Table, first: int, again: pa.Table | None, columns: Sequence[pa.Field]
) -> pa.Table:
    """The rows of a batch as the index had them."""
    if found.rows is not None:
        index = found.rows.slice(first, samples.num_rows)
        # Those that the shard has: scores may be added shard by shard.
        fields = [*samples.schema, *(field for field in columns if field.name in index.column_names)]
        # The types and descriptions of the plan, which Parquet adds to.
        return pa.table([index.column(f.name).cast(f.type) for f in fields], schema=pa.schema(fields))
    names = (*FACTS, *(field.name for field in columns))
    for field in columns:
        samples = samples.append_column(field, pa.nulls(samples.num_rows, field.type))
    there = [] if again is None else [name for name in names if name in again.column_names]
    made = {} if again is None else {row["key"]: row for row in again.select(["key", *there]).to_pylist()}
    told = {key: _with_scores(fact, columns) for key, fact in found.facts.items()} if columns else found.facts
    known: list[Mapping[str, Any]] = [
        made.get(row["key"], told.get(row["key"], row)) for row in samples.select(["key", *names]).to_pylist()
    ]
    for name in names:
        place = samples.schema.get_field_index(name)
        column = samples.schema.field(name)
        samples = samples.set_column(place, column, pa.array([row.get(name) for row in known], column.type))
    return samples


def _rankings(found: Salvage, output: str) -> list[pa.Field]:
    """Those that a shard has, as its records tell: a start that was killed has given them to some shards only."""
    fields = fields_at(output)
    return [field for field in fields if not found.facts or any(field.name in fact for fact in found.facts.values())]


def _with_scores(fact: Mapping[str, Any], columns: Sequence[pa.Field]) -> dict[str, Any]:
    """What a record in a tar tells, with its scores as the index has them (workers/stages/sample_json.py)."""
    scores: dict[str, Any] = {}
    for column in columns:
        text = fact.get(column.name, "")
        if pa.types.is_string(column.type):
            scores[column.name] = text or None
        else:
            scores[column.name] = json.loads(text) if text else None
    return {**fact, **scores}


def _contents(
    found: Salvage, rows: pa.Table, again: pa.Table | None, tar: IO[bytes] | None, latents: bool
) -> Sequence[Sequence[bytes | None]]:
    """Image of each row, and its latents: from the tar where they are right there, else as made again."""
    columns = [
        name for name in ("encoded", "latents")[: 1 + latents] if again is not None and name in again.column_names
    ]
    made = {} if again is None else {row["key"]: row for row in again.select(["key", *columns]).to_pylist()}
    files: list[list[bytes | None]] = [[], []] if latents else [[]]
    for key, status in zip(rows.column("key").to_pylist(), rows.column("status").to_pylist(), strict=True):
        for number, (name, column) in enumerate(zip(("encoded", "latents"), files, strict=False)):
            content = None
            if status == SUCCESS and key in made:
                # One that failed is told by its checksum.
                content = made[key].get(name) or b""
            elif status == SUCCESS and tar is not None:
                place, size = found.members[key][number]
                tar.seek(place)
                content = tar.read(size)
            column.append(content)
    return files
