"""What moves while a pipeline runs: how far the prior may run ahead, and who gets the devices that it leaves.

Ray Data's own rules count bytes and CPUs. Embeddings are small, so by bytes the prior would finish a whole night's
work before the decoder had begun; and NPUs it does not count at all, so a pool that grows too early takes the device
of an actor that has to start again, which then waits for ever. Both classes below are made by Ray Data itself, once per
run of a pipeline; a pool is an operator that has actors, and the first of two is the prior.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar

from ray.data._internal.execution.backpressure_policy import (
    ENABLED_BACKPRESSURE_POLICIES,
    ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY,
)
from ray.data._internal.execution.backpressure_policy.backpressure_policy import BackpressurePolicy
from ray.data._internal.execution.execution_callback import ExecutionCallback

from jobs.engine.pools import Pools
from jobs.monitoring.facts import EngineState, PoolState
from workers.fault_tolerance.attempts import News

#: Batches that may be in the prior or behind it and not yet made, per decoder actor: the one it makes, the one that
#: waits at the actor, and some for the time that the prior is busy with others or starts again. That is also what
#: a kill can cost of the prior's work, and how long it is that the decoder can use the prior's devices at the end.
AHEAD_PER_DECODER = 8


class RunAhead(BackpressurePolicy):
    """Holds the prior where the decoder has enough before it."""

    def can_add_input(self, op: Any) -> bool:
        """Asked before every batch of every stage."""
        pools = list(actor_pools(self._topology))
        if len(pools) < 2 or pools[0][0] is not op:
            return True
        decoder, pool = pools[1]
        # What waits inside of the prior's operator for an actor, or has left one and is not handed on yet, counts too.
        at_prior = op.internal_input_queue_num_blocks() + op.num_active_tasks() + op.internal_output_queue_num_blocks()
        at_decoder = self._topology[decoder].total_enqueued_input_blocks() + pool.num_tasks_in_flight()
        return at_prior + at_decoder < AHEAD_PER_DECODER * max(1, pool.current_size())


class GrowDecoder(ExecutionCallback):
    """Lets the decoder pool grow to `most` actors as soon as the prior has done all its work and frees its devices."""

    most: ClassVar[int] = 1

    def __init__(self) -> None:
        self._grown = False

    def on_execution_step(self, executor: Any) -> None:
        """Called many times a second."""
        if self._grown:
            return
        pools = list(actor_pools(executor._topology))
        if len(pools) == 2 and not pools[0][0].has_completed():
            return
        self._grown = True
        # An error that Ray Data has caught keeps the prior's actors in a cycle of frames, and they keep their devices.
        gc.collect()
        # Ray Data's own scaling then decides how many of them what is left is worth.
        pool = pools[-1][1]
        pool._config = replace(pool._config, max_size=max(pool.max_size(), GrowDecoder.most))


#: Ray Data's own rules and ours.
BACKPRESSURE = (ENABLED_BACKPRESSURE_POLICIES_CONFIG_KEY, [*ENABLED_BACKPRESSURE_POLICIES, RunAhead])


def engine_state(pools: Pools, topology: Any, news: News) -> EngineState:
    """What Ray Data and the attempts actor know now; costs next to nothing."""
    # `--stage prior` and `--stage decode` have one pool, and so has a pipeline whose embeddings are all known.
    names = [name for name, size in (("prior", pools.prior), ("decoder", pools.decoder)) if size.most]
    states = []
    for name, (op, pool) in zip(names, actor_pools(topology), strict=False):
        # What is at an actor waits as well, but for the batch that it works on.
        at_actors = pool.num_tasks_in_flight() - pool.num_active_actors()
        states.append(
            PoolState(
                name=name,
                size=pool.max_size(),
                up=pool.num_alive_actors(),
                loading=news.loading.get(name, 0),
                compiling=news.compiling.get(name, 0),
                waiting=topology[op].total_enqueued_input_blocks() + at_actors,
                call_seconds=news.seconds.get(name, 0.0),
                finished=op.has_completed(),
            )
        )
    return EngineState(states, news.lost_by_cause, news.batches_again)


def end_pools(topology: Any) -> None:
    """End the actors of a pipeline that is given up, in the middle of their calls.

    Nobody would take what they make, and Ray Data would leave them their devices until it is made.
    """
    for _, pool in actor_pools(topology):
        # What has ended the pipeline is what counts.
        with contextlib.suppress(Exception):
            pool.shutdown(force=True)


def actor_pools(topology: Any) -> Iterator[tuple[Any, Any]]:
    """The operators that have actors, in the order of the pipeline, each with its pool."""
    for op in topology:
        for pool in op.get_autoscaling_actor_pools():
            yield op, pool
