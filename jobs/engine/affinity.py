"""Batches go to decoder actors that have had their shape before, and actors get batches of shapes that they have had.

A new shape costs an actor time: its operators are compiled on Ascend, the whole model with `--graph`, and the first
batch of the inpainting task loads a second UNet. Ray Data hands batches out as they come, so that with several windows
under way every actor soon has had every shape. Here the actor that is least busy is given the oldest waiting batch of
a shape it knows, and only where none waits the oldest of all; nobody ever waits for a batch that another could make.

No batch is left behind: after `OVERTAKEN` others it is taken by whoever comes.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from ray.data._internal.execution.bundle_queue import FIFOBundleQueue, ThreadSafeBundleQueue
from ray.data._internal.execution.execution_callback import ExecutionCallback

from jobs.engine.elastic import AHEAD_PER_DECODER, actor_pools
from manifests.batch import SHAPE_KEY

#: Batches per actor that may be taken before an older one: with as many waiting, each actor has then had its choice.
OVERTAKEN = AHEAD_PER_DECODER


class ByShape(FIFOBundleQueue):
    """Batches that wait for a pool.

    Args:
        pool: Ray Data's; it is asked who is least busy, and told who shall have the batch that was taken from here.
    """

    def __init__(self, pool: Any) -> None:
        super().__init__()
        self._pool = pool
        self._select_without = pool.select_actors
        pool.select_actors = self._select
        self._chosen: Any = None
        #: By the hash of an actor's handle: a handle that is kept keeps the actor, and its device from the next
        #: pipeline.
        self._had: defaultdict[int, set[bytes]] = defaultdict(set)
        #: Others taken before the oldest.
        self._overtaken = 0

    def _get_next_inner(self) -> Any:
        if not self._inner:
            raise IndexError("the queue is empty")
        idle = self._least_busy()
        known = set().union(*(self._had[hash(actor)] for actor in idle))
        place = 0
        if self._overtaken < OVERTAKEN * self._pool.current_size():
            place = next((place for place, bundle in enumerate(self._inner) if _shape(bundle) in known), 0)
        self._overtaken = self._overtaken + 1 if place else 0
        bundle = self._inner[place]
        del self._inner[place]
        shape = _shape(bundle)
        # Where nobody knows it, whoever knows least learns it.
        self._chosen = min(idle, key=lambda actor: self._cost(actor, shape), default=None)
        self._had[hash(self._chosen)].add(shape)
        return bundle

    def _cost(self, actor: Any, shape: bytes) -> tuple[bool, int]:
        had = self._had[hash(actor)]
        return shape not in had, len(had)

    def _least_busy(self) -> list[Any]:
        ranks = self._pool._alive_actors_to_in_flight_tasks_heap
        least = min(ranks.values(), default=None)
        return [actor for actor, rank in ranks.items() if rank == least]

    def _select(self, bundle: Any = None, actor_locality_enabled: bool = False) -> Any:
        """Stands for the pool's `select_actors`, which is called with the batch right after that has left here."""
        if bundle is None or self._chosen is None:
            return self._select_without(bundle, actor_locality_enabled)
        chosen, self._chosen = self._chosen, None
        return chosen


class ShapeAffinity(ExecutionCallback):
    """Puts the queue before the decoder pool, which is the last one; made by Ray Data, once per run of a pipeline."""

    def before_execution_starts(self, executor: Any) -> None:
        """Nothing has been queued yet."""
        for op, pool in list(actor_pools(executor._topology))[-1:]:
            (queue,) = executor._topology[op].input_queues
            queue._queues[:] = [ThreadSafeBundleQueue(ByShape(pool))]


def _shape(bundle: Any) -> bytes:
    """Empty for rejected rows, which need no device, and for all but the first batch that a task yields.

    Ray Data tells the schema of that one alone; where shapes differ, the stage before the pool makes one batch a task.
    """
    metadata = None if bundle.schema is None else bundle.schema.metadata
    return (metadata or {}).get(SHAPE_KEY, b"")
