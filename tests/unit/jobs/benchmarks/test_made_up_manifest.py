"""Made-up manifests have as many rows as asked for, in row groups, with every row's own values."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from jobs.benchmarks.made_up_manifest import write_manifest


def test_rows_come_in_row_groups_and_in_order(tmp_path: Path) -> None:
    write_manifest(tmp_path / "m.parquet", 25, row_group=10)
    file = pq.ParquetFile(tmp_path / "m.parquet")
    assert [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)] == [10, 10, 5]
    assert file.read().column("id").to_pylist() == [str(number) for number in range(25)]
