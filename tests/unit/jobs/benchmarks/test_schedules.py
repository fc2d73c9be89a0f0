"""`jobs/benchmark.py schedules`: the simulation against arithmetic, and what it says of runs of an hour and more."""

from __future__ import annotations

import pytest

from jobs import benchmark
from jobs.benchmarks.schedules import Run, compare, phases, pools


def test_two_pools_take_as_long_as_the_slower_one() -> None:
    long = Run(cards=8, batches=7000, seconds=10, share=0.02)
    seconds, first = pools(long, prior=1, loading=60)
    assert seconds == pytest.approx(7000 * 9.8 / 7, rel=0.005)
    assert first == pytest.approx(10)
    # A prior that sets the pace.
    seconds, _ = pools(Run(cards=8, batches=700, seconds=10, share=0.5), prior=1, loading=60)
    assert seconds == pytest.approx(700 * 5, rel=0.01)


def test_the_decoder_gets_the_priors_cards_when_they_have_its_model() -> None:
    few = Run(cards=2, batches=8, seconds=10, share=0.1)
    # All is embedded at 8; with a second card from 8 or from 1000 on.
    assert pools(few, prior=1, loading=0)[0] == pytest.approx(1 + 9 + 4 * 9, abs=9)
    assert pools(few, prior=1, loading=1000)[0] == pytest.approx(1 + 8 * 9)


def test_phases_take_all_cards_and_the_time_of_loading() -> None:
    load = Run(cards=4, batches=400, seconds=10, share=0.1)
    assert phases(load, pieces=1, together=1, loading=60) == pytest.approx((1000 + 60, 100 + 60 + 9), abs=1.5)
    assert phases(load, pieces=2, together=1, loading=60)[0] == pytest.approx(1000 + 3 * 60, abs=1.5)


def test_a_driver_moves_so_many_rows_a_second_and_several_batches_in_a_row() -> None:
    short = Run(cards=64, batches=6400, seconds=10, share=0.01)
    one, several = (phases(short, 1, together, loading=0)[0] for together in (1, 8))
    assert one - several == pytest.approx(6400 / 30 - 800 / 30, rel=0.05)


@pytest.mark.parametrize("cards", [8, 16, 64])
@pytest.mark.parametrize("share", [0.02, 0.085])
@pytest.mark.parametrize("hours", [1, 8])
def test_auto_keeps_97_of_100_cards_busy_and_more_than_before(cards: int, share: float, hours: int) -> None:
    found = compare(Run(cards, hours * 180 * cards, 20, share))
    assert found.auto >= 0.97
    assert found.auto >= max(found.eighth, 0.99 * found.pools)
    assert found.first_images < 45 * 60


def test_it_prints_a_line_for_each_size(capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main(["schedules", "--cards", "8", "--hours", "1", "--prior-share", "0.02", "0.125"]) == 0
    *_, small, even = capsys.readouterr().out.splitlines()
    assert small.startswith("| 8 | 1 | 2.0% | 0.8")
    assert "| phases |" in small
    assert "| pools |" in even
