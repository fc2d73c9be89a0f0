"""Checks of a shard's index: whole as its stats say, one row for every planned sample, with the counts of the stats."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.verification.checksums import HashingReader, compare_file
from jobs.verification.findings import ShardReport
from manifests import storage
from manifests.commit import ShardStats
from manifests.errors import REJECTED, SUCCESS, StorageError, first_line
from manifests.records import RECORD_NAMES

#: Columns of the index that the plan decides. Paths are left out, because a manifest may move with its images;
#: so is what stages fill in.
PLANNED_COLUMNS: tuple[str, ...] = tuple(
    name
    for name in RECORD_NAMES
    if name not in ("status", "error_message", "prompt_truncated", "sha256", "image_path", "mask_path", "conditions")
)

#: Index rows looked at in one go.
_ROWS = 1000


def planned_rows(batches: Sequence[pa.Table]) -> pa.Table:
    """The planned rows of a shard, without what a check does not need."""
    return pa.concat_tables([batch.select(["status", *PLANNED_COLUMNS]) for batch in batches])


def check_index(
    output: str, stats: ShardStats, planned: pa.Table, report: ShardReport
) -> Iterator[tuple[dict[str, Any], pa.Schema]]:
    """Check the index against plan and stats; returns its successful rows, read a second time as they are wanted."""
    name, url = stats.parquet.name, storage.join(output, stats.parquet.name)
    try:
        with storage.open_read(url) as file:
            compare_file(stats.parquet, HashingReader(file).finish(), report)
        with storage.open_arrow(url) as source:
            index = pq.ParquetFile(source).read(columns=["status", *PLANNED_COLUMNS])
    except FileNotFoundError:
        report.add("index", name, "is missing")
        return iter(())
    except (StorageError, OSError, pa.ArrowException) as error:
        report.add("index", name, f"cannot be read: {first_line(error)}")
        return iter(())
    compare_rows(index, planned, name, report)
    failed = np.array([status != SUCCESS for status in index.column("status").to_pylist()], bool)
    report.manifest_rows = index.column("manifest_row").to_numpy()
    report.failed_rows = report.manifest_rows[failed]
    report.failed, report.written = int(failed.sum()), len(failed) - int(failed.sum())
    statuses = Counter(status for status in index.column("status").to_pylist() if status != SUCCESS)
    counted = (len(failed), report.written, report.failed, dict(statuses))
    claimed = (stats.count, stats.successes, stats.failed, dict(stats.failed_by_status))
    if counted != claimed:
        report.add(
            "stats",
            f"shard {stats.shard:05d}",
            "rows, written, failed and failed by status are {} {} {} {} in the index, {} {} {} {} in the stats".format(
                *counted, *claimed
            ),
        )
    return _successful_rows(url)


def compare_rows(index: pa.Table, planned: pa.Table, name: str, report: ShardReport) -> None:
    """Note rows that are missing, doubled, not planned, or not as the manifest asks for them."""
    keys, wanted = index.column("key").to_pylist(), planned.column("key").to_pylist()
    for key, count in Counter(keys).items():
        if count > 1:
            report.add("index", name, f"key {key} is there {count} times")
    present, expected = set(keys), set(wanted)
    for key in wanted:
        if key not in present:
            report.add("index", name, f"sample {key} is missing")
    for key in keys:
        if key not in expected:
            report.add("index", name, f"sample {key} is not planned")
    if keys != wanted:
        if present == expected and len(keys) == len(wanted):
            report.add("index", name, "its rows are not in the planned order")
        return
    for column in PLANNED_COLUMNS:
        if not index.column(column).equals(planned.column(column)):
            pairs = zip(keys, index.column(column).to_pylist(), planned.column(column).to_pylist(), strict=True)
            for key, found, right in pairs:
                if found != right:
                    report.add("index", name, f"sample {key}: {column} is {found!r}, the manifest says {right!r}")
    rejected = zip(keys, index.column("status").to_pylist(), planned.column("status").to_pylist(), strict=True)
    for key, found, right in rejected:
        if (found == REJECTED) != (right == REJECTED):
            report.add("index", name, f"sample {key}: status is {found!r}, validation of the manifest says {right!r}")


def _successful_rows(url: str) -> Iterator[tuple[dict[str, Any], pa.Schema]]:
    with storage.open_arrow(url) as source:
        file = pq.ParquetFile(source)
        schema = file.schema_arrow
        for batch in file.iter_batches(_ROWS):
            for row in batch.to_pylist():
                if row["status"] == SUCCESS:
                    yield row, schema
