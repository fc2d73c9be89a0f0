"""A manifest cut into pieces, each of which all devices embed and then decode.

A piece is as large as makes loading the models twice negligible, and as small as lets its first images come soon. It
ends where a shard ends, so that its shards are committed when it is done.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from jobs.engine.ledger import Wanted
from jobs.engine.pipeline import Work
from manifests.batch import Batch
from manifests.planning.layout import PlannedShard


@dataclass(frozen=True)
class OfShards:
    """Those of some wanted batches that are of these shards; a container of (shard, batch) pairs."""

    wanted: Wanted
    shards: range

    def __contains__(self, place: object) -> bool:
        return cast("tuple[int, int]", place)[0] in self.shards and place in self.wanted

    def narrow(self, batch: Batch) -> Batch:
        """The wanted rows of a batch."""
        return self.wanted.narrow(batch)


@dataclass(frozen=True)
class Pieces:
    """How to cut.

    Attributes:
        rows: most images of a piece that has more than one shard.
        shards: those of the plan.
        together: batches that go to a prior actor at a time.
    """

    rows: int
    shards: Sequence[PlannedShard]
    together: int = 1

    def cut(self, work: Sequence[Work]) -> Iterator[list[Work]]:
        """The pieces of these windows, in order; a window may be in several."""
        piece: list[Work] = []
        rows = 0
        for window, wanted in work:
            first = window.first_shard
            for shard in range(window.first_shard, window.first_shard + window.shards):
                more = self.shards[shard].samples
                if rows and rows + more > self.rows:
                    if shard > first:
                        piece.append((window, OfShards(wanted, range(first, shard))))
                    yield piece
                    piece, rows, first = [], 0, shard
                rows += more
            shards = range(first, window.first_shard + window.shards)
            piece.append((window, wanted if len(shards) == window.shards else OfShards(wanted, shards)))
        if piece:
            yield piece
