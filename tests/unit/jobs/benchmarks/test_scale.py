"""`jobs/benchmark.py scale`: its arithmetic, and one small run of the real job on sleeping devices."""

from __future__ import annotations

import pytest

from jobs import benchmark
from jobs.benchmarks.scale import steady_share


def test_the_steady_share_counts_only_the_time_in_which_all_actors_have_work() -> None:
    late = [(10.0, 12.0), (12.5, 14.5), (15.0, 17.0)]
    early = [(0.0, 2.0), (9.0, 11.0), (11.0, 13.0)]
    # From 10 to 13: the first works 2.5 s of 3, the second all of it.
    assert steady_share([late, early]) == pytest.approx(5.5 / 6)


def test_actors_that_never_worked_at_the_same_time_have_no_steady_share() -> None:
    assert steady_share([[(0.0, 1.0)], [(2.0, 3.0)]]) == 0.0


@pytest.mark.ray
def test_a_run_is_one_line_of_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main(["scale", "--actors", "2", "--seconds", "0.5", "--batches", "3"]) == 0
    *_, row = capsys.readouterr().out.splitlines()
    seconds, actors, steady, whole, start = row.strip("| ").split(" | ")
    assert (seconds, actors) == ("0.5", "2")
    assert 0 < float(whole) < 1
    assert 0 <= float(steady) <= 1
    assert float(start) > 0
