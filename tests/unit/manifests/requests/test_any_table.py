"""Any Arrow table at all: every row is planned or rejected with a message that names a column."""

from __future__ import annotations

import datetime
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from manifests.batch import Batch
from manifests.config import RunConfig
from manifests.errors import SUCCESS, ManifestError
from manifests.planning.plan import Plan, plan, window_batches
from manifests.requests import files
from manifests.requests.schema import REQUEST_NAMES, TASKS
from manifests.requests.validation import resolve

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
WORDS = st.one_of(
    st.sampled_from([*TASKS, "", " ", "512", "a.png", "white", "-1", "1e3", "nan", "inf", "0.5", "id"]),
    st.text(max_size=5),
)
NUMBERS = st.one_of(st.sampled_from([0, 1, 2, 4, 64, 512, 500, 100]), st.integers(-(2**31), 2**31 - 1))
FLOATS = st.one_of(st.sampled_from([0.0, 0.3, 1.0, 7.5, 64.0]), st.floats(width=32))
IMAGES = st.fixed_dictionaries({"bytes": st.none() | st.binary(max_size=3), "path": st.none() | WORDS})
CONDITIONS = st.fixed_dictionaries(
    {"text": st.none() | WORDS, "image": st.none() | IMAGES, "weight": st.none() | FLOATS}
)
CONDITION = pa.struct([("text", pa.string()), ("image", IMAGE), ("weight", pa.float32())])

#: Arrow types with values that fit them; any column may have any of them.
TYPES: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.null(), st.none()),
    (pa.string(), WORDS),
    (pa.large_string(), WORDS),
    (pa.dictionary(pa.int32(), pa.string()), WORDS),
    (pa.binary(), st.binary(max_size=4)),
    (pa.int64(), NUMBERS),
    (pa.uint64(), st.integers(0, 2**64 - 1)),
    (pa.float32(), FLOATS),
    (pa.float64(), FLOATS),
    (pa.bool_(), st.booleans()),
    (pa.decimal128(12, 2), st.decimals(-1000, 1000, places=2)),
    (pa.timestamp("us"), st.datetimes(datetime.datetime(1990, 1, 1), datetime.datetime(2030, 1, 1))),
    (pa.list_(pa.int32()), st.lists(st.integers(0, 9), max_size=2)),
    (IMAGE, IMAGES),
    (pa.struct([("other", pa.int8())]), st.fixed_dictionaries({"other": st.integers(0, 9)})),
    (pa.list_(CONDITION), st.lists(CONDITIONS, max_size=3)),
    (pa.large_list(CONDITION), st.lists(CONDITIONS, max_size=2)),
    (pa.list_(IMAGE, 2), st.lists(IMAGES, min_size=2, max_size=2)),
    (pa.list_(pa.list_(CONDITION)), st.lists(st.lists(CONDITIONS, max_size=1), max_size=2)),
    (pa.list_(pa.dictionary(pa.int8(), pa.string())), st.lists(WORDS, max_size=2)),
    (pa.struct([("bytes", pa.large_binary()), ("path", pa.large_string())]), IMAGES),
    (pa.struct([("path", pa.int64())]), st.fixed_dictionaries({"path": st.integers(0, 9)})),
    (pa.struct([("bytes", pa.string())]), st.fixed_dictionaries({"bytes": WORDS})),
    (pa.string_view(), WORDS),
    (pa.binary_view(), st.binary(max_size=4)),
    (pa.large_binary(), st.binary(max_size=4)),
    (pa.binary(3), st.binary(min_size=3, max_size=3)),
    (pa.dictionary(pa.int8(), pa.int64()), NUMBERS),
    (pa.dictionary(pa.int8(), pa.float64()), FLOATS),
    (pa.int8(), st.integers(-128, 127)),
    (pa.float16(), st.floats(width=16).map(np.float16)),
    (pa.decimal256(40, 10), st.decimals(-(10**12), 10**12, places=10)),
    (pa.date32(), st.dates()),
    (pa.date64(), st.dates()),
    (pa.time64("us"), st.times()),
    (pa.duration("us"), st.timedeltas(datetime.timedelta(-9), datetime.timedelta(9))),
    (pa.timestamp("ns", tz="UTC"), st.datetimes(datetime.datetime(1990, 1, 1), datetime.datetime(2030, 1, 1))),
    (pa.map_(pa.string(), pa.int64()), st.lists(st.tuples(WORDS, NUMBERS), max_size=2)),
    (pa.uuid(), st.binary(min_size=16, max_size=16)),
    (pa.json_(), st.sampled_from(["{}", "[1]", '"a"'])),
]

#: What a reasonable manifest has, so that some of the rows are valid.
USUAL: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "task": (pa.string(), st.sampled_from(TASKS)),
    "prompt": (pa.string(), st.text(max_size=5)),
    "image": (IMAGE, IMAGES),
    "mask": (pa.string(), st.sampled_from(["m.png", "/m.png"])),
    "conditions": (pa.list_(CONDITION), st.lists(CONDITIONS, max_size=3)),
    "num_images": (pa.int8(), st.integers(1, 3)),
    "height": (pa.int32(), st.sampled_from([64, 512, 500])),
    "id": (pa.string(), st.sampled_from(["a", "b", "c", "d", ""])),
    "seed": (pa.int64(), st.sampled_from([1, 2])),
    "extra": (pa.string(), WORDS),
}


#: Columns of no request; two of them have names that are no plain ones.
EXTRAS = ("extra", "seed.of", "manifest_key")


def array(values: list[Any], kind: pa.DataType) -> pa.Array:
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, pa.array(values, kind.storage_type))
    return pa.array(values, kind)


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    rows = draw(st.integers(0, 9))
    columns = {}
    for name in (*REQUEST_NAMES, *EXTRAS):
        how = draw(st.sampled_from(["usual", "usual", "absent", "any"]))
        if how == "absent" or (how == "usual" and name not in USUAL):
            continue
        kind, values = USUAL[name] if how == "usual" else draw(st.sampled_from(TYPES))
        column = draw(st.lists(st.none() | values if how == "any" else values, min_size=rows, max_size=rows))
        columns[name] = array(column, kind)
    if not columns:
        columns["extra"] = pa.nulls(rows)
    return pa.table(columns)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tables())
def test_every_row_is_valid_or_fails_with_a_message_that_names_a_column(table: pa.Table) -> None:
    resolved = resolve([table], RunConfig(manifest=("m",), output="out"))
    assert resolved.rows == table.num_rows
    assert set(resolved.errors) <= set(range(table.num_rows))
    for message in resolved.errors.values():
        assert message.split(":")[0] in REQUEST_NAMES


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tables(), tables(), st.integers(1, 4), st.integers(1, 6), st.integers(2, 7), st.booleans())
def test_driver_and_read_tasks_agree_on_any_manifest(
    first: pa.Table, second: pa.Table, batch_size: int, shard_size: int, window_rows: int, dedupe: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "WINDOW_ROWS", window_rows)
        patch.setattr(files, "DEDUPE_WINDOW_ROWS", window_rows)
        with tempfile.TemporaryDirectory() as folder:
            pq.write_table(first, Path(folder) / "a.parquet", row_group_size=4)
            # Other columns must agree over files; how they may differ is tested elsewhere.
            theirs = [name for name in EXTRAS if name in first.column_names and name in second.column_names]
            second = second.drop_columns(theirs)
            pq.write_table(second, Path(folder) / "b.parquet", row_group_size=3)
            job = RunConfig(
                manifest=(folder,), output="out", batch_size=batch_size, shard_size=shard_size, dedupe=dedupe
            )
            check(job, first.num_rows + second.num_rows, any(map(cannot_be_read, (first, second))))


def cannot_be_read(table: pa.Table) -> bool:
    """Arrow writes nulls of fixed-size lists to Parquet, and cannot read them."""
    return any(pa.types.is_fixed_size_list(column.type) and column.null_count for column in table.columns)


def planned_batches(job: RunConfig, planned: Plan) -> list[Batch]:
    return [batch for window in planned.windows for batch in window_batches(job, window)]


def check(job: RunConfig, rows: int, unreadable: bool) -> None:
    if unreadable:
        # The driver does not read the other columns.
        with pytest.raises(ManifestError, match=r"parquet: column '.*', rows \d+ to \d+ cannot be read"):
            planned_batches(job, plan(job))
        return
    planned = plan(job)
    batches = planned_batches(job, planned)
    assert planned.requests == rows
    samples = [sample for batch in batches for sample in batch.samples.to_pylist()]
    made = [sample for sample in samples if sample["status"] == SUCCESS]
    failed = [sample for sample in samples if sample["status"] != SUCCESS]
    assert len(made) == planned.samples
    assert len(failed) == planned.rejected
    assert {sample["manifest_row"] for sample in samples} == set(range(rows))
    told = {row for problem in planned.problems for row in problem.rows}
    assert told <= {sample["manifest_row"] for sample in failed}
    assert bool(told) == bool(failed)
    assert {problem.column for problem in planned.problems} <= set(REQUEST_NAMES)
    assert len({sample["manifest_row"] for sample in made}) + len(failed) == rows
    assert len({(sample["id"], sample["image_index"]) for sample in made}) == len(made)
    assert len({sample["key"] for sample in samples}) == len(samples)
    for number, shard in enumerate(planned.shards):
        mine = [batch for batch in batches if batch.shard == number]
        assert [batch.index for batch in mine] == list(range(shard.batches))
        assert sum(batch.samples.num_rows for batch in mine) == shard.rows
        assert {batch.bucket.task for batch in mine if batch.bucket} <= {shard.task}
    assert sum(batch.samples.num_rows for batch in batches if batch.bucket) == planned.samples
    assert all(len(batch.pending) <= job.batch_size for batch in batches)
    assert sum(len(batch.pending) for batch in batches) == sum(count.made for count in planned.buckets.values())


def test_an_unreadable_column_is_named_also_where_its_name_begins_like_a_requests(tmp_path: Path) -> None:
    lists = pa.array([[1, 2], None], pa.list_(pa.int8(), 2))
    pq.write_table(pa.table({"prompt": ["a", "b"], "seed": [1, 2], "seed.of": lists}), tmp_path / "m.parquet")
    with pytest.raises(ManifestError, match=r"parquet: column 'seed.of', rows 0 to 2 cannot be read"):
        plan(RunConfig(manifest=(str(tmp_path),), output="out"))
