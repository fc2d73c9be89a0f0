"""From the columns of any source to a manifest: renamed, filled, in the schema's types, written as Parquet.

A value that the schema's type cannot hold stops the making with its row and column. Rows whose values make no request
(sizes, ranges, missing prompts) are written, because a run accounts for them too, and told with their place.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifests import storage
from manifests.config import RunConfig
from manifests.errors import KandinskyBatchError, ManifestError, UsageError
from manifests.making.tables import ROWS, Source, Stream
from manifests.planning.image_locations import resolve_locations, unwrap_texts
from manifests.planning.lookalikes import meant
from manifests.records import MANIFEST_MARK
from manifests.requests import casting
from manifests.requests.columns import cast_requests
from manifests.requests.schema import IMAGE_COLUMNS, REQUEST_FIELDS, REQUEST_NAMES, RULES, complaint
from manifests.requests.validation import fitting_tasks, resolve

_TYPES: Mapping[str, pa.DataType] = {one.name: one.type for one in REQUEST_FIELDS}


@dataclass(frozen=True)
class Recipe:
    """What is done to every row.

    Attributes:
        renames: column of the source -> its new name.
        dropped: columns of the source that are left out.
        defaults: column -> its value, as text, where a row has none.
    """

    renames: Mapping[str, str]
    dropped: frozenset[str]
    defaults: Mapping[str, str]


@dataclass
class Made:
    """What was written.

    Attributes:
        rows: in all; `by_task` of each task.
        unusable: rows that no run can make, whatever its settings; `told` says of the first ones where they are in the
            source and why.
        notes: what the source has to say of itself.
    """

    rows: int = 0
    by_task: Counter[str] = field(default_factory=Counter)
    unusable: int = 0
    told: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


#: Rows that cannot be made are all counted; so many are told.
_TOLD = 10


def make(stream: Stream, recipe: Recipe, url: str) -> Made:
    """Write a manifest of everything that a source holds; it appears when it is whole.

    Row groups have 10,000 rows, except where images lie inline and make them large earlier.

    Raises:
        ManifestError: there are no rows, or a value does not fit its column.
        UsageError: the recipe names columns that are not there.
        StorageError: the manifest cannot be written.
    """
    made = Made(notes=list(stream.notes))
    folder = storage.folder_of(url)
    schema = _settled(shape(Source(stream.columns.empty_table(), url, 0), recipe, folder).schema)
    for name in schema.names:
        if (like := meant(name, schema.names)) is not None:
            made.notes.append(
                f"column '{name}' is kept and not used; did you mean {like}? Then say --map '{name}={like}'"
            )
    with storage.writing(url) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for table in _groups(_shaped(stream, recipe, schema, folder, made)):
            writer.write_table(table, row_group_size=ROWS)
        if not made.rows:
            raise ManifestError("the source has no rows; nothing was written")
    return made


def refuse_foreign(url: str, overwrite: bool) -> None:
    """Make sure that a manifest may be written here: nothing is, or a manifest that this program has made.

    Args:
        overwrite: the person says so, whatever it is.

    Raises:
        UsageError: another file is there, or a folder.
    """
    if storage.list_names(url) not in ([], [url.rpartition("/")[2]]):  # a file is listed as itself
        raise UsageError(f"{url} is a folder; give the name of a file in it")
    if not overwrite and storage.exists(url) and not _is_made_here(url):
        raise UsageError(
            f"{url} is there already, and no manifest that was made here; give another name, or say --overwrite"
        )


def _is_made_here(url: str) -> bool:
    try:
        with storage.open_arrow(url) as file:
            schema = pq.read_schema(file)
    except (OSError, pa.ArrowException, KandinskyBatchError):
        return False
    # Before there was a mark, the request columns' descriptions were in the schema, as they still are.
    described = any(one.name in _TYPES and b"description" in (one.metadata or {}) for one in schema)
    return described or MANIFEST_MARK.items() <= (schema.metadata or {}).items()


def _shaped(stream: Stream, recipe: Recipe, schema: pa.Schema, folder: str, made: Made) -> Iterator[pa.Table]:
    """The tables of a source in the schema, counted on their way."""
    # Without settings of a job: a row that fails now fails in all of them.
    config = RunConfig(manifest=(folder,), output=folder)
    for source in stream.tables:
        table = shape(source, recipe, folder).cast(schema)
        errors = resolve([table], config).errors
        made.rows += table.num_rows
        made.by_task.update(table.column("task").to_pylist())
        made.unusable += len(errors)
        first = itertools.islice(errors.items(), _TOLD - len(made.told))
        made.told += [f"{source.place(row)}: {reason}" for row, reason in first]
        yield table


#: Inline images make a row group large: it ends at about so many bytes.
_GROUP_BYTES = 256 << 20


def _groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The rows again in tables that are row groups."""
    waiting: list[pa.Table] = []
    rows = size = 0
    for table in tables:
        waiting.append(table)
        rows, size = rows + table.num_rows, size + table.nbytes
        while rows >= ROWS or size >= _GROUP_BYTES:
            whole = pa.concat_tables(waiting)
            yield whole.slice(0, ROWS).combine_chunks()
            waiting = [whole.slice(ROWS)] if rows > ROWS else []
            rows, size = sum(part.num_rows for part in waiting), sum(part.nbytes for part in waiting)
    if rows:
        yield pa.concat_tables(waiting).combine_chunks()


def _settled(schema: pa.Schema) -> pa.Schema:
    """Text for columns that have no value, and what the request schema says of its columns."""
    described = {one.name: one for one in REQUEST_FIELDS}
    fields = [one.with_type(pa.string()) if pa.types.is_null(one.type) else one for one in schema]
    return pa.schema([described.get(one.name, one) for one in fields], MANIFEST_MARK)


def shape(source: Source, recipe: Recipe, folder: str) -> pa.Table:
    """One table of a source, in the schema's columns and types; other columns follow as they are.

    Args:
        folder: of the manifest; locations below it are written as seen from there, so that it can be moved with them.

    Raises:
        ManifestError: a value does not fit its column.
        UsageError: the recipe names columns that are not there, or makes two of one name.
    """
    table = _renamed(source, recipe)
    raw = {name: _text_conditions(table.column(name), source) if name == "conditions" else table.column(name)
           for name in table.column_names if name in REQUEST_NAMES}  # fmt: skip
    for name, value in recipe.defaults.items():
        raw[name] = _filled(raw.get(name), value, table.num_rows)
    if not {"prompt", "conditions"} & raw.keys():
        names = source.table.column_names
        usual = [name for name in names if meant(name, names) == "prompt"]
        raise UsageError(
            f"the source has no column 'prompt' but {', '.join(names)}; name the one that holds the prompts with "
            f"--map {usual[0] if usual else 'COLUMN'}=prompt, or give all rows one with --set prompt=…"
        )
    for name in IMAGE_COLUMNS:
        if name in raw:
            raw[name] = _located(casting.to_image(casting.plain(raw[name])).array, source.url, folder)
    given = cast_requests([pa.table(raw)])
    for name, bad in given.misfits.items():
        if len(bad):
            row = int(bad[0])
            raise ManifestError(
                f"{source.place(row)}: {name}: {given.show(name, row)} cannot be {_TYPES[name]}; "
                "correct it, map another column, or leave the column out with --drop"
            )
    columns = {name: given.columns[name] for name in REQUEST_NAMES if name in raw}
    if "conditions" in columns:
        columns["conditions"] = _located_conditions(columns["conditions"], source.url, folder)
    guess = fitting_tasks(given)
    columns["task"] = pc.coalesce(columns["task"], guess) if "task" in columns else guess
    ordered = {name: _narrow(name, columns[name], source) for name in REQUEST_NAMES if name in columns}
    extras = {name: table.column(name) for name in table.column_names if name not in REQUEST_NAMES}
    return pa.table({**ordered, **extras})


def _renamed(source: Source, recipe: Recipe) -> pa.Table:
    table = source.table
    for name in (*recipe.renames, *recipe.dropped):
        if name not in table.column_names:
            raise UsageError(f"the source has no column {name!r} but {', '.join(table.column_names)}")
    table = table.select([name for name in table.column_names if name not in recipe.dropped])
    names = [recipe.renames.get(name, name) for name in table.column_names]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"two columns would be {name!r}; leave one of them out with --drop")
    return table.rename_columns(names)


def _filled(column: Any, value: str, rows: int) -> pa.Array:
    """The column with a value where it has none."""
    if column is None:
        return pa.repeat(pa.scalar(value), rows)
    plain = casting.plain(column)
    if plain.null_count == 0:
        return plain
    if not pa.types.is_string(plain.type):
        text = casting.to_text(plain)
        if len(text.bad):
            raise UsageError(f"option --set: a column of {plain.type} cannot be given a default")
        plain = text.array
    return pc.fill_null(plain, value)


def _text_conditions(column: Any, source: Source) -> Any:
    """Conditions that a format without lists holds as JSON text."""
    plain = casting.plain(column)
    if not pa.types.is_string(plain.type):
        return plain
    values = []
    for row, words in enumerate(plain.to_pylist()):
        try:
            values.append(None if words is None else json.loads(words))
        except ValueError:
            raise ManifestError(
                f"{source.place(row)}: conditions: {casting.shown(words)} is not JSON; write a "
                'list like [{"text": "a cat", "weight": 0.5}, {"image": {"path": "dog.png"}, "weight": 0.5}]'
            ) from None
    try:
        return pa.array(values)
    except pa.ArrowException as error:
        raise ManifestError(f"{source.url}: conditions: {str(error).splitlines()[0]}; give all rows one form") from None


def _located(column: pa.StructArray, url: str, folder: str) -> pa.StructArray:
    """Images whose locations count from the source's folder, with locations that count from the manifest's."""
    data, path = unwrap_texts(casting.field_of(column, "bytes"), casting.field_of(column, "path"))
    inside = folder.rstrip("/") + "/"
    absolute = resolve_locations(path, storage.folder_of(url))
    below = pc.utf8_slice_codeunits(absolute, len(inside))
    found = pc.if_else(pc.starts_with(absolute, inside), below, absolute)
    # Beside bytes a path is only a name.
    return pa.StructArray.from_arrays([data, pc.if_else(data.is_valid(), path, found)], ["bytes", "path"])


def _located_conditions(column: pa.ListArray, url: str, folder: str) -> pa.ListArray:
    values = column.values
    fields = {name: casting.field_of(values, name) for name in ("text", "image", "weight")}
    fields["image"] = _located(fields["image"], url, folder)
    located = pa.StructArray.from_arrays(list(fields.values()), list(fields))
    return pa.ListArray.from_arrays(column.offsets, located, mask=column.is_null())


def _narrow(name: str, column: pa.Array, source: Source) -> pa.Array:
    """The column in the type that is written, which for whole numbers is smaller than the one they are read in."""
    try:
        return column.cast(_TYPES[name])
    except pa.ArrowInvalid:
        low, high = -(2**31), 2**31 - 1
        rows = enumerate(column.to_pylist())
        row = next(row for row, value in rows if value is not None and not low <= value <= high)
        raise ManifestError(f"{source.place(row)}: {name}: {column[row]} is too large a number; correct it") from None


def check_defaults(defaults: Mapping[str, str]) -> None:
    """Refuse a number that no row may have, before it is in all of them.

    Raises:
        UsageError: it is outside what its column may have.
    """
    for name, text in defaults.items():
        if name in RULES:
            value = casting.to_number(pa.array([text]), RULES[name].kind).array[0].as_py()
            if value is None or not RULES[name].holds(value):
                raise UsageError(f"option --set: {complaint(name, repr(text), value)}")


def parse_pairs(option: str, words: Sequence[str]) -> dict[str, str]:
    """`NAME=VALUE` words as a dict.

    Raises:
        UsageError: a word has no `=`, or a name comes twice.
    """
    pairs: dict[str, str] = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not (name and sign) or name in pairs:
            raise UsageError(f"option {option}: give NAME=VALUE, each name once; got {word!r}")
        pairs[name] = value
    return pairs
