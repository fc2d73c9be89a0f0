"""Last two stages (CPU): stage a finished batch as a part, and seal a shard from its parts.

Both may be killed at any moment and started again: names come from the plan, every file appears whole or not
at all, and the stats file, written last, is what makes a shard count. The same parts always give the same
bytes: members have no times or owners, rows keep the planned order, and the stats hold no clock.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifests import commit, storage
from manifests.batch import Batch
from manifests.commit import TOLD_FAILURES, TOLD_LETTERS, FailureKind, Receipt, RowFailure, ShardStats, describe_file
from manifests.config import RunConfig
from manifests.embeddings import kept_clip
from manifests.errors import SUCCESS, RowError, StorageError
from manifests.records import RECORD_FIELDS, RECORD_NAMES, WORKING_NAMES
from workers.embeddings.storing import NEW_COLUMNS, newly_embedded, store_new
from workers.stages.sample_json import sidecar_json

#: Records are gathered up to this before they become a row group: a batch alone is too small for a good one,
#: a shard with large pass-through columns may be too big for memory.
_ROW_GROUP_ROWS = 10_000
_ROW_GROUP_BYTES = 32 * 2**20


def write_part(batch: Batch, output_url: str) -> Receipt:
    """Stage a finished batch as one Arrow IPC file: RECORD_FIELDS, the manifest's other columns, `encoded`.

    `latents` and `clip_embeds` come last, where the batch has them. A sample that claims success without an image
    becomes `failed_to_encode`, so that a stage's mistake shows in the index and not as a hole in the tar.

    Raises:
        StorageError: the output cannot be written.
    """
    if "encoded" not in batch.samples.column_names:
        batch = batch.add("encoded", pa.large_binary(), {})
    has_image = batch.samples.column("encoded").is_valid().to_pylist()
    reason = RowError("failed_to_encode", "no stage made an image of this sample; please report this")
    batch = batch.fail({position: reason for position in batch.pending if not has_image[position]})

    table = part_table(batch.samples)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    data = sink.getvalue().to_pybytes()
    storage.write_atomic(commit.part_url(output_url, batch.shard, batch.index), data)

    failed = Counter(status for status in table.column("status").to_pylist() if status != SUCCESS)
    return Receipt(
        shard=batch.shard,
        batch=batch.index,
        count=table.num_rows,
        successes=table.num_rows - sum(failed.values()),
        failed_by_status=dict(sorted(failed.items())),
        failure_kinds=commit.failure_kinds(table) if failed else (),
        bytes=len(data),
        bucket=batch.bucket,
        seconds=batch.seconds,
        embedded=newly_embedded(batch.samples),
        failures=_first_failures(table) if failed else (),
    )


def _first_failures(table: pa.Table) -> tuple[RowFailure, ...]:
    """The first failed rows of a part, for whoever watches the run."""
    failed = table.filter(pc.not_equal(table.column("status"), SUCCESS)).slice(0, TOLD_FAILURES)
    return tuple(
        RowFailure(
            manifest_row=row["manifest_row"],
            id=row["id"][:TOLD_LETTERS],
            status=row["status"],
            message=(row["error_message"] or "")[:TOLD_LETTERS],
        )
        for row in failed.select(["manifest_row", "id", "status", "error_message"]).to_pylist()
    )


def part_table(samples: pa.Table) -> pa.Table:
    """The index's columns in their order and types, `encoded`, new embeddings; what stages left over is cut off."""
    fields = list(RECORD_FIELDS)
    fields += [f for f in samples.schema if f.name not in RECORD_NAMES and f.name not in WORKING_NAMES]
    fields.append(pa.field("encoded", pa.large_binary()))
    if "latents" in samples.column_names:
        fields.append(pa.field("latents", pa.large_binary()))
    if kept_clip.COLUMN in samples.column_names:
        fields.append(samples.schema.field(kept_clip.COLUMN))
    if set(NEW_COLUMNS) <= set(samples.column_names):
        fields += [samples.schema.field(name) for name in NEW_COLUMNS]
    columns = [samples.column(field.name).cast(field.type) for field in fields]
    return pa.table(columns, pa.schema(fields))


def seal(shard: int, batches: int, output_url: str, config: RunConfig) -> ShardStats:
    """Make a shard's files from its parts, then remove the parts.

    Does nothing but clean up where the shard is sealed already. Memory holds one part and one row group; the
    tar is built on the local disk.

    Args:
        batches: how many parts the plan gives the shard; all must be staged.
        config: `image_format` names the image members.

    Raises:
        StorageError: a part is missing or damaged, or the output cannot be written. Nothing is lost: the
        parts stay.
    """
    if batches < 1:
        raise ValueError(f"shard {shard} has no batches; a plan has no empty shards")
    stats_url = storage.join(output_url, commit.stats_name(shard))
    if not storage.exists(stats_url):
        try:
            _write_shard(shard, batches, output_url, config)
        except StorageError:
            # Another process may have sealed it meanwhile and taken the parts away; its files are the same.
            if not storage.exists(stats_url):
                raise
    stats = commit.read_stats(output_url, shard)
    storage.remove(commit.parts_url(output_url, shard), recursive=True)
    return stats


def _write_shard(shard: int, batches: int, output_url: str, config: RunConfig) -> None:
    with storage.temporary_folder("seal-") as folder:
        parts = (read_part(shard, batch, output_url) for batch in range(batches))
        stats = build_shard(shard, store_new(parts, config.embeddings_url), folder, config)
        commit.put_files(stats, folder, output_url)
    commit.write_stats(output_url, stats)


def build_shard(shard: int, parts: Iterator[pa.Table], folder: str, config: RunConfig) -> ShardStats:
    """Build a shard's tar and index, and with `keep_clip` the files of its embeddings, in a local folder.

    Args:
        parts: its rows in their order, each with its image in `encoded`, `latents` and `clip_embeds` where it has them.

    Raises:
        StorageError: the parts do not fit together, or the folder has no room.
    """
    tar = os.path.join(folder, commit.tar_name(shard))
    index = os.path.join(folder, commit.index_name(shard))
    try:
        clip = kept_clip.ClipFiles(shard, folder, config.image_format) if config.keep_clip else None
        totals = _build(parts, tar, index, config.image_format, clip)
        kept = None if clip is None else clip.close()
    except OSError as error:
        raise StorageError(
            f"shard {shard} cannot be built in {folder}: {error}; free some space there, or set TMPDIR on the "
            "nodes to a folder with room for a few shards"
        ) from error
    failed = sum(totals.failed.values())
    return ShardStats(
        shard=shard,
        task=totals.tasks.pop() if len(totals.tasks) == 1 else None,
        count=totals.count,
        successes=totals.count - failed,
        failed=failed,
        failed_by_status=dict(sorted(totals.failed.items())),
        bytes=totals.image_bytes,
        tar=describe_file(tar, commit.tar_name(shard)) if failed < totals.count else None,
        parquet=describe_file(index, commit.index_name(shard)),
        clip=kept,
    )


def read_failures(shard: int, batch: int, output_url: str) -> tuple[FailureKind, ...]:
    """How samples of a staged part failed; reads nothing but what says it.

    Raises:
        StorageError: the part is missing or damaged.
    """
    url = commit.part_url(output_url, shard, batch)
    try:
        with storage.open_arrow(url) as source:
            schema = pa.ipc.open_file(source).schema
            wanted = pa.ipc.IpcReadOptions(included_fields=[*map(schema.get_field_index, commit.FAILURE_COLUMNS)])
            return commit.failure_kinds(pa.ipc.open_file(source, options=wanted).read_all())
    except FileNotFoundError as error:
        raise StorageError(f"{url} is not there any more") from error
    except pa.ArrowInvalid as error:
        raise _damaged(url, error) from error


def read_part(shard: int, batch: int, output_url: str) -> pa.Table:
    """One staged part.

    Raises:
        StorageError: it is missing or damaged.
    """
    url = commit.part_url(output_url, shard, batch)
    try:
        data = storage.read_bytes(url)
    except FileNotFoundError as error:
        raise StorageError(f"shard {shard} cannot be sealed: {url} is not staged") from error
    try:
        return pa.ipc.open_file(pa.BufferReader(data)).read_all()
    except pa.ArrowInvalid as error:
        raise _damaged(url, error) from error


def _damaged(url: str, error: pa.ArrowInvalid) -> StorageError:
    return StorageError(f"{url} is damaged ({error}); remove it and start again to make it anew")


@dataclass
class _Totals:
    """What a shard's stats count."""

    count: int = 0
    image_bytes: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    tasks: set[str] = field(default_factory=set)


def _build(
    parts: Iterator[pa.Table], tar_file: str, index_file: str, image_format: str, clip: kept_clip.ClipFiles | None
) -> _Totals:
    """Stream parts into a local tar, a local Parquet file, and what is kept of embeddings."""
    totals = _Totals()
    with tarfile.open(tar_file, "w", format=tarfile.USTAR_FORMAT) as tar, ExitStack() as stack:
        index: _Index | None = None
        for part in parts:
            # Copied, because a slice would keep the part's images in memory for as long as the records wait.
            embeds = part.column(kept_clip.COLUMN) if kept_clip.COLUMN in part.column_names else None
            files = [name for name in ("encoded", "latents") if name in part.column_names]
            records = part.drop_columns([*files, *([] if embeds is None else [kept_clip.COLUMN])])
            records = records.take(pa.array(range(part.num_rows), pa.int64()))
            if clip is not None:
                clip.add(records, embeds)
            if index is None:
                index = stack.enter_context(_Index(index_file, records.schema))
            index.add(records)
            contents = (part.column(name) for name in files)
            for row, image, *latents in zip(records.to_pylist(), *contents, strict=True):
                totals.count += 1
                totals.tasks.update([row["task"]] if row["task"] is not None else [])
                if row["status"] != SUCCESS:
                    totals.failed[row["status"]] += 1
                    continue
                data = image.as_py()
                totals.image_bytes += len(data)
                _add_member(tar, f"{row['key']}.{image_format}", data)
                _add_member(tar, f"{row['key']}.txt", (row["caption"] or "").encode())
                _add_member(tar, f"{row['key']}.json", sidecar_json(row, records.schema))
                for file in latents:
                    _add_member(tar, f"{row['key']}.latent.npy", file.as_py())
            # tarfile remembers every member it wrote, and a shard may have millions.
            tar.members = []  # type: ignore[attr-defined]
    return totals


class _Index:
    """Writes records to a Parquet file in row groups of a fair size, whatever the size of the parts."""

    def __init__(self, file: str, schema: pa.Schema) -> None:
        self._schema = schema
        self._writer = pq.ParquetWriter(file, schema, compression="zstd")
        self._waiting: list[pa.Table] = []

    def __enter__(self) -> _Index:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._flush()
        self._writer.close()

    def add(self, records: pa.Table) -> None:
        """Append records.

        Raises:
            StorageError: their columns are not those of the first part.
        """
        if records.schema != self._schema:
            raise StorageError(
                "the shard's parts have different columns: they are of different manifests or versions; "
                f"remove the output's {commit.PARTS_FOLDER} and start again"
            )
        self._waiting.append(records)
        rows, size = sum(t.num_rows for t in self._waiting), sum(t.nbytes for t in self._waiting)
        if rows >= _ROW_GROUP_ROWS or size >= _ROW_GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.concat_tables(self._waiting).combine_chunks())
            self._waiting = []


def _add_member(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    """Append a file; a fresh TarInfo has mtime, uid and gid 0 and no owner's name, so the bytes repeat."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
