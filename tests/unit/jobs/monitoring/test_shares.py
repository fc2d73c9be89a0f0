"""Several shares of one plan, shown as one run."""

from __future__ import annotations

import pytest

from jobs.monitoring.facts import TimeLeft
from jobs.monitoring.shares import together
from tests.unit.jobs.monitoring.sample_facts import facts


def test_one_share_is_shown_as_it_is() -> None:
    assert together([facts()]) == facts()


def test_counts_rates_shards_and_pools_add_up_and_the_slowest_share_is_waited_for() -> None:
    slow = facts(left=TimeLeft(likely=20_000, low=15_000, high=30_000), rate=1.0, failures=())
    whole = together([facts(), slow])
    assert [(c.name, c.done, c.total, c.failed) for c in whole.counts] == [
        ("img2img", 240, 500, 4),
        ("text2img", 12_200, 25_200, 2),
        ("invalid", 6, 6, 6),
    ]
    assert whole.rate == pytest.approx(3.312)
    assert whole.left == slow.left
    assert (whole.sealed, whole.shards) == (12, 28)
    decoder = whole.pools[1]
    assert (decoder.size, decoder.up, decoder.waiting, decoder.in_calls) == (16, 14, 28, pytest.approx(0.973))
    assert whole.pools[0].finished
    assert (whole.lost, whole.batches_again) == ({"out of memory": 4, "hung": 2}, 6)
    assert whole.failures == facts().failures


def test_while_a_share_does_not_know_its_time_left_nobody_does() -> None:
    assert together([facts(), facts(left=None)]).left is None


def test_the_newest_failures_of_all_shares_take_turns() -> None:
    ids = [failure.id for failure in together([facts(), facts()]).failures]
    assert ids == ["cat-132", "cat-132", "cat-131", "cat-131", "cat-7"]
