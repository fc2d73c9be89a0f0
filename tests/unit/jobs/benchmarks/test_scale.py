"""`jobs/benchmark.py scale`: its arithmetic, and one small run of the real job on sleeping cards in either schedule."""

from __future__ import annotations

import pytest

from jobs import benchmark
from jobs.benchmarks.scale import Load, figures, steady_share


def test_the_steady_share_counts_only_the_time_in_which_all_actors_have_work() -> None:
    late = [(10.0, 12.0), (12.5, 14.5), (15.0, 17.0)]
    early = [(0.0, 2.0), (9.0, 11.0), (11.0, 13.0)]
    # From 10 to 13: the first works 2.5 s of 3, the second all of it.
    assert steady_share([late, early]) == pytest.approx(5.5 / 6)


def test_actors_that_never_worked_at_the_same_time_have_no_steady_share() -> None:
    assert steady_share([[(0.0, 1.0)], [(2.0, 3.0)]]) == 0.0


def test_cards_busy_counts_the_priors_card_and_the_time_that_cards_load() -> None:
    # Two cards, four batches of 10 s each at double speed: 20 s of work for each card.
    load = Load(cards=2, seconds=10, share=0.2, batches=4, faster=2)
    prior = [("prior", float(start), start + 1.0) for start in range(8)]
    decoder = [("decoder", 2.0 + 4 * batch, 6.0 + 4 * batch) for batch in range(8)]
    found = figures(load, "pools", -3.0, [prior, decoder], end=40.0)
    assert found.cards == pytest.approx(20 / 34)
    assert found.whole == pytest.approx(20 / 40)
    assert found.steady == 1.0
    assert (found.start_seconds, found.first_seconds) == (3.0, 6.0)


@pytest.mark.nightly
@pytest.mark.ray
def test_a_run_is_one_line_of_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--cards", "2", "--seconds", "1", "--batches", "3", "--prior-share", "0.1", "--loading", "1"]
    assert benchmark.main(["scale", *options, "--faster", "2", "--schedule", "pools", "phases"]) == 0
    *_, pools, phases = capsys.readouterr().out.splitlines()
    for row, schedule in ((pools, "pools"), (phases, "phases")):
        size, figures = row.strip("| ").split(" | ")[:5], row.strip("| ").split(" | ")[5:]
        assert size == ["2", "0.00", "1", "10.0%", schedule]
        busy, steady, whole, start, images = map(float, figures)
        # To three places: on a machine that takes minutes to start the actors, its last second is nothing.
        assert 0 < whole <= busy < 1
        assert 0 <= steady <= 1
        assert start > 0
        assert images > 0
