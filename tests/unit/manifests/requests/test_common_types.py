"""One type for a column over all files: no value is ever changed by it."""

from __future__ import annotations

import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.config import RunConfig
from manifests.errors import ManifestError
from manifests.planning.plan import plan, window_batches
from manifests.requests.casting import plain_field, plain_type
from manifests.requests.common_types import as_bytes, has_text

Y1500 = datetime.datetime(1500, 1, 1)
NANOS = pa.array([1], pa.timestamp("ns"))


def travelled(folder: Path, *columns: pa.Array) -> pa.ChunkedArray:
    """Column `tag` of one file each, after the way through plan and batches."""
    for number, column in enumerate(columns):
        table = {"task": ["text2img"] * len(column), "prompt": ["x"] * len(column), "tag": column}
        pq.write_table(pa.table(table), folder / f"{number}.parquet")
    job = RunConfig(manifest=(str(folder),), output="out")
    planned = plan(job)
    samples = pa.concat_tables(batch.samples for window in planned.windows for batch in window_batches(job, window))
    return samples.sort_by("manifest_row").column("tag")


GO_TOGETHER: list[tuple[list[pa.Array], pa.DataType]] = [
    ([pa.array([1], pa.int32()), pa.array([2], pa.int64())], pa.int64()),
    # What pandas makes of whole numbers with a gap.
    ([pa.array([2**53 + 1]), pa.array([1.0, None])], pa.int64()),
    ([pa.array([1]), pa.array([0.5])], pa.float64()),
    ([pa.array([-1], pa.int8()), pa.array([2**64 - 1], pa.uint64())], pa.decimal128(20, 0)),
    ([pa.array([Y1500], pa.timestamp("s")), NANOS.cast(pa.timestamp("us"), safe=False)], pa.timestamp("us")),
    ([pa.array([Y1500], pa.timestamp("s")), pa.array([1000], pa.timestamp("ns"))], pa.timestamp("us")),
    ([pa.array([datetime.datetime(2024, 1, 1)], pa.timestamp("s")), NANOS], pa.timestamp("ns")),
    ([pa.array([Decimal("0.50")]), pa.array([0.25])], pa.float64()),
    ([pa.array([0.125], pa.float32()), pa.array([Decimal("0.5")])], pa.float32()),
    ([pa.array([0.125]), pa.array([Decimal("0.5")])], pa.float64()),
    ([pa.array(["a"]), pa.array(["b"], pa.large_string())], pa.large_string()),
    ([pa.array(["a"]).dictionary_encode(), pa.array(["b"])], pa.string()),
    ([pa.array([[2**53 + 1]]), pa.array([[1.0]])], pa.list_(pa.int64())),
    ([pa.array([{"n": 2**53 + 1}]), pa.array([{"n": 1.0}])], pa.struct([("n", pa.int64())])),
]


def in_words(value: list[pa.Array] | pa.DataType | str) -> str:
    """A parameter's name, the same in every process."""
    return " and ".join(str(part.type) for part in value) if isinstance(value, list) else str(value)[:40]


@pytest.mark.parametrize(("columns", "kind"), GO_TOGETHER, ids=in_words)
def test_files_of_two_types_get_one_that_holds_all_values(
    tmp_path: Path, columns: list[pa.Array], kind: pa.DataType
) -> None:
    column = travelled(tmp_path, *columns)
    assert column.type == kind
    assert column.to_pylist() == [value for part in columns for value in part.to_pylist()]


DO_NOT: list[tuple[list[Any], str]] = [
    (
        [pa.array([1, 2**53 + 1]), pa.array([0.5])],
        "0.parquet: column 'tag', row 1: 9007199254740993 would change as double",
    ),
    (
        [pa.array([Y1500], pa.timestamp("s")), NANOS],
        "0.parquet: column 'tag', row 0: .*1500.* would change as timestamp",
    ),
    (
        [pa.array([Decimal("0.1234567890123456789")]), pa.array([1e30])],
        "would change as double, and the column is double in",
    ),
    ([pa.array([0.125], pa.float32()), pa.array([Decimal("0.1")])], "column 'tag', row 0: .* would change as float"),
    ([pa.array([1]), pa.array(["x"])], "column 'tag' is int64 in .*0.parquet but string in .*1.parquet"),
    ([pa.array([1], pa.timestamp("s")), pa.array([1], pa.timestamp("s", "UTC"))], "column 'tag' is timestamp"),
]


@pytest.mark.parametrize(("columns", "message"), DO_NOT, ids=in_words)
def test_values_that_no_type_holds_together_are_refused_with_file_column_and_row(
    tmp_path: Path, columns: list[pa.Array], message: str
) -> None:
    with pytest.raises(ManifestError, match=message):
        travelled(tmp_path, *columns)


def test_old_times_that_do_not_fit_are_refused_and_not_read_as_another_year(tmp_path: Path) -> None:
    times = pa.array([datetime.datetime(2024, 1, 1), Y1500], pa.timestamp("us"))
    table = pa.table({"task": ["text2img"] * 2, "prompt": ["x"] * 2, "tag": times})
    pq.write_table(table, tmp_path / "m.parquet", use_deprecated_int96_timestamps=True)
    with pytest.raises(ManifestError, match=r"column 'tag', row 1: .*1500.* cannot be read from Parquet's INT96"):
        plan(RunConfig(manifest=(str(tmp_path),), output="out"))
    pq.write_table(table.slice(0, 1), tmp_path / "m.parquet", use_deprecated_int96_timestamps=True)
    assert plan(RunConfig(manifest=(str(tmp_path),), output="out")).requests == 1


@pytest.mark.parametrize(
    ("column", "kind"),
    [
        (pa.array([b"ab\xff", b"cd", None]), pa.binary()),
        (pa.array([b"ab\xff", b"cd", None], pa.large_binary()), pa.large_binary()),
        (pa.array([[b"a", b"\xff"], [], None], pa.list_(pa.binary())), pa.list_(pa.binary())),
        (pa.array([{"t": b"\xff"}, {"t": b"b"}, None]), pa.struct([("t", pa.binary())])),
    ],
)
def test_text_that_is_not_utf8_travels_as_the_bytes_that_it_is(
    tmp_path: Path, column: pa.Array, kind: pa.DataType
) -> None:
    def text(kind: pa.DataType) -> pa.DataType:
        if pa.types.is_list(kind):
            return pa.list_(pa.string())
        if pa.types.is_struct(kind):
            return pa.struct([("t", pa.string())])
        return pa.large_string() if pa.types.is_large_binary(kind) else pa.string()

    # No cast: that would look at the bytes. A writer that does not look leaves them like this.
    unlooked = pa.Array.from_buffers if not pa.types.is_nested(kind) else None
    if unlooked is not None:
        column_of_text = unlooked(text(kind), len(column), column.buffers())
    elif pa.types.is_list(kind):
        values = pa.Array.from_buffers(pa.string(), len(column.values), column.values.buffers())
        column_of_text = pa.ListArray.from_arrays(column.offsets, values, mask=column.is_null())
    else:
        inner = pa.Array.from_buffers(pa.string(), len(column), column.field(0).buffers())
        column_of_text = pa.StructArray.from_arrays([inner], ["t"], mask=column.is_null())
    travelling = travelled(tmp_path, column_of_text)
    assert travelling.type == kind
    assert travelling.to_pylist() == column.to_pylist()
    [note] = plan(RunConfig(manifest=(str(tmp_path),), output="out")).sources.notes
    assert note == "column 'tag' has bytes that are not UTF-8, first in row 0; it travels as binary"


def test_an_extension_of_another_library_is_its_storage_whoever_has_imported_it() -> None:
    class Tensor(pa.ExtensionType):
        def __init__(self) -> None:
            super().__init__(pa.large_list(pa.float32()), "test.tensor")

        def __arrow_ext_serialize__(self) -> bytes:
            return b""

    known = pa.field("t", Tensor())
    # As it is read where the library was not imported; the file may call the list's values as it likes.
    metadata = {"ARROW:extension:name": "test.tensor", "ARROW:extension:metadata": ""}
    unknown = pa.field("t", pa.large_list(pa.field("element", pa.float32())), metadata=metadata)
    for inside in (
        lambda field: field,
        lambda field: pa.field("l", pa.list_(field)),
        lambda field: pa.field("s", pa.struct([field])),
    ):
        assert str(plain_field(inside(known))) == str(plain_field(inside(unknown)))
    assert plain_type(pa.list_(Tensor())) == pa.list_(pa.large_list(pa.float32()))
    plain = pa.struct([("a", pa.list_(pa.field("element", pa.int8())))])
    assert plain_type(plain) is plain
    assert plain_type(pa.uuid()) == pa.uuid()


def test_types_with_text_anywhere_have_a_form_without() -> None:
    kind = pa.struct([("a", pa.list_(pa.string())), ("m", pa.map_(pa.large_string(), pa.int8())), ("n", pa.int64())])
    bare = pa.struct([("a", pa.list_(pa.binary())), ("m", pa.map_(pa.large_binary(), pa.int8())), ("n", pa.int64())])
    assert as_bytes(kind) == bare
    assert has_text(kind)
    assert not has_text(bare)
