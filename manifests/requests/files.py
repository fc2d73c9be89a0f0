"""The manifest's files: found once, their footers read once, and their rows cut into windows.

A window is a range of consecutive rows of the concatenated manifest. It is the unit that is planned in one
go, on the driver and again in a read task, so its size bounds the memory of both.
"""

from __future__ import annotations

import functools
import re
import shlex
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from manifests import storage
from manifests.errors import ManifestError, StorageError, first_line
from manifests.requests import partitions
from manifests.requests.casting import plain, plain_field, shown
from manifests.requests.common_types import common_type, lost
from manifests.requests.inline import raw_images, size_of_images
from manifests.requests.schema import REQUEST_NAMES
from manifests.storage import Found

_SUFFIXES = (".parquet", ".parq", ".pq")

#: Names of files that jobs/make_manifest.py makes manifests of.
_TABLE = re.compile(r"\.(csv|tsv|jsonl|ndjson|txt)(\.gz|\.bz2|\.zst)?$")

#: A window holds about so many uncompressed bytes at most (rows with inline images), and at least one row.
WINDOW_BYTES = 256 << 20

#: A window holds so many rows at most, or one shard's worth where that is more.
WINDOW_ROWS = 10_000

#: The same where equal rows are looked for, which is done inside of a window.
DEDUPE_WINDOW_ROWS = 100_000

#: Rows worth sending to another process.
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
        constants: columns that the names of its folders give, with their value; none of them is in the file itself.
        old_times: columns of times in Parquet's old form, which Arrow reads as nanoseconds whether they fit or not.
    """

    url: str
    rows: int
    groups: tuple[tuple[int, int], ...]
    schema: pa.Schema
    inline_bytes: int
    constants: tuple[tuple[str, str | None], ...] = ()
    old_times: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all columns, those of its folders last."""
        return (*self.schema.names, *(name for name, _ in self.constants))


@dataclass(frozen=True)
class Manifest:
    """All files of the manifest, in order.

    Attributes:
        files: in the order that rows are counted in.
        extras: name and type of every column outside the request schema, over all files.
        found: what each of the locations stands for.
    """

    files: tuple[SourceFile, ...]
    extras: pa.Schema
    found: tuple[Found, ...] = ()

    @property
    def rows(self) -> int:
        """Number of requests."""
        return sum(file.rows for file in self.files)


@dataclass(frozen=True)
class Piece:
    """Rows `start` to `stop` (exclusive) of one file, with the file's `constants`."""

    url: str
    start: int
    stop: int
    constants: tuple[tuple[str, str | None], ...] = ()


def open_manifest(locations: Sequence[str]) -> Manifest:
    """Find the manifest's files and read their footers.

    Args:
        locations: files, globs, folders or URLs. They count in the order given, what one location stands for
            in alphabetical order, and a file that is named twice counts once.

    Raises:
        ManifestError: nothing is there, a file is not Parquet, a column is in the name of a folder and in the file with
            another value, or no type holds the values that a column has in all files.
    """
    found = {location: storage.find(location, _SUFFIXES) for location in locations}
    places: dict[str, Found] = {}
    for location, listing in found.items():
        if not listing.files:
            tables = [name for names in listing.left_out.values() for name in names if _source_option(name)]
            if tables:
                raise ManifestError(f"{location}: no Parquet file there; {_made_of(tables[0])}")
            left = sum(map(len, listing.left_out.values()))
            aside = f" (what is there is left out: {next(iter(listing.left_out))})" if left else ""
            raise ManifestError(
                f"{location}: no manifest there{aside}; name a Parquet file, a folder of *.parquet files, or a glob"
            )
        for url in listing.files:
            places.setdefault(url, listing)
    with ThreadPoolExecutor(8) as pool:
        files = tuple(pool.map(_read_footer, places, (place.partition_of(url) for url, place in places.items())))
    return Manifest(files, _unify_extras(files), tuple(found.values()))


def open_parquet(url: str, unit: str | None = None) -> pq.ParquetFile:
    """A Parquet file, opened for reading; the caller closes it.

    Args:
        unit: of times in Parquet's old form; Arrow's default is nanoseconds.

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
        return pq.ParquetFile(file, pre_buffer=storage.is_remote(url), coerce_int96_timestamp_unit=unit)
    except (pa.ArrowException, OSError) as error:
        file.close()
        if _source_option(url) is not None:
            raise ManifestError(f"{url} is no Parquet file; {_made_of(url)}") from error
        raise ManifestError(
            f"{url}: not a readable Parquet file ({first_line(error)}); "
            "write the manifest with pyarrow, pandas or datasets"
        ) from error


def _source_option(url: str) -> str | None:
    """The option of make_manifest.py that reads a file of this name; None where none does."""
    found = _TABLE.search(url)
    return None if found is None else {"txt": "--text", "ndjson": "--jsonl"}.get(found[1], f"--{found[1]}")


def _made_of(url: str) -> str:
    """How a table becomes a manifest, in words."""
    option = _source_option(url)
    return f"make a manifest of it: python jobs/make_manifest.py {option} {shlex.quote(url)} --output NEW.parquet"


def _read_footer(url: str, pairs: tuple[tuple[str, str | None], ...]) -> SourceFile:
    parquet = open_parquet(url)
    try:
        footer, schema = parquet.metadata, parquet.schema_arrow
        groups = [
            (group.num_rows, group.total_byte_size) for group in map(footer.row_group, range(footer.num_row_groups))
        ]
        inline = size_of_images(footer, raw_images(parquet))
        leaves = (footer.schema.column(index) for index in range(footer.num_columns))
        old = tuple(leaf.path for leaf in leaves if leaf.physical_type == "INT96")
        for name in schema.names:
            if schema.names.count(name) > 1:
                raise ManifestError(f"{url}: column '{name}' appears twice; rename one of them")
        constants = partitions.constants(url, pairs, parquet)
    except (pa.ArrowException, OSError) as error:
        raise ManifestError(
            f"{url}: its Parquet footer cannot be used ({first_line(error)}); write it again"
        ) from error
    finally:
        parquet.close()
    return SourceFile(url, footer.num_rows, tuple(groups), schema, inline, constants, old)


def _unify_extras(files: Sequence[SourceFile]) -> pa.Schema:
    """One type for every column outside the request schema; request columns may differ from file to file."""
    kinds: dict[str, dict[str, pa.DataType]] = {}
    for file in files:
        for field in (*file.schema, *(pa.field(name, pa.string()) for name, _ in file.constants)):
            if field.name not in REQUEST_NAMES:
                kinds.setdefault(field.name, {})[file.url] = plain_field(field)
        for name in file.old_times:
            if name in file.schema.names and name not in REQUEST_NAMES:
                _check_old_times(file.url, name)
    by_url = {file.url: file for file in files}

    def values(name: str, url: str) -> Iterator[pa.Array]:
        constants = dict(by_url[url].constants)
        return iter([pa.array([constants[name]])]) if name in constants else read_column(url, name)

    fields = []
    for name, of_files in kinds.items():
        fields.append(pa.field(name, common_type(name, of_files, functools.partial(values, name))))
    return pa.schema(fields)


def read_column(url: str, name: str, unit: str | None = None) -> Iterator[pa.Array]:
    """The values of one column of a file, some thousand at a time, without encodings.

    Args:
        unit: of times in Parquet's old form; Arrow's default is nanoseconds.
    """
    parquet = open_parquet(url, unit)
    try:
        for batch in parquet.iter_batches(columns=[name]):
            yield plain(batch.column(name))
    except (pa.ArrowException, OSError, KeyError) as error:
        raise ManifestError(f"{url}: column '{name}' cannot be read ({first_line(error)}); write it again") from error
    finally:
        parquet.close()


def _check_old_times(url: str, name: str) -> None:
    """Refuse times in Parquet's old form that do not fit in nanoseconds, because Arrow reads other years for them."""
    start = 0
    for array in read_column(url, name, "us"):
        bad = lost(array, pa.timestamp("ns"))
        if len(bad):
            raise ManifestError(
                f"{url}: column '{name}', row {start + int(bad[0])}: {shown(array[int(bad[0])])} cannot be read from "
                "Parquet's INT96; write it with spark.sql.parquet.outputTimestampType=TIMESTAMP_MICROS"
            )
        start += len(array)


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
                _extend(pieces, Piece(file.url, start, start + take, file.constants))
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
        piece = replace(piece, start=pieces.pop().start)
    pieces.append(piece)
