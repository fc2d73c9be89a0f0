"""`jobs/benchmark.py plan`: its whole path, on a size that says nothing about speed."""

from __future__ import annotations

import re

import pytest

from jobs import benchmark
from jobs.benchmarks.plan import Planned, table
from manifests.errors import UsageError


def test_a_size_is_planned_with_ids_and_without(capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main(["plan", "--rows", "11000"]) == 0
    _, _, own, made = capsys.readouterr().out.splitlines()
    figures = r"\d+\.\d \| [\d,]+ \| \d+ \| 1\.00 \|"
    assert re.fullmatch(rf"\| 11,000 \| in the manifest \| {figures}", own)
    assert re.fullmatch(rf"\| 11,000 \| made from the content \| {figures}", made)


def test_memory_is_held_against_the_first_size_of_the_same_kind() -> None:
    rows = [Planned(10, True, 1.0, 200 << 20), Planned(20, True, 1.0, 300 << 20), Planned(10, False, 2.0, 100 << 20)]
    assert [line.split("|")[-2].strip() for line in table(rows).splitlines()[2:]] == ["1.00", "1.50", "1.00"]


def test_a_size_below_one_is_refused() -> None:
    with pytest.raises(UsageError, match="--rows: give numbers of 1 or more"):
        benchmark.main(["plan", "--rows", "0"])
