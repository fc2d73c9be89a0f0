"""`jobs/benchmark.py make-manifest`: its whole path, on a size that says nothing about speed."""

from __future__ import annotations

import re

import pytest

from jobs import benchmark
from jobs.benchmarks.make_manifest import KINDS
from manifests.errors import UsageError


def test_each_kind_of_source_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main(["make-manifest", "--rows", "2000"]) == 0
    lines = capsys.readouterr().out.splitlines()[2:]
    assert len(lines) == len(KINDS)
    for kind, line in zip(KINDS, lines, strict=True):
        assert re.fullmatch(rf"\| {kind} \| 2,000 \| \d+\.\d \| [\d,]+ \| \d+ \| 1\.00 \|", line)


def test_sizes_are_multiples_of_the_number_of_prompts() -> None:
    with pytest.raises(UsageError, match="--rows: give multiples of 1000"):
        benchmark.main(["make-manifest", "--rows", "1500"])
