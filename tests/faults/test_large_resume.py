"""Starting a large finished run again: one listing and the stats files, in memory that hardly grows.

`python jobs/benchmark.py resume` measures a million images.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs import benchmark
from jobs.benchmarks.resume import measure

pytestmark = pytest.mark.faults

#: What the driver of a million images may take, with Ray's Python modules loaded.
MOST_BYTES = 600 << 20


def test_a_finished_run_has_nothing_to_do_and_memory_hardly_grows(tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    (tmp_path / "large").mkdir()
    small = measure(tmp_path / "small", 20_000, 100)
    large = measure(tmp_path / "large", 200_000, 100)
    per_image = (large.peak_bytes - small.peak_bytes) / (large.images - small.images)
    assert small.peak_bytes + per_image * 1_000_000 < MOST_BYTES
    report = json.loads((tmp_path / "large" / "out" / "_run" / "run.json").read_text())
    assert (report["written"], report["made"]) == (200_000, 0)


def test_the_benchmark_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main(["resume", "--images", "20", "--shard-size", "4"]) == 0
    *_, row = capsys.readouterr().out.splitlines()
    assert row.startswith("| 20 | 5 | ")
    assert row.endswith("| 1.00 |")
