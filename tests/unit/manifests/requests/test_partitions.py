"""Folders whose names are columns (`steps=3/lang=en/`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.config import RunConfig
from manifests.errors import ManifestError
from manifests.planning.plan import plan, window_batches
from manifests.planning.sources import describe


def write(path: Path, **columns: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"prompt": ["x", "y"], **columns}), path)


def rows(folder: Path | str, *columns: str) -> list[dict[str, Any]]:
    job = RunConfig(manifest=(str(folder),), output="out")
    batches = [batch for window in plan(job).windows for batch in window_batches(job, window)]
    samples = pa.concat_tables(batch.samples for batch in batches).sort_by("manifest_row")
    return list(samples.select(columns).to_pylist())


def test_request_columns_and_others_are_taken_from_folders(tmp_path: Path) -> None:
    write(tmp_path / "task=text2img" / "steps=3" / "lang=a%2Fb" / "p.parquet")
    write(tmp_path / "task=text2img" / "steps=4" / "lang=__HIVE_DEFAULT_PARTITION__" / "p.parquet")
    write(tmp_path / "bare.parquet", task=["text2img", "text2img"], steps=[5, 6])
    found = rows(tmp_path, "task", "steps", "lang", "status")
    assert [row["steps"] for row in found] == [5, 6, 3, 3, 4, 4]
    assert [row["lang"] for row in found] == [None, None, "a/b", "a/b", None, None]
    assert {(row["task"], row["status"]) for row in found} == {("text2img", "success")}


def test_a_value_that_breaks_a_rule_fails_its_rows_as_in_a_file(tmp_path: Path) -> None:
    write(tmp_path / "task=text2img" / "height=tall" / "p.parquet")
    [problem] = plan(RunConfig(manifest=(str(tmp_path),), output="out")).problems
    assert problem.example.startswith("height: 'tall' is not a multiple of 64")


def test_a_column_may_be_in_the_file_as_well_where_both_agree(tmp_path: Path) -> None:
    for name, values in (("steps=3", [3, 3]), ("n=1.50", pa.array([1.5, 1.5])), ("day=2024-01-02", ["2024-01-02"] * 2)):
        column = name.partition("=")[0]
        write(tmp_path / column / name / "p.parquet", task=["text2img"] * 2, **{column: values})
        assert [row[column] for row in rows(tmp_path / column, column)] == (
            values.to_pylist() if isinstance(values, pa.Array) else values
        )


@pytest.mark.parametrize(
    ("folder", "values", "message"),
    [
        ("steps=3", [3, 4], r"column 'steps' is 4 in row 1 of the file and '3' in the name of its folder"),
        ("lang=en", ["en", None], r"column 'lang' is null in row 1 of the file and 'en' in the name"),
        ("lang=__HIVE_DEFAULT_PARTITION__", ["en", "en"], r"column 'lang' is 'en' in row 0 of the file and null in"),
        ("n=x", [1, 2], r"column 'n' is 1 in row 0 of the file and 'x' in the name"),
    ],
)
def test_a_column_in_file_and_folder_that_disagree_is_refused(
    tmp_path: Path, folder: str, values: list[Any], message: str
) -> None:
    write(tmp_path / folder / "p.parquet", **{folder.partition("=")[0]: values})
    with pytest.raises(ManifestError, match=message):
        plan(RunConfig(manifest=(str(tmp_path),), output="out"))


def test_two_folders_of_one_column_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "steps=3" / "steps=4" / "p.parquet")
    with pytest.raises(ManifestError, match="2 of its folders give the column 'steps'"):
        plan(RunConfig(manifest=(str(tmp_path),), output="out"))


def test_a_folder_above_what_was_named_is_no_column_and_told(tmp_path: Path) -> None:
    write(tmp_path / "steps=3" / "p.parquet", task=["text2img"] * 2)
    inside = tmp_path / "steps=3"
    assert [row["steps"] for row in rows(inside, "steps")] == [100, 100]
    assert [row["steps"] for row in rows(f"{tmp_path}/steps=*", "steps")] == [3, 3]
    lines = describe(plan(RunConfig(manifest=(str(inside),), output="out")).sources)
    assert lines[1].startswith("above what was named: steps=3, which gives no column 'steps'")
