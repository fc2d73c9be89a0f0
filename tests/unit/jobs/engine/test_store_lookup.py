"""Parting work into what needs the prior and what does not."""

from __future__ import annotations

from jobs.engine.ledger import Ledger
from jobs.engine.store_lookup import Chosen


def test_every_wanted_batch_is_on_exactly_one_side() -> None:
    wanted = Ledger({0: 3, 1: 70}, sealed=(), staged={0: [1]}).missing_of([0, 1])
    known = {0: 0b011, 1: 1 << 69}
    sides = [Chosen(wanted, known, needs_prior=needs) for needs in (True, False)]
    places = [(shard, batch) for shard in (0, 1, 2) for batch in range(70)]
    with_prior, without_prior = ({place for place in places if place in side} for side in sides)
    assert without_prior == {(0, 0), (1, 69)}
    assert not with_prior & without_prior
    assert with_prior | without_prior == {place for place in places if place in wanted}
