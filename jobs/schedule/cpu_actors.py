"""How many actors a run on CPUs has: one per CPU, as far as memory and work go.

The models are many small operators, and most of them run on one thread whatever an actor may have: two actors with a
CPU each make half as much again as one with both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from jobs.cost.weights import Weights
from jobs.cost.work import DeviceTime
from jobs.engine.pools import ONE_EACH, Actors, Node, total

#: Seconds of work that are worth one more actor, which takes some five seconds of a CPU to start.
WORK_S = 12.0

#: Bytes that an actor takes beside its weights and the call: MindSpore, mindone and Ray.
PROCESS_BYTES = 1 << 30

#: What an actor takes for its weights and what it computes of them, by its weights.
WEIGHTS_TWICE = 2


def actors_on_cpus(
    stage: Literal["all", "prior", "decode"],
    batches: int,
    nodes: Sequence[Node],
    time: DeviceTime,
    weights: Weights,
    in_turn: bool = False,
) -> Actors:
    """Sizes of both pools.

    Args:
        stage: as the run's `--stage`.
        batches: of the plan.
        time: what they ask of one actor.
        weights: of one actor of each pool.
        in_turn: one pool runs after the other.
    """
    room = total(nodes, "memory")
    prior_bytes, decoder_bytes = (WEIGHTS_TWICE * held + PROCESS_BYTES for held in (weights.prior, weights.decoder))
    decoder_bytes += time.call_bytes
    cpus = min(int(total(nodes, "CPU")), batches)

    def most(seconds: float, bytes_each: int) -> int:
        return max(1, min(cpus, int(seconds / WORK_S), int(room / bytes_each)))

    prior, decoder = most(time.prior, prior_bytes), most(time.decoder, decoder_bytes)
    if in_turn or stage != "all":
        return Actors(prior, decoder)
    for number in range(decoder, 1, -1):
        # As many as keep so many decoders busy.
        beside = min(prior, max(1, round(number * time.prior / time.decoder)))
        if beside * prior_bytes + number * decoder_bytes <= room:
            return Actors(beside, number)
    return ONE_EACH
