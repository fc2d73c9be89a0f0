"""Manifests for benchmarks, written one row group at a time: their size does not show in the memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def text2img_columns(numbers: range) -> Mapping[str, Any]:
    """Columns of plain requests with ids, for the rows of these numbers."""
    return {
        "id": [str(number) for number in numbers],
        "task": ["text2img"] * len(numbers),
        "prompt": [f"a prompt of a fair length, number {number % 1000}" for number in numbers],
    }


def write_manifest(
    path: Path, rows: int, columns: Callable[[range], Mapping[str, Any]] = text2img_columns, row_group: int = 100_000
) -> None:
    """Write a manifest of so many rows.

    Args:
        columns: makes the columns of the rows of these numbers; it is asked in ascending order.
        row_group: rows that are made and written together.
    """
    # Here: `--help` should not wait for it.
    import pyarrow as pa
    import pyarrow.parquet as pq

    groups = (
        pa.table(dict(columns(range(start, min(start + row_group, rows))))) for start in range(0, rows, row_group)
    )
    first = next(groups)
    with pq.ParquetWriter(path, first.schema) as writer:
        writer.write_table(first)
        for group in groups:
            writer.write_table(group)
