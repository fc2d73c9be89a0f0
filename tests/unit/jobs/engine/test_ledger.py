"""The driver's ledger: what is missing, what can be sealed, and that nothing counts twice."""

from __future__ import annotations

import pickle

from jobs.engine.ledger import Ledger
from manifests.commit import Receipt


def receipt(shard: int, batch: int) -> Receipt:
    return Receipt(shard=shard, batch=batch, count=2, successes=2, failed_by_status={}, bytes=1)


def test_a_fresh_run_misses_everything() -> None:
    ledger = Ledger({0: 2, 1: 3}, sealed=(), staged={})
    assert ledger.missing == 5
    assert ledger.to_seal == []
    missing = ledger.missing_of([0, 1])
    assert all(place in missing for place in [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)])


def test_sealed_shards_and_staged_parts_are_not_made_again() -> None:
    ledger = Ledger({0: 2, 1: 3, 2: 1}, sealed={0}, staged={1: {0, 2}})
    missing = ledger.missing_of([0, 1, 2])
    assert missing.count == ledger.missing == 2
    assert [place for place in [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 0)] if place in missing] == [(1, 1), (2, 0)]


def test_what_is_missing_of_a_window_knows_its_own_shards_only() -> None:
    ledger = Ledger({0: 2, 1: 3}, sealed=(), staged={0: {1}, 1: {0}})
    missing = pickle.loads(pickle.dumps(ledger.missing_of([1])))
    assert (1, 1) in missing
    assert (0, 0) not in missing
    assert missing.count == 2


def test_a_whole_shard_of_an_earlier_run_waits_to_be_sealed() -> None:
    assert Ledger({0: 2, 1: 2}, sealed=(), staged={0: {0, 1}, 1: {0}}).to_seal == [0]


def test_a_sealed_shard_whose_parts_were_left_is_cleaned_up() -> None:
    ledger = Ledger({0: 2, 1: 1}, sealed={0, 1}, staged={0: {1}})
    assert ledger.missing == 0
    assert ledger.to_seal == [0]


def test_the_last_batch_makes_a_shard_whole_once() -> None:
    ledger = Ledger({0: 2}, sealed=(), staged={})
    assert [ledger.record(receipt(0, batch)) for batch in (1, 1, 0, 0)] == [False, False, True, False]
    assert ledger.missing == 0


def test_parts_and_shards_that_the_plan_does_not_have_are_ignored() -> None:
    ledger = Ledger({0: 2}, sealed={7}, staged={0: {0, 5}, 9: {0}})
    assert ledger.missing == 1
    assert ledger.to_seal == []
