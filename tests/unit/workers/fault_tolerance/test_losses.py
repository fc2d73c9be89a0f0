"""The losses of a run: each process once, all of them counted, the newest with their words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from workers.fault_tolerance.attempts import Worker
from workers.fault_tolerance.losses import KEPT, Losses

WORKER = Worker("0", "actor", "node", "npu-0", "NPU 0 of here")


def test_a_process_is_lost_once_whoever_finds_it() -> None:
    losses = Losses(set, {}, lambda worker: "")
    losses.note("decoder", WORKER, "its batch is made again")
    losses.note("decoder", WORKER, "it starts again")
    (loss,) = losses.newest
    assert loss.words.startswith("a worker of decoder was lost on NPU 0 of here (the process ended without a word")
    assert loss.words.endswith("; its batch is made again")


def test_of_many_losses_the_newest_keep_their_words_and_all_are_counted() -> None:
    losses = Losses(set, {"7": "did not finish within 5 s"}, lambda worker: "")
    for number in range(KEPT + 10):
        losses.note("decoder", replace(WORKER, id=str(number)), "it starts again")
    assert [loss.id for loss in losses.newest] == [str(number) for number in range(10, KEPT + 10)]
    assert losses.by_cause == {"killed or crashed": KEPT + 9, "hung": 1}


@pytest.mark.parametrize(
    ("lost_nodes", "own", "engines", "cause"),
    [
        ({"node"}, {}, "out of memory: Ray ended it", "node lost"),
        (set(), {"0": "did not finish within 5 s"}, "", "hung"),
        (set(), {}, "out of memory: Ray ended it", "out of memory"),
        (set(), {}, "", "killed or crashed"),
    ],
)
def test_the_cause_is_what_explains_the_end_best(
    lost_nodes: set[str], own: dict[str, str], engines: str, cause: str
) -> None:
    losses = Losses(lambda: lost_nodes, own, lambda worker: engines)
    losses.note("prior", WORKER, "it starts again")
    assert losses.by_cause == {cause: 1}
