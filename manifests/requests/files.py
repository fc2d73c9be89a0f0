"""The manifest's files: found once, their footers read once, and their rows cut into windows.

A window is a range of consecutive rows of the concatenated manifest. It is the unit that is planned in one
go, on the driver and again in a read task, so its size bounds the memory of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from manifests import storage
from manifests.errors import ManifestError, StorageError, first_line
from manifests.requests.casting import plain_type
from manifests.requests.schema import REQUEST_NAMES

_SUFFIXES = (".parquet", ".parq", ".pq")

#: A window holds about so many uncompressed bytes at most (rows with inline images), and at least one row.
WINDOW_BYTES = 256 << 20

#: A window holds so many rows at most, or one shard's worth where that is more.
WINDOW_ROWS = 10_000

#: The same where equal rows are looked for, which is done inside of a window.
DEDUPE_WINDOW_ROWS = 100_000

#: Rows worth sending to another process to be surveyed.
STRETCH_ROWS = 100_000


@dataclass(frozen=True)
class SourceFile:
    """One Parquet file of the manifest.

    Attributes:
        url: absolute location.
        rows: rows in all its row groups.
        groups: (rows, uncompressed bytes) of each row group.
        schema: its Arrow schema.
        inline_bytes: uncompressed bytes of the columns that hold images inline.
    """

    url: str
    rows: int
    groups: tuple[tuple[int, int], ...]
    schema: pa.Schema
    inline_bytes: int


@dataclass(frozen=True)
class Manifest:
    """All files of the manifest, in order.

    Attributes:
        files: in the order that rows are counted in.
        extras: name and type of every column outside the request schema, over all files.
    """

    files: tuple[SourceFile, ...]
    extras: pa.Schema

    @property
    def rows(self) -> int:
        """Number of requests."""
        return sum(file.rows for file in self.files)


@dataclass(frozen=True)
class Piece:
    """Rows `start` to `stop` (exclusive) of one file."""

    url: str
    start: int
    stop: int


def open_manifest(locations: Sequence[str]) -> Manifest:
    """Find the manifest's files and read their footers.

    Args:
        locations: files, globs, folders or URLs. They count in the order given, what one location stands for
            in alphabetical order, and a file that is named twice counts once.

    Raises:
        ManifestError: nothing is there, a file is not Parquet, or two files have a column in types that do
            not go together.
    """
    urls: dict[str, None] = {}
    for location in locations:
        found = storage.find_files(location, _SUFFIXES)
        if not found:
            raise ManifestError(
                f"{location}: no manifest there; name a Parquet file, a folder of *.parquet files, or a glob"
            )
        urls.update(dict.fromkeys(found))
    with ThreadPoolExecutor(8) as pool:
        files = tuple(pool.map(_read_footer, urls))
    return Manifest(files, _unify_extras(files))


def open_parquet(url: str) -> pq.ParquetFile:
    """A Parquet file, opened for reading; the caller closes it.

    Raises:
        ManifestError: it is missing or not Parquet.
    """
    try:
        file = storage.open_arrow(url)
    except FileNotFoundError:
        raise ManifestError(f"{url}: no such file; check the manifest's location") from None
    except StorageError as error:
        raise ManifestError(str(error)) from error
    try:
        # Reading ahead saves round trips to an object store; a local disk does not need it.
        return pq.ParquetFile(file, pre_buffer=storage.is_remote(url))
    except (pa.ArrowException, OSError) as error:
        file.close()
        raise ManifestError(
            f"{url}: not a readable Parquet file ({first_line(error)}); "
            "write the manifest with pyarrow, pandas or datasets"
        ) from error


def _read_footer(url: str) -> SourceFile:
    parquet = open_parquet(url)
    try:
        footer, schema = parquet.metadata, parquet.schema_arrow
        groups, inline = [], 0
        for index in range(footer.num_row_groups):
            group = footer.row_group(index)
            groups.append((group.num_rows, group.total_byte_size))
            chunks = (group.column(column) for column in range(group.num_columns))
            inline += sum(chunk.total_uncompressed_size for chunk in chunks if is_inline(chunk.path_in_schema))
    except (pa.ArrowException, OSError) as error:
        raise ManifestError(
            f"{url}: its Parquet footer cannot be used ({first_line(error)}); write it again"
        ) from error
    finally:
        parquet.close()
    for name in schema.names:
        if schema.names.count(name) > 1:
            raise ManifestError(f"{url}: column '{name}' appears twice; rename one of them")
    return SourceFile(url, footer.num_rows, tuple(groups), schema, inline)


def is_inline(leaf: str) -> bool:
    """True for a Parquet leaf path that holds image files, such as `image.bytes`."""
    parts = leaf.split(".")
    return parts[0] in ("image", "mask", "conditions") and len(parts) > 1 and parts[-1] == "bytes"


def _unify_extras(files: Sequence[SourceFile]) -> pa.Schema:
    """One type for every column outside the request schema; request columns may differ from file to file."""
    kinds: dict[str, tuple[pa.DataType, str]] = {}
    for file in files:
        for field in file.schema:
            if field.name in REQUEST_NAMES:
                continue
            if field.name not in kinds:
                kinds[field.name] = (plain_type(field.type), file.url)
                continue
            kind, first = kinds[field.name]
            joined = join_types(kind, plain_type(field.type))
            if joined is None:
                raise ManifestError(
                    f"column '{field.name}' is {kind} in {first} but {field.type} in {file.url}; "
                    "write both with one type, or rename one of them"
                )
            kinds[field.name] = (joined, first)
    return pa.schema([pa.field(name, kind) for name, (kind, _) in kinds.items()])


def join_types(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """The type that holds the values of both; None where there is none."""
    if one == other:
        return one
    signed = pa.types.is_signed_integer(one) or pa.types.is_signed_integer(other)
    if signed and pa.uint64() in (one, other) and all(map(pa.types.is_integer, (one, other))):
        # Arrow would take int64, which half of uint64 does not fit in.
        return pa.decimal128(20, 0)
    try:
        schemas = [pa.schema([pa.field("column", kind)]) for kind in (one, other)]
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except pa.ArrowException:
        return None


def cut_windows(
    manifest: Manifest, shard_size: int, ends: Sequence[int] = (), dedupe: bool = False
) -> list[tuple[Piece, ...]]:
    """Cut the manifest's rows into windows.

    A window ends after `WINDOW_ROWS` rows (or `shard_size`, if that is more), or earlier where the footers
    say that about `WINDOW_BYTES` are full, which happens where images lie inline.

    Args:
        ends: rows after which a window ends in any case, ascending: where the manifest ended before more rows were
            appended to it, so that the windows before that stay what they were.
        dedupe: up to `DEDUPE_WINDOW_ROWS` instead.
    """
    most = max(DEDUPE_WINDOW_ROWS if dedupe else WINDOW_ROWS, shard_size)
    windows: list[tuple[Piece, ...]] = []
    pieces: list[Piece] = []
    rows_left, bytes_left = most, float(WINDOW_BYTES)
    row, stops = 0, list(ends)
    for file in manifest.files:
        start = 0
        for rows, size in file.groups:
            per_row = max(1.0, size / max(rows, 1))
            stop = start + rows
            while start < stop:
                if stops and row == stops[0]:
                    stops.pop(0)
                    windows.append(tuple(pieces))
                    pieces, rows_left, bytes_left = [], most, float(WINDOW_BYTES)
                to_stop = stops[0] - row if stops else rows
                take = min(stop - start, rows_left, int(bytes_left // per_row), to_stop)
                if take < 1 and pieces:
                    windows.append(tuple(pieces))
                    pieces, rows_left, bytes_left = [], most, float(WINDOW_BYTES)
                    continue
                take = max(take, 1)
                _extend(pieces, Piece(file.url, start, start + take))
                start += take
                row += take
                rows_left -= take
                bytes_left -= take * per_row
    if pieces:
        windows.append(tuple(pieces))
    return windows


def cut_stretches(manifest: Manifest, windows: Sequence[tuple[Piece, ...]]) -> list[list[tuple[Piece, ...]]]:
    """Put neighbouring windows together for processes that shall not decode the same row groups.

    A stretch has `STRETCH_ROWS` or a little more, and whole row groups where these are larger than that: who begins
    inside a row group has to decode it from its start.
    """
    starts = {
        file.url: np.cumsum([0, *(rows for rows, _ in file.groups[:-1])], dtype=np.int64) for file in manifest.files
    }
    stretches: list[list[tuple[Piece, ...]]] = []
    rows, place = 0, None
    for window in windows:
        first = window[0]
        before, place = place, (first.url, int(np.searchsorted(starts[first.url], first.start, side="right")))
        if not stretches or (rows >= STRETCH_ROWS and place != before):
            stretches.append([])
            rows = 0
        stretches[-1].append(window)
        rows += sum(piece.stop - piece.start for piece in window)
    return stretches


def _extend(pieces: list[Piece], piece: Piece) -> None:
    if pieces and pieces[-1].url == piece.url:
        piece = Piece(piece.url, pieces.pop().start, piece.stop)
    pieces.append(piece)
