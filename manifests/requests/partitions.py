"""Columns that the names of a file's folders give (`steps=3/lang=en/`), as Hive, Spark and DuckDB write them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifests.errors import ManifestError
from manifests.requests import casting
from manifests.requests.columns import cast_request
from manifests.requests.schema import REQUEST_NAMES

Pairs = tuple[tuple[str, str | None], ...]


def constants(url: str, pairs: Pairs, parquet: pq.ParquetFile) -> Pairs:
    """The columns of the folders' names that the file itself does not have.

    Raises:
        ManifestError: two folders give one column, or the file has the column with another value.
    """
    for name, count in Counter(name for name, _ in pairs).items():
        if count > 1:
            raise ManifestError(f"{url}: {count} of its folders give the column '{name}'; rename all but one")
    for name, value in pairs:
        if name in parquet.schema_arrow.names:
            _compare(url, name, value, parquet)
    return tuple(pair for pair in pairs if pair[0] not in parquet.schema_arrow.names)


def _compare(url: str, name: str, value: str | None, parquet: pq.ParquetFile) -> None:
    start = 0
    for batch in parquet.iter_batches(columns=[name]):
        column = batch.column(name)
        other = _other(name, value, column)
        if len(other):
            row = int(other[0])
            raise ManifestError(
                f"{url}: column '{name}' is {casting.shown(column[row])} in row {start + row} of the file and "
                f"{casting.shown(value)} in the name of its folder; correct one of them"
            )
        start += batch.num_rows


def _other(name: str, value: str | None, column: pa.Array) -> casting.Positions:
    """Positions where a file's column differs from the text of a folder's name, read in the column's type."""
    text = pa.array([value], pa.string())
    if name in REQUEST_NAMES:
        column, said = cast_request(name, column).array, cast_request(name, text).array[0]
        if pa.types.is_nested(column.type):
            return np.flatnonzero([one != said.as_py() for one in column.to_pylist()])
    else:
        column = casting.plain(column)
        try:
            said = text.cast(column.type)[0]
        except pa.ArrowException:
            column, said = casting.to_text(column).array, text[0]
    if not said.is_valid:
        return casting.positions(column.is_valid())
    return casting.positions(pc.fill_null(pc.not_equal(column, said), True))
