"""Reading windows of the manifest: only the row groups and columns that are needed, each decoded once.

The driver needs to know whether a row has an inline image, never the image (`inline.py`). The images of `conditions`
are the exception: they are read, because only they tell which condition has one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType

import numpy as np
import pyarrow as pa

from manifests import storage
from manifests.errors import ManifestError
from manifests.requests.casting import plain
from manifests.requests.files import Piece, open_parquet
from manifests.requests.inline import Hints, from_bytes, is_inline, with_placeholders
from manifests.requests.schema import REQUEST_NAMES

#: Rows are decoded in runs of about so many bytes, so that a row group of inline images is never held whole.
_RUN_BYTES = 64 << 20
_RUN_ROWS = 10_000


@dataclass(frozen=True)
class Fragment:
    """The rows of one window.

    Attributes:
        tables: the request columns as the files have them, one table per run of rows with equal types.
        extras: the other columns in their common types; None where they were not asked for.
        bases: the folder that relative locations are meant from, one for all rows or one per row.
    """

    tables: tuple[pa.Table, ...]
    extras: pa.Table | None
    bases: str | pa.Array


class Reader:
    """Reads windows; consecutive ones go on where the last one ended, so that no row group is decoded twice.

    Args:
        columns: request columns to read.
        extras: names and types of the other columns to read; None for none of them.
        inline: read inline images; otherwise `image` and `mask` get empty bytes where there are some.
    """

    def __init__(
        self,
        columns: Collection[str] = REQUEST_NAMES,
        extras: pa.Schema | None = None,
        inline: bool = True,
    ) -> None:
        self._columns = frozenset(columns)
        self._extras = extras
        self._extra_names = frozenset(() if extras is None else extras.names)
        self._inline = inline
        self._cursor: _Cursor | None = None

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file that is open, if one is."""
        if self._cursor is not None:
            self._cursor.close()
            self._cursor = None

    def read(self, pieces: Sequence[Piece]) -> Fragment:
        """The rows of a window.

        Raises:
            ManifestError: a file has changed, vanished, or is damaged.
        """
        requests: list[pa.Table] = []
        extras: list[pa.Table] = []
        for piece in pieces:
            table = _with_constants(self._read_piece(piece), piece, self._columns | self._extra_names)
            requests.append(_counted(table.select([n for n in table.column_names if n in self._columns])))
            if self._extras is not None:
                extras.append(_conform(table, self._extras, piece.url))
        return Fragment(
            tables=_merge_runs(requests),
            extras=pa.concat_tables(extras) if self._extras is not None else None,
            bases=_bases(pieces),
        )

    def _read_piece(self, piece: Piece) -> pa.Table:
        cursor = self._cursor
        if cursor is None or cursor.url != piece.url or cursor.row > piece.start:
            self.close()
            wanted = self._columns | self._extra_names
            cursor = self._cursor = _Cursor(piece.url, wanted, self._inline)
        try:
            return cursor.take(piece.start, piece.stop)
        except (pa.ArrowException, OSError) as error:
            where = ""
            with contextlib.suppress(pa.ArrowException, OSError):
                where = cursor.unreadable(piece)
            raise ManifestError(
                f"{piece.url}: {where}rows {piece.start} to {piece.stop} cannot be read ({error}); "
                "the file is damaged, was replaced while the job ran, or has a type that Arrow writes but cannot read, "
                "so write it again, as plain columns or lists"
            ) from error


def _bases(pieces: Sequence[Piece]) -> str | pa.Array:
    folders = [storage.folder_of(piece.url) for piece in pieces]
    if len(set(folders)) == 1:
        return folders[0]
    return pa.array(np.repeat(np.array(folders, object), [piece.stop - piece.start for piece in pieces]))


def _merge_runs(tables: Sequence[pa.Table]) -> tuple[pa.Table, ...]:
    """Join neighbours of one schema: casting a few long columns is much cheaper than many short ones."""
    runs: list[list[pa.Table]] = []
    for table in tables:
        bare = table.replace_schema_metadata(None)
        if runs and runs[-1][0].schema.equals(bare.schema):
            runs[-1].append(bare)
        else:
            runs.append([bare])
    return tuple(pa.concat_tables(run) for run in runs)


def _with_constants(table: pa.Table, piece: Piece, wanted: Collection[str]) -> pa.Table:
    """The table with the wanted columns that the names of the file's folders give."""
    for name, value in piece.constants:
        if name in wanted:
            table = table.append_column(name, pa.repeat(pa.scalar(value, pa.string()), table.num_rows))
    return table


def _conform(table: pa.Table, schema: pa.Schema, url: str) -> pa.Table:
    """The table's columns in the order and types of a schema, null where it lacks one."""
    columns = []
    for field in schema:
        if field.name not in table.column_names:
            columns.append(pa.nulls(table.num_rows, field.type))
            continue
        column = plain(table.column(field.name))
        try:
            columns.append(column if column.type == field.type else column.cast(field.type))
        except pa.ArrowException as error:
            raise ManifestError(
                f"{url}: column '{field.name}' cannot be brought to {field.type} ({error}); write all files "
                "of the manifest with one type"
            ) from error
    return pa.table(columns, schema=schema)


def _counted(table: pa.Table) -> pa.Table:
    """The table, with a column of nulls if it has none: Arrow forgets how many rows such a table has."""
    return table if table.num_columns else pa.table({"\0rows": pa.nulls(table.num_rows)})


class _Cursor:
    """A place in one Parquet file, which moves forward only."""

    def __init__(self, url: str, wanted: Collection[str], inline: bool) -> None:
        self.url = url
        self.row = 0
        self._file = open_parquet(url)
        self._wanted = wanted
        self._inline = inline
        self._hints = Hints(self._file, wanted)
        self._runs: Iterator[pa.Table] | None = None
        self._rest: pa.Table | None = None

    def close(self) -> None:
        self._runs = self._rest = None
        self._file.close()

    def take(self, start: int, stop: int) -> pa.Table:
        """Rows `start` to `stop`; `start` must not lie before the cursor."""
        if self._runs is None or (start > self.row and self._group_of(start) != self._group_of(self.row)):
            self.row, first = self._group_of(start)
            self._runs, self._rest = self._read(first), None
        parts: list[pa.Table] = []
        while self.row < stop:
            run = self._rest if self._rest is not None else next(self._runs, None)
            self._rest = None
            if run is None:
                raise OSError(f"it ends at row {self.row}")
            skip = min(max(start - self.row, 0), run.num_rows)
            used = min(stop - self.row, run.num_rows)
            if used > skip:
                parts.append(run.slice(skip, used - skip))
            if used < run.num_rows:
                self._rest = run.slice(used)
            self.row += used
        return pa.concat_tables(parts)

    def unreadable(self, piece: Piece) -> str:
        """Which column is at fault, as far as reading them one by one tells: `column 'x', ` or nothing."""
        first, last = (self._group_of(row)[1] for row in (piece.start, piece.stop - 1))
        group = self._file.metadata.row_group(first)
        leaves = [group.column(column).path_in_schema for column in range(group.num_columns)]
        # Longest first, because the name of one column may be how another's begins.
        for name in sorted(self._file.schema_arrow.names, key=len, reverse=True):
            mine = [leaf for leaf in leaves if self._is_wanted(leaf) and f"{leaf}.".startswith(f"{name}.")]
            try:
                for _ in self._file.iter_batches(row_groups=list(range(first, last + 1)), columns=mine):
                    pass
            except (pa.ArrowException, OSError):
                return f"column '{name}', "
        return ""

    def _group_of(self, row: int) -> tuple[int, int]:
        """First row and index of the row group that holds a row."""
        begin = 0
        for index in range(self._file.metadata.num_row_groups):
            rows = self._file.metadata.row_group(index).num_rows
            if row < begin + rows:
                return begin, index
            begin += rows
        raise OSError(f"it has {begin} rows only")

    def _read(self, first: int) -> Iterator[pa.Table]:
        for index in range(first, self._file.metadata.num_row_groups):
            yield from self._read_group(index)

    def _read_group(self, index: int) -> Iterator[pa.Table]:
        group = self._file.metadata.row_group(index)
        hints = {} if self._inline else self._hints.of(index)
        unread = {name for name, hint in hints.items() if hint != "read"}
        leaves = [
            leaf
            for leaf in (group.column(column).path_in_schema for column in range(group.num_columns))
            if self._is_wanted(leaf) and not (leaf.split(".", 1)[0] in unread and self._is_image(leaf))
        ]
        per_row = max(1, group.total_byte_size // max(group.num_rows, 1))
        rows = max(1, min(_RUN_ROWS, _RUN_BYTES // per_row))
        for batch in self._file.iter_batches(rows, row_groups=[index], columns=leaves):
            table = pa.Table.from_batches([batch])
            for name in self._hints.raw:
                if name not in unread:
                    table = from_bytes(table, name)
            for name, hint in hints.items():
                table = with_placeholders(table, name, hint)
            yield _counted(table)

    def _is_image(self, leaf: str) -> bool:
        return is_inline(leaf) or leaf.split(".", 1)[0] in self._hints.raw

    def _is_wanted(self, leaf: str) -> bool:
        # A column's own name may hold dots, so any beginning of the leaf's path may be its name.
        parts = leaf.split(".")
        return any(".".join(parts[: end + 1]) in self._wanted for end in range(len(parts)))
