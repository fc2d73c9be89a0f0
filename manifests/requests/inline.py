"""Images that lie inline in a Parquet file: in which of its columns, and which rows have one, without reading them.

Parquet stores the bytes of a struct apart from its paths, and its footers count nulls, which is nearly always enough.
Columns that are bytes as a whole (binary, list<uint8>, as Polars, DuckDB and Spark write images) are brought into the
form struct<bytes, path> here, so that nobody else knows of them.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifests.requests.casting import field_of, plain, plain_type
from manifests.requests.schema import IMAGE_COLUMNS

_COLUMNS = (*IMAGE_COLUMNS, "conditions")

#: A location has no more bytes than this.
_LONGEST_LOCATION = 8192


def is_inline(leaf: str) -> bool:
    """True for a Parquet leaf path that holds image files, such as `image.bytes`."""
    parts = leaf.split(".")
    return parts[0] in _COLUMNS and len(parts) > 1 and parts[-1] == "bytes"


def size_of_images(footer: pq.FileMetaData, raw: Collection[str]) -> int:
    """Uncompressed bytes of the columns that hold images inline, `raw_images` among them."""
    size = 0
    for index in range(footer.num_row_groups):
        group = footer.row_group(index)
        for chunk in map(group.column, range(group.num_columns)):
            if is_inline(chunk.path_in_schema) or chunk.path_in_schema.split(".")[0] in raw:
                size += chunk.total_uncompressed_size
    return size


def raw_images(parquet: pq.ParquetFile) -> tuple[str, ...]:
    """Image columns that hold the bytes themselves.

    A binary column may hold locations as well, because old writers do not mark text: the first value tells.
    """
    schema = parquet.schema_arrow
    names = [name for name in IMAGE_COLUMNS if name in schema.names]
    kinds = {name: plain_type(schema.field(name).type) for name in names}
    return tuple(n for n in names if _is_bytes(kinds[n]) or (_is_binary(kinds[n]) and _begins_with_image(parquet, n)))


def _is_bytes(kind: pa.DataType) -> bool:
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(test(kind) for test in lists) and pa.types.is_uint8(kind.value_type)


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _begins_with_image(parquet: pq.ParquetFile, name: str) -> bool:
    for batch in parquet.iter_batches(batch_size=16, columns=[name]):
        for value in plain(batch.column(name)).to_pylist():
            if value:
                return not _is_location(value)
    return False


def _is_location(value: bytes) -> bool:
    try:
        return len(value) <= _LONGEST_LOCATION and value.decode().isprintable()
    except UnicodeDecodeError:
        return False


def from_bytes(table: pa.Table, name: str) -> pa.Table:
    """The table with an image column of `raw_images` as struct<bytes, path>."""
    column = plain(table.column(name))
    if not _is_binary(column.type):
        column = _joined(column)
    column = column.cast(pa.binary())
    paths = pa.nulls(len(column), pa.string())
    struct = pa.StructArray.from_arrays([column, paths], ["bytes", "path"], mask=column.is_null())
    return table.set_column(table.schema.get_field_index(name), name, struct)


def _joined(lists: pa.Array) -> pa.Array:
    """Binary from lists of bytes."""
    lengths = pc.list_value_length(lists).fill_null(0).to_numpy().astype(np.int64)
    data = pc.list_flatten(lists).fill_null(0).to_numpy()
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(data))]
    joined = pa.Array.from_buffers(pa.large_binary(), len(lists), buffers)
    return pc.if_else(lists.is_valid(), joined, pa.scalar(None, pa.large_binary()))


class Hints:
    """How to know which rows of a file have inline images, row group by row group."""

    def __init__(self, parquet: pq.ParquetFile, wanted: Collection[str]) -> None:
        self._parquet = parquet
        self._raw = tuple(name for name in raw_images(parquet) if name in wanted)
        schema = parquet.schema_arrow
        self._structs = tuple(
            name
            for name in IMAGE_COLUMNS
            if name in wanted
            and name in schema.names
            and pa.types.is_struct(schema.field(name).type)
            and _holds_bytes(schema.field(name).type)
        )

    @property
    def raw(self) -> tuple[str, ...]:
        """Wanted columns that hold the bytes themselves."""
        return self._raw

    def of(self, index: int) -> dict[str, str]:
        """Column -> what tells which rows of a row group have inline bytes.

        Returns:
            `none`: no row has; `all`: every row has; `struct`: exactly the rows whose struct is not null; `path`: it
            does not matter, because every other row has a path; `read`: only the bytes themselves tell.
        """
        structs = {name: self._of_struct(index, name) for name in self._structs}
        return structs | {name: self._of_bytes(index, name) for name in self._raw}

    def _of_bytes(self, index: int, name: str) -> str:
        group = self._parquet.metadata.row_group(index)
        chunks = {c.path_in_schema: c for c in map(group.column, range(group.num_columns))}
        statistics = chunks[name].statistics if name in chunks else None
        if statistics is None or not statistics.has_null_count:
            return "read"
        return {0: "all", group.num_rows: "none"}.get(statistics.null_count, "read")

    def _of_struct(self, index: int, name: str) -> str:
        group = self._parquet.metadata.row_group(index)
        chunks = {c.path_in_schema: c for c in map(group.column, range(group.num_columns))}
        statistics = chunks[f"{name}.bytes"].statistics
        if statistics is None or not statistics.has_null_count:
            return "read"
        filled = group.num_rows - statistics.null_count
        if filled == 0:
            return "none"
        if f"{name}.path" not in chunks:
            return "read"
        paths = self._parquet.read_row_group(index, columns=[f"{name}.path"]).column(name)
        structs = len(paths) - paths.null_count
        if filled == structs:
            return "struct"
        # An empty path counts as none.
        with_path = pc.sum(pc.not_equal(pc.struct_field(paths, "path"), "")).as_py() or 0
        return "path" if with_path == structs else "read"


def _holds_bytes(kind: pa.DataType) -> bool:
    index = kind.get_field_index("bytes")
    return index >= 0 and (pa.types.is_binary(kind[index].type) or pa.types.is_large_binary(kind[index].type))


def with_placeholders(table: pa.Table, name: str, hint: str) -> pa.Table:
    """The table with empty bytes in place of inline images."""
    if name in table.column_names:
        column = plain(table.column(name))
    else:
        # A struct of bytes alone has no other leaf to read.
        column = pa.nulls(table.num_rows, pa.struct([pa.field("path", pa.string())]))
    if hint == "read":
        filled = field_of(column, "bytes").is_valid()
    elif hint == "struct":
        filled = column.is_valid()
    else:
        filled = pa.array(np.full(table.num_rows, hint == "all"))
    empty = pc.if_else(filled, pa.scalar(b""), pa.scalar(None, pa.binary()))
    path = field_of(column, "path").cast(pa.string())
    mask = pc.and_(column.is_null(), pc.invert(filled))
    struct = pa.StructArray.from_arrays([empty, path], ["bytes", "path"], mask=mask)
    position = table.schema.get_field_index(name)
    return table.append_column(name, struct) if position < 0 else table.set_column(position, name, struct)
