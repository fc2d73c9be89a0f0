"""What a manifest can be made of: each source as a stream of Arrow tables of some thousand rows. Here are the files:

    jsonl, parquet, text        files of any number, globs, URLs; .gz, .bz2 and .zst are unpacked on the way

`delimited.py` (CSV and TSV), `coco.py`, `image_folder.py` and `product.py` beside this file read or make the others.
Columns keep the names and the values of the source; `writing.py` brings them into the schema.
"""

from __future__ import annotations

import io
import itertools
import json
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from manifests import storage
from manifests.errors import ManifestError
from manifests.planning.sources import gather_left_out
from manifests.requests.casting import plain_type
from manifests.requests.common_types import join_types
from manifests.requests.files import Manifest, cut_windows, open_manifest
from manifests.requests.reading import Reader

#: Rows of one table, and of one row group of what is written.
ROWS = 10_000

_PACKINGS = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}


@dataclass(frozen=True)
class Source:
    """A table of some source.

    Attributes:
        table: with the columns of the source.
        url: of the file it is from; relative locations count from that file's folder.
        first_row: of the table in that file, from 0; headers and blank lines do not count.
    """

    table: pa.Table
    url: str
    first_row: int

    def place(self, row: int) -> str:
        """Where a row of the table is, for messages."""
        return f"{self.url}: row {self.first_row + row}"


@dataclass(frozen=True)
class Stream:
    """A source as a whole.

    Attributes:
        columns: of all tables, known before the first one is read. The types are those of the tables, but for columns
            that have a request column's name.
        tables: its rows, in order.
        notes: what a person should know of how the source was read, or of what was not.
    """

    columns: pa.Schema
    tables: Iterable[Source]
    notes: tuple[str, ...] = ()


_PROMPT = pa.schema([pa.field("prompt", pa.string())])


def find(locations: Sequence[str], suffixes: tuple[str, ...], marks: bool = True) -> tuple[list[str], tuple[str, ...]]:
    """The files that locations stand for, each once, in order; and in sentences what lies there and is left out.

    Args:
        marks: names that begin with `_` are no data.

    Raises:
        ManifestError: a location stands for none.
    """
    listings = [storage.find(location, suffixes, marks) for location in locations]
    for location, found in zip(locations, listings, strict=True):
        if not found.files:
            raise ManifestError(f"{location}: nothing there; name a file, a glob, or a folder of {', '.join(suffixes)}")
    urls = list(dict.fromkeys(url for found in listings for url in found.files))
    left_out, _ = gather_left_out(listings, set(urls))
    return urls, tuple(left.in_words for left in left_out)


def open_unpacked(url: str) -> pa.NativeFile:
    """A file's bytes, unpacked where its name says that it is packed."""
    try:
        file = storage.open_arrow(url)
    except FileNotFoundError:
        raise ManifestError(f"{url}: no such file") from None
    packing = _PACKINGS.get(posixpath.splitext(url)[1])
    return file if packing is None else pa.CompressedInputStream(file, packing)


def jsonl(urls: Sequence[str]) -> Stream:
    """Objects, one per line; a key that a line lacks is null in it.

    The files are read twice, because only the last line tells which columns there are and what type holds all of their
    values. Where a column has texts beside numbers, or numbers that no type holds together, all become text, and so do
    objects that are always empty, which Parquet cannot hold.

    Raises:
        ManifestError: a line is not an object, or a column has values that do not go together.
    """
    kinds: dict[str, pa.DataType] = {}
    for url, row, objects in _objects(urls):
        for name in dict.fromkeys(name for one in objects for name in one):
            known = kinds.get(name, pa.null())
            kind = _join(known, [one.get(name) for one in objects])
            if kind is None:
                raise ManifestError(
                    f"{url}: column {name!r} holds values of types that do not go together in rows {row} to "
                    f"{row + len(objects) - 1}{'' if pa.types.is_null(known) else f' or before, where it is {known}'}; "
                    f"give all of them one form, or leave it out with --drop {name}"
                )
            kinds[name] = kind
    columns = pa.schema([pa.field(n, pa.string() if _has_empty_object(kind) else kind) for n, kind in kinds.items()])
    return Stream(columns, (Source(_table(objects, columns), url, row) for url, row, objects in _objects(urls)))


def _objects(urls: Sequence[str]) -> Iterator[tuple[str, int, list[Mapping[str, Any]]]]:
    """File, first row, and objects of some thousand lines at a time."""
    for url in urls:
        row = 0
        for chunk in chunks(_lines(url)):
            yield url, row, _parse(chunk, url, row)
            row += len(chunk)


def _parse(lines: Sequence[str], url: str, first_row: int) -> list[Mapping[str, Any]]:
    """The objects of some lines: all in one call, which is much faster; one by one where that fails."""
    joined = ",".join(lines)
    try:
        # Escapes of half a character need a look at each line.
        values = json.loads(f"[{joined}]") if "\\ud" not in joined.lower() else []
    except (ValueError, RecursionError):
        values = []
    if len(values) == len(lines) and all(isinstance(value, dict) for value in values):
        return values
    return [_object(line, url, first_row + place) for place, line in enumerate(lines)]


def _object(line: str, url: str, row: int) -> Mapping[str, Any]:
    try:
        value = json.loads(line)
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ManifestError(f"{url}: row {row} has half a character ({error.reason}); write the row again") from error
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{url}: row {row} is not JSON ({error}); every line must be one object") from error
    if not isinstance(value, dict):
        raise ManifestError(f"{url}: row {row} is {type(value).__name__}, not an object; every line must be one")
    return value


def _join(known: pa.DataType, values: Sequence[Any]) -> pa.DataType | None:
    """A type that holds these values and those of a known type; None where lists or objects stand beside others."""
    nested = pa.types.is_nested(known) or any(isinstance(value, (dict, list)) for value in values)
    try:
        kind = join_types(known, pa.array(values).type)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        kind = None
    # As text each value keeps its meaning, and the schema's cast reads numbers again.
    return kind if kind is not None or nested else pa.string()


def _has_empty_object(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind):
        return _has_empty_object(kind.value_type)
    return bool(pa.types.is_struct(kind)) and (kind.num_fields == 0 or any(_has_empty_object(one.type) for one in kind))


def _table(objects: Sequence[Mapping[str, Any]], columns: pa.Schema) -> pa.Table:
    arrays = []
    for field in columns:
        values = [one.get(field.name) for one in objects]
        if pa.types.is_string(field.type):
            values = [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]
        elif pa.types.is_floating(field.type):
            values = [None if value is None else float(value) for value in values]
        arrays.append(pa.array(values, field.type))
    return pa.table(arrays, schema=columns)


def parquet(urls: Sequence[str]) -> Stream:
    """Rows of Parquet files.

    Raises:
        ManifestError: a file is not Parquet, or two files have a column in types that do not go together.
    """
    manifest = open_manifest(urls)
    kinds = {field.name: plain_type(field.type) for file in manifest.files for field in file.schema}
    kinds.update((name, pa.string()) for file in manifest.files for name, _ in file.constants if name not in kinds)
    kinds.update((field.name, field.type) for field in manifest.extras)
    columns = pa.schema([pa.field(name, kind) for name, kind in kinds.items()])
    return Stream(columns, _parquet_tables(manifest, columns))


def _parquet_tables(manifest: Manifest, columns: pa.Schema) -> Iterator[Source]:
    with Reader(extras=manifest.extras) as reader:
        for piece in itertools.chain.from_iterable(cut_windows(manifest, ROWS)):
            fragment = reader.read([piece])
            assert fragment.extras is not None
            start = 0
            # Request columns are in the types of their file, which is one file here, so there is one table.
            for table in fragment.tables:
                others = fragment.extras.slice(start, table.num_rows)
                found = {name: table.column(name) for name in table.column_names} | {
                    name: others.column(name) for name in others.column_names
                }
                arrays = [found.get(name, pa.nulls(table.num_rows)) for name in columns.names]
                yield Source(pa.table(arrays, names=columns.names), piece.url, piece.start + start)
                start += table.num_rows


def text(urls: Sequence[str]) -> Stream:
    """One prompt per line, as column `prompt`; blank lines do not count."""
    return Stream(_PROMPT, _text_tables(urls))


def _text_tables(urls: Sequence[str]) -> Iterator[Source]:
    for url in urls:
        row = 0
        for chunk in chunks(_lines(url)):
            yield Source(pa.table([pa.array(chunk, pa.string())], schema=_PROMPT), url, row)
            row += len(chunk)


def _lines(url: str) -> Iterator[str]:
    """Lines that are not blank, without blanks around them."""
    with open_unpacked(url) as raw, io.BufferedReader(raw) as lines:
        row = 0
        for number, line in enumerate(lines):
            try:
                words = line.decode("utf-8-sig" if number == 0 else "utf-8").strip()
            except UnicodeDecodeError as error:
                raise ManifestError(
                    f"{url}: row {row} is not UTF-8 ({error.reason}); write the file again as UTF-8"
                ) from error
            if words:
                yield words
                row += 1


def chunks(items: Iterable[Any], size: int = ROWS) -> Iterator[list[Any]]:
    """The items in lists of a size, the last one shorter."""
    iterator = iter(items)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk
