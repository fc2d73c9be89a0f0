"""Pieces of a manifest for phases: every shard in one of them, in order, and none larger than it may be."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest

from jobs.engine.ledger import Missing
from jobs.schedule.pieces import Pieces
from manifests.planning import ids as naming
from manifests.planning.layout import PlannedShard
from manifests.planning.plan import Window

WINDOW = Window(0, (), 0, 0, 0, 0, naming.NO_REPEATS, pa.schema([]))


def plan_of(*windows: list[int]) -> tuple[list[tuple[Window, Missing]], list[PlannedShard]]:
    """Windows of shards with so many images, one batch each, of which nothing is made."""
    shards = [PlannedShard("text2img", 1, images, 0) for window in windows for images in window]
    work, first = [], 0
    for index, window in enumerate(windows):
        missing = Missing({first + place: frozenset() for place in range(len(window))}, len(window))
        work.append((replace(WINDOW, index=index, first_shard=first, shards=len(window)), missing))
        first += len(window)
    return work, shards


@pytest.mark.parametrize(
    ("windows", "rows", "pieces"),
    [
        ([[10, 10, 10]], 30, [[0, 1, 2]]),
        ([[10, 10, 10]], 20, [[0, 1], [2]]),
        ([[10, 10], [10, 10]], 30, [[0, 1, 2], [3]]),
        ([[10], [10], [10]], 20, [[0, 1], [2]]),
        ([[50, 5, 5]], 10, [[0], [1, 2]]),
        ([[0, 10, 0, 10, 0]], 10, [[0, 1, 2], [3, 4]]),
        ([[1], [1]], 10**6, [[0, 1]]),
    ],
)
def test_every_shard_is_in_one_piece(windows: list[list[int]], rows: int, pieces: list[list[int]]) -> None:
    work, shards = plan_of(*windows)
    found = []
    for piece in Pieces(rows, shards).cut(work):
        found.append([shard for shard in range(len(shards)) for _, wanted in piece if (shard, 0) in wanted])
    assert found == pieces


def test_what_is_made_already_is_in_no_piece() -> None:
    [(window, _)], shards = plan_of([10, 10])
    missing = Missing({1: frozenset()}, 1)
    [piece] = Pieces(100, shards).cut([(window, missing)])
    assert [(shard, 0) in wanted for shard in range(2) for _, wanted in piece] == [False, True]


def test_nothing_to_make_is_no_piece() -> None:
    assert list(Pieces(10, []).cut([])) == []
