"""How many actors a run on CPUs has, by what it has to do and what the machine has."""

from __future__ import annotations

import pytest

from jobs.cost.weights import Weights
from jobs.cost.work import DeviceTime
from jobs.engine.pools import Actors
from jobs.schedule.cpu_actors import PROCESS_BYTES, WORK_S, actors_on_cpus

GIB = 1 << 30

NO_WEIGHTS = Weights(0, 0)


def sizes(
    cpus: float = 16, memory: int = 256 * GIB, batches: int = 1000, prior: float = 5, decoder: float = 95,
    weights: Weights = NO_WEIGHTS, call_bytes: int = 0,
) -> Actors:  # fmt: skip
    """For work of so many times what is worth an actor."""
    time = DeviceTime(prior * WORK_S, decoder * WORK_S, "a test", call_bytes=call_bytes)
    return actors_on_cpus("all", batches, [{"CPU": cpus, "memory": memory}], time, weights)


@pytest.mark.parametrize("cpus", [1, 2, 16])
def test_there_is_a_decoder_for_each_cpu(cpus: int) -> None:
    assert sizes(cpus).decoder == cpus


def test_cpus_of_all_nodes_count() -> None:
    nodes = [{"CPU": 4, "memory": 64 * GIB}, {"CPU": 6.5, "memory": 64 * GIB}]
    assert actors_on_cpus("all", 1000, nodes, DeviceTime(0, 1e6, "a test"), NO_WEIGHTS).decoder == 10


def test_as_many_priors_keep_them_busy() -> None:
    assert sizes(64, prior=200, decoder=800) == (16, 64)
    assert sizes(64, prior=3, decoder=800) == (1, 64)


def test_what_little_there_is_to_do_starts_few() -> None:
    assert sizes(decoder=0.1, prior=0.01) == (1, 1)
    assert sizes(decoder=3.5, prior=0.1) == (1, 3)
    assert sizes(batches=2) == (1, 2)


def test_all_of_them_fit_the_memory() -> None:
    assert sizes(memory=5 * PROCESS_BYTES) == (1, 4)
    assert sizes(memory=0) == (1, 1)
    # Weights count twice: a call computes with as much again.
    held = Weights(2 * GIB, 5 * GIB)
    assert sizes(memory=4 * 11 * GIB + 5 * GIB + 1, weights=held) == (1, 4)
    assert sizes(memory=4 * 11 * GIB + 5 * GIB - 1, weights=held) == (1, 3)
    assert sizes(memory=8 * GIB, weights=held) == (1, 1), "one of each there must be"


def test_a_large_call_counts_for_decoders_alone() -> None:
    assert sizes(memory=9 * PROCESS_BYTES, call_bytes=PROCESS_BYTES) == (1, 4)
    assert sizes(memory=9 * PROCESS_BYTES, call_bytes=3 * PROCESS_BYTES) == (1, 2)
