"""`_run/errors.parquet`: the failed requests of an output as a manifest, for mending and making in another output."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.run import run_folder
from manifests import storage
from manifests.commit import ShardStats, index_name
from manifests.errors import SUCCESS, StorageError
from manifests.records import CONDITION_TYPE, IMAGE_TYPE, RECORD_NAMES
from manifests.requests.schema import REQUEST_FIELDS, REQUEST_NAMES

NAME = "errors.parquet"

#: Why a request failed, as columns that travel through another run unchanged.
REASON_NAMES = ("failed_status", "failed_message")


def write_errors(output: str, stats: Sequence[ShardStats]) -> int:
    """Write the manifest of what failed; where nothing did, one of an earlier report goes.

    A request has a row where any of its images failed; `num_images` then reaches to the last that did. Images that lay
    inline in the manifest are not in the index, so such rows have the path that came with them, or none.

    Rows of an index that cannot be read are not among them.

    Returns:
        How many requests it has.

    Raises:
        StorageError: the file cannot be written.
    """
    url = storage.join(output, run_folder.FOLDER, NAME)
    numbers = [shard.shard for shard in stats if shard.failed]
    if not numbers:
        storage.remove(url)
        return 0
    last_image: dict[int, int] = {}
    for table in _failed(output, numbers, ["manifest_row", "image_index", "status"]):
        pairs = zip(table["manifest_row"].to_pylist(), table["image_index"].to_pylist(), strict=True)
        for row, image in pairs:
            last_image[row] = max(image, last_image.get(row, 0))
    written: set[int] = set()
    with storage.writing(url) as sink:
        writer = None
        for table in _failed(output, numbers, None):
            rows = table["manifest_row"].to_pylist()
            first = {row: position for position, row in reversed(list(enumerate(rows))) if row not in written}
            written.update(first)
            requests = _requests(table.take(pa.array(sorted(first.values()), pa.int64())), last_image)
            if writer is None:
                writer = pq.ParquetWriter(sink, requests.schema)
            writer.write_table(requests)
        if writer is not None:
            writer.close()
    return len(written)


def _failed(output: str, shards: Sequence[int], columns: list[str] | None) -> Iterator[pa.Table]:
    for shard in shards:
        try:
            with storage.open_arrow(storage.join(output, index_name(shard))) as source:
                table = pq.ParquetFile(source).read(columns=columns)
        except (StorageError, OSError, pa.ArrowException):
            continue  # The page tells which indexes are damaged, and verify.py mends them.
        yield table.filter(pc.not_equal(table["status"], SUCCESS))


def _requests(records: pa.Table, last_image: dict[int, int]) -> pa.Table:
    """Rows of the index as rows of a manifest, with the manifest's other columns behind them."""
    columns: dict[str, pa.Array | pa.ChunkedArray] = {
        "image": _images(records["image_path"]),
        "mask": _images(records["mask_path"]),
        "conditions": pa.array(
            [_conditions(row) for row in records["conditions"].to_pylist()], pa.list_(CONDITION_TYPE)
        ),
        "num_images": pa.array([last_image[row] + 1 for row in records["manifest_row"].to_pylist()], pa.int32()),
    }
    fields = {field.name: field for field in REQUEST_FIELDS}
    for name in REQUEST_NAMES:
        columns.setdefault(name, records[name] if name in records.column_names else pa.nulls(records.num_rows))
    ordered = {name: columns[name].cast(fields[name].type) for name in REQUEST_NAMES}
    reasons = dict(zip(REASON_NAMES, (records["status"], records["error_message"]), strict=True))
    others = {name: records[name] for name in records.column_names if name not in {*RECORD_NAMES, *ordered, *reasons}}
    return pa.table({**ordered, **reasons, **others})


def _images(paths: pa.ChunkedArray) -> pa.Array:
    return pa.array([None if path is None else {"bytes": None, "path": path} for path in paths.to_pylist()], IMAGE_TYPE)


def _conditions(conditions: list[dict[str, object]] | None) -> list[dict[str, object]] | None:
    return conditions and [
        {**one, "image": None if one["image"] is None else {"bytes": None, "path": one["image"]}} for one in conditions
    ]
