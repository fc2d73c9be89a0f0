"""Starting a large finished run again: one listing and the stats files, in little memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs import benchmark
from jobs.benchmarks.resume import measure

pytestmark = pytest.mark.faults

#: What the driver of a million images may take, with Ray's Python modules loaded.
MOST_BYTES = 600 << 20


def test_a_finished_run_of_a_million_images_has_nothing_to_do_and_fits_in_memory(tmp_path: Path) -> None:
    assert measure(tmp_path, 1_000_000, 1000).peak_bytes < MOST_BYTES
    report = json.loads((tmp_path / "out" / "_run" / "run.json").read_text())
    assert (report["written"], report["made"]) == (1_000_000, 0)


def test_the_benchmark_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main(["resume", "--images", "20", "--shard-size", "4"]) == 0
    *_, row = capsys.readouterr().out.splitlines()
    assert row.startswith("| 20 | 5 | ")
    assert row.endswith("| 1.00 |")
