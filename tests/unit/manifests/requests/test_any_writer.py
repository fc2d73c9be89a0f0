"""Manifests of any writer: types, columns named nearly as ours, folders that are columns, bytes that are no text.

Whatever comes: every row is planned or rejected, and what travels is what the files held.
"""

from __future__ import annotations

import datetime
import decimal
import string
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from manifests.config import RunConfig
from manifests.errors import ManifestError
from manifests.planning.plan import Plan, plan, window_batches
from manifests.planning.sources import describe
from manifests.records import extra_column_name
from manifests.requests.schema import REQUEST_NAMES

WHEN = st.datetimes(datetime.datetime(1400, 1, 1), datetime.datetime(2300, 1, 1))
WHOLE = st.one_of(st.sampled_from([0, 1, 2**53 + 1, -(2**53) - 1, 2**63 - 1]), st.integers(-(2**63), 2**63 - 1))
TEXT = st.text(max_size=4)

#: Types that writers give to a column, with values; columns of two files may have any two of them.
TYPES: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.int64(), WHOLE),
    (pa.int32(), st.integers(-(2**31), 2**31 - 1)),
    (pa.uint64(), st.integers(0, 2**64 - 1)),
    (pa.float64(), st.one_of(st.integers(-5, 5).map(float), st.floats(allow_nan=False))),
    (pa.float32(), st.floats(width=32, allow_nan=False)),
    (pa.decimal128(12, 2), st.decimals(-1000, 1000, places=2)),
    (pa.decimal128(38, 18), st.decimals(-1000, 1000, places=18)),
    (pa.timestamp("s"), WHEN.map(lambda time: time.replace(microsecond=0))),
    (pa.timestamp("us"), WHEN),
    (pa.timestamp("ns"), st.datetimes(datetime.datetime(1700, 1, 1), datetime.datetime(2200, 1, 1))),
    (pa.date32(), WHEN.map(datetime.datetime.date)),
    (pa.string(), TEXT),
    (pa.large_string(), TEXT),
    (pa.string_view(), TEXT),
    (pa.dictionary(pa.uint32(), pa.string()), TEXT),
    (pa.binary(), st.binary(max_size=4)),
    (pa.bool_(), st.booleans()),
    (pa.large_list(pa.int64()), st.lists(WHOLE, max_size=2)),
    (pa.list_(pa.float64()), st.lists(st.integers(-5, 5).map(float), max_size=2)),
    (pa.struct([("a", pa.int64())]), st.fixed_dictionaries({"a": WHOLE})),
    (pa.struct([("a", pa.float64())]), st.fixed_dictionaries({"a": st.integers(-5, 5).map(float)})),
    (pa.null(), st.none()),
]

NAMES = st.one_of(
    st.sampled_from(["Seed", " seed", "step", "cfg", "text", "num_inference_steps", "seed.of", "key", "Prompt", "a=b"]),
    st.sampled_from(REQUEST_NAMES).flatmap(
        lambda name: st.sampled_from([name.upper(), name.replace("_", " "), f"{name}s"])
    ),
    st.text(string.ascii_letters + "._- é", min_size=1, max_size=5),
).filter(lambda name: name not in REQUEST_NAMES)

#: Columns and values that folders' names may spell.
FOLDERS = st.dictionaries(
    st.one_of(st.sampled_from(["steps", "height", "lang", "Seed", "task"]), st.text("ab é%", min_size=1, max_size=3)),
    st.one_of(
        st.none(), st.sampled_from(["3", "512", "3.0", "tall", "text2img"]), st.text("ab/=%é ", min_size=1, max_size=4)
    ),
    max_size=2,
)


@st.composite
def files(draw: st.DrawFn) -> list[tuple[dict[str, str | None], pa.Table]]:
    """Tables with the columns that their folders give."""
    names = draw(st.lists(NAMES, unique=True, max_size=3))
    made = []
    for _ in range(draw(st.integers(1, 3))):
        rows = draw(st.integers(1, 4))
        columns: dict[str, Any] = {"task": ["text2img"] * rows, "prompt": ["x"] * rows}
        for name in names:
            kind, values = draw(st.sampled_from(TYPES))
            columns[name] = pa.array(draw(st.lists(st.none() | values, min_size=rows, max_size=rows)), kind)
        folders = draw(FOLDERS)
        made.append((folders, pa.table({n: column for n, column in columns.items() if n not in folders})))
    return made


def write(root: Path, number: int, folders: dict[str, str | None], table: pa.Table) -> None:
    path = root / f"{number}"
    for name, value in folders.items():
        spelled = "__HIVE_DEFAULT_PARTITION__" if value is None else quote(value, safe="")
        path = path / f"{quote(name, safe='')}={spelled}"
    path.mkdir(parents=True)
    pq.write_table(table, path / "part.parquet")


def planned_or_refused(job: RunConfig) -> tuple[Plan | None, str]:
    try:
        return plan(job), ""
    except ManifestError as error:
        return None, str(error)


def same(value: Any, expected: Any) -> bool:
    """Equal, where a number or a date may have become another type of the same value, and text its bytes."""
    if isinstance(expected, str) and isinstance(value, bytes):
        return value == expected.encode()
    if isinstance(expected, list) and isinstance(value, list):
        return len(value) == len(expected) and all(map(same, value, expected))
    if isinstance(expected, dict) and isinstance(value, dict):
        return all(same(value[name], inner) for name, inner in expected.items())
    if isinstance(value, decimal.Decimal) and isinstance(expected, float):
        return float(value) == expected
    if isinstance(expected, decimal.Decimal) and isinstance(value, float):
        # Equal where the decimal is the number that the double is written as.
        return decimal.Decimal(repr(value)) == expected
    if type(expected) is datetime.date and isinstance(value, datetime.datetime):
        return value.replace(tzinfo=None) == datetime.datetime.combine(expected, datetime.time())
    return bool(value == expected)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(files())
def test_no_row_is_dropped_and_no_value_that_travels_is_changed(
    made: list[tuple[dict[str, str | None], pa.Table]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for number, (folders, table) in enumerate(made):
            write(Path(folder), number, folders, table)
        job = RunConfig(manifest=(folder,), output="out")
        planned, refusal = planned_or_refused(job)
        if planned is None:
            # Types that do not go together, or two columns of one name.
            assert "column '" in refusal
            assert ".parquet" in refusal
            return
        assert describe(planned.sources)
        batches = [batch.samples for window in planned.windows for batch in window_batches(job, window)]
        samples = pa.concat_tables(batches).sort_by("manifest_row").to_pylist()
        assert [row["manifest_row"] for row in samples] == list(range(sum(table.num_rows for _, table in made)))
        expected = [row | folders for folders, table in made for row in table.to_pylist()]
        for sample, given_row in zip(samples, expected, strict=True):
            for name, value in given_row.items():
                if name not in REQUEST_NAMES:
                    assert same(sample[extra_column_name(name)], value), (name, sample[extra_column_name(name)], value)
        for sample, given_row in zip(samples, expected, strict=True):
            if sample["status"] == "success" and (given_row.get("steps") or "").strip():
                assert sample["steps"] == float(given_row["steps"])
