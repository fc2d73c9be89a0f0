"""The course of a run's images: whole at its ends, and never longer than a page needs."""

from __future__ import annotations

import itertools

import pytest

from jobs.cost.step_times import MARKS, Measured, Stopwatch
from jobs.engine.pools import Pools, PoolSize
from manifests.call_limit import CallLimit
from manifests.commit import Receipt
from workers.kandinsky.graph_choice import EVERYTHING, NOTHING

POOLS = Pools("cpu", PoolSize(1, 1), PoolSize(1, 1), 1)


def course(batches: int) -> tuple[tuple[float, int, int], ...]:
    """Of a run that makes three images of four rows each second."""
    now = [100.0]
    watch = Stopwatch(clock=lambda: now[0])
    for batch in range(batches):
        now[0] += 1
        failed = {"failed_to_generate": 1}
        watch.add(Receipt(shard=0, batch=batch, count=4, successes=3, failed_by_status=failed, bytes=1))
    return watch.record("cpu", CallLimit(4), POOLS).course


@pytest.mark.parametrize("batches", [0, 1, 3, MARKS - 1, MARKS, MARKS + 1, 777, 20_000])
def test_it_goes_from_the_first_batch_to_the_last_in_even_steps(batches: int) -> None:
    found = course(batches)
    assert len(found) <= MARKS + 1
    assert all((written, failed) == (3 * seconds, seconds) for seconds, written, failed in found)
    if batches:
        assert (found[0][0], found[-1][0]) == (1, batches)
        steps = {b[0] - a[0] for a, b in itertools.pairwise(found[:-1])}
        assert len(steps) <= 1
        assert len(found) >= min(batches, MARKS // 2)
    else:
        assert found == ()


def test_what_graphs_take_and_save_is_the_median_of_all_actors_that_use_them() -> None:
    record = {"stage": "decoder", "part": "unet", "shape": [8, 4, 16, 16], "why": None}
    seconds = [(10.0, 0.1, 0.3), (30.0, 0.2, 0.5), (20.0, 0.3, 0.4)]
    names = ("seconds", "graph_seconds", "operator_seconds")
    compiled = [{**record, **dict(zip(names, each, strict=True))} for each in seconds]
    refused = {**record, "shape": [2, 4, 8, 8], "seconds": 5.0, "graph_seconds": None, "operator_seconds": None}
    told = Measured(EVERYTHING, compilations=[*compiled, {**refused, "why": "no"}])
    found = Stopwatch().record("cpu", CallLimit(4), POOLS, told)
    (times,) = found.graphs
    assert (times.part, times.shape, times.compiling, times.saved) == ("unet", (8, 4, 16, 16), 20.0, pytest.approx(0.2))


def test_loading_is_the_median_of_a_stages_devices() -> None:
    seconds = [("prior", 30.0), ("decoder", 50.0), ("decoder", 90.0), ("decoder", 60.0)]
    told = Measured(NOTHING, devices=[{"stage": stage, "loading_seconds": one} for stage, one in seconds])
    assert Stopwatch().record("cpu", CallLimit(4), POOLS, told).loading == {"prior": 30.0, "decoder": 60.0}
    earlier = Measured(NOTHING, devices=[{"stage": "prior"}])
    assert Stopwatch().record("cpu", CallLimit(4), POOLS, earlier).loading == {}
