"""Seal a shard anew: with failed rows replaced by what came of trying them again, or with more columns.

    OUTPUT/_run/retry/_run/parts/NNNNN/BBBBB.arrow   rows that were tried again, batch by batch
    OUTPUT/_run/reseal/NNNNN/                        the shard's new files, laid out as an output, stats last

A reader never sees half of it: the new files are complete aside before the old stats file goes, which makes the
shard count as not sealed, and the new stats file comes last. Killed before the first of these moments, the old
shard stands; killed after it, the next start finishes (`finish_reseals`).
"""

from __future__ import annotations

import re
import tarfile
import tempfile
from collections.abc import Collection, Iterator, Sequence
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from manifests import commit, storage
from manifests.commit import ShardStats
from manifests.config import RunConfig
from manifests.embeddings import kept_clip
from manifests.errors import SUCCESS, StorageError
from manifests.records import RECORD_FIELDS
from workers.embeddings.storing import store_new
from workers.stages.shards import build_shard, read_part

#: Columns of `sealed_rows` that are not the index's.
CONTENTS = ("encoded", "latents", kept_clip.COLUMN)

RETRY_FOLDER = "_run/retry"
RESEAL_FOLDER = "_run/reseal"

#: Rows whose images are in memory together.
_ROWS = 32

_FOLDER_NAME = re.compile(r"^(\d{5,})/?$")


def reseal(shard: int, batches: Sequence[int], output_url: str, config: RunConfig) -> ShardStats:
    """Make the shard's files anew from itself and the rows tried again, and put them in its place.

    Args:
        batches: those with rows that were tried again, all staged under RETRY_FOLDER.

    Raises:
        StorageError: a file is missing or damaged, or the output cannot be written. The old shard stands.
    """
    retry_url = storage.join(output_url, RETRY_FOLDER)
    parts = (read_part(shard, batch, retry_url) for batch in batches)
    # A batch of which no row came to the decoder has no column for what it makes.
    again = pa.concat_tables(store_new(parts, config.embeddings_url), promote_options="default")
    return reseal_rows(shard, _merged(shard, again, output_url, config), output_url, config)


def reseal_rows(shard: int, pieces: Iterator[pa.Table], output_url: str, config: RunConfig) -> ShardStats:
    """Make a sealed shard's files anew of these rows, and put them in its place.

    Args:
        pieces: all rows of the shard in their order, each with its image in `encoded`, as `sealed_rows` gives them.

    Raises:
        StorageError: the output cannot be read or written. The old shard stands.
    """
    aside = storage.join(output_url, RESEAL_FOLDER, commit.shard_name(shard))
    with tempfile.TemporaryDirectory(prefix="reseal-") as folder:
        stats = build_shard(shard, pieces, folder, config)
        commit.put_files(stats, folder, aside)
    commit.write_stats(aside, stats)
    _put_in_place(output_url, shard, stats)
    return stats


def finish_reseals(output_url: str, shards: Collection[int]) -> int:
    """Finish what a killed start had begun to put in place, drop what it had not; returns how many it finished."""
    finished = 0
    for name in storage.list_names(storage.join(output_url, RESEAL_FOLDER)):
        match = _FOLDER_NAME.match(name)
        if match is None or int(match.group(1)) not in shards:
            continue
        shard = int(match.group(1))
        aside = storage.join(output_url, RESEAL_FOLDER, commit.shard_name(shard))
        if storage.exists(storage.join(aside, commit.stats_name(shard))):
            _put_in_place(output_url, shard, commit.read_stats(aside, shard))
            finished += 1
        else:
            storage.remove(aside, recursive=True)
    return finished


def _put_in_place(output_url: str, shard: int, stats: ShardStats) -> None:
    """Swap the files; may be killed anywhere and done again."""
    aside = storage.join(output_url, RESEAL_FOLDER, commit.shard_name(shard))
    # Lasting: were it back after a loss of power, it would stand beside files that are not its own.
    storage.remove(storage.join(output_url, commit.stats_name(shard)), lasting=True)
    commit.copy_files(stats, aside, output_url)
    commit.write_stats(output_url, stats)
    # First, because a stats file aside says that all the others lie there, and a removal may end in the middle.
    storage.remove(storage.join(aside, commit.stats_name(shard)), lasting=True)
    storage.remove(aside, recursive=True)
    storage.remove(commit.parts_url(storage.join(output_url, RETRY_FOLDER), shard), recursive=True)


def _merged(shard: int, again: pa.Table, output_url: str, config: RunConfig) -> Iterator[pa.Table]:
    """The shard's rows in their order, with images, a few at a time; rows tried again take the place of failed ones."""
    places = {key: row for row, key in enumerate(again.column("key").to_pylist())}
    for rows in sealed_rows(shard, output_url, config):
        for column in CONTENTS:  # none of the rows tried again came as far
            if column in rows.column_names and column not in again.column_names:
                again = again.append_column(column, pa.nulls(again.num_rows, rows.schema.field(column).type))
        keys, status = rows.column("key").to_pylist(), rows.column("status").to_pylist()
        # The types and descriptions that the index was begun with, which Parquet adds to.
        old = pa.table([_column(rows, field) for field in again.schema], schema=again.schema)
        take = np.arange(len(keys))
        for row, (key, value) in enumerate(zip(keys, status, strict=True)):
            if value != SUCCESS and key in places:
                take[row] = len(keys) + places[key]
        yield pa.concat_tables([old, again]).take(pa.array(take)) if (take >= len(keys)).any() else old


def _column(rows: pa.Table, field: pa.Field) -> pa.Array:
    """A column of an index; null where it has none, as of scores that are being added shard by shard."""
    if field.name not in rows.column_names:
        return pa.nulls(rows.num_rows, field.type)
    return rows.column(field.name).cast(field.type)


def sealed_rows(shard: int, output_url: str, config: RunConfig, clip: bool = True) -> Iterator[pa.Table]:
    """The rows of a sealed shard in their order, a few at a time: the index's columns, and CONTENTS as far as it has.

    Args:
        clip: also the embeddings that are kept.

    Raises:
        StorageError: the shard cannot be read.
    """
    stats = commit.read_stats(output_url, shard)
    files = _files(None if stats.tar is None else storage.join(output_url, stats.tar.name), config)
    columns = ("encoded", "latents") if config.dump_latents else ("encoded",)
    embeds = kept_clip.Kept(output_url, shard) if clip and stats.clip else None
    try:
        with storage.open_arrow(storage.join(output_url, stats.parquet.name)) as source:
            for batch in pq.ParquetFile(source).iter_batches(_ROWS):
                rows = _as_written(pa.Table.from_batches([batch]))
                status = rows.column("status").to_pylist()
                kept = [next(files) if value == SUCCESS else (None,) * len(columns) for value in status]
                for column, contents in zip(columns, zip(*kept, strict=True), strict=True):
                    rows = rows.append_column(column, pa.array(contents, pa.large_binary()))
                yield (
                    rows if embeds is None else rows.append_column(kept_clip.COLUMN, embeds.of(rows["key"].to_pylist()))
                )
    except (OSError, tarfile.TarError, pa.ArrowException, StopIteration, RuntimeError) as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(
            f"shard {shard} cannot be read ({error!r}); let `python jobs/verify.py` say what is wrong with it"
        ) from error


def _as_written(rows: pa.Table) -> pa.Table:
    """The record's columns in the types that they were written in: Parquet gives lists whose items have another name,
    and an index that is written from those is not the one that a repair makes.
    """
    for field in RECORD_FIELDS:
        place = rows.schema.get_field_index(field.name)
        if place >= 0 and pa.types.is_nested(field.type):
            rows = rows.set_column(place, field, rows.column(place).cast(field.type))
    return rows


def _files(tar_url: str | None, config: RunConfig) -> Iterator[tuple[bytes, ...]]:
    """Image of each sample, and its latents where the shard has them, in order."""
    if tar_url is None:
        return
    image, _, _, *latents = commit.member_suffixes(config)
    wanted = (image, *latents)
    found: list[bytes] = []
    with storage.open_read(tar_url) as file, _stream(file) as tar:
        for member in tar:
            if member.name.endswith(wanted):
                content = tar.extractfile(member)
                found.append(b"" if content is None else content.read())
                if len(found) == len(wanted):
                    yield tuple(found)
                    found = []
            tar.members = []


def _stream(file: IO[bytes]) -> Any:
    return tarfile.open(fileobj=file, mode="r|")
