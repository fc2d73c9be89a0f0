"""Shards scored on all devices of a cluster: an actor on each, and what it is given is one shard at a time.

The actors are those of a run's decoder pool: as many, with the same shares of the machine, started again where they
die. The attempts actor counts who dies of what (workers/fault_tolerance/attempts.py), so a row that kills its process
costs its own scores only.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import ray

from jobs.engine.cluster import ACTOR_FAULT_OPTIONS, LOOK_UP_S, ClusterShrankError, Watch, cluster, engine_log, nodes
from jobs.engine.pools import Pools, npus, size_pools
from jobs.scoring.shards import Lacking, score_shard
from jobs.scoring.work import Work
from manifests import storage
from manifests.config import RunConfig
from manifests.errors import IncompleteRunError, KandinskyBatchError
from manifests.planning.plan import Window
from workers.device.device import choose_device
from workers.fault_tolerance.kept_attempts import start_attempts

#: A shard, the windows that it is of, and what it lacks.
Task = tuple[int, Sequence[Window], Lacking]


class ShardScorer:
    """What runs on a device."""

    def __init__(self, config: RunConfig, kind: Any, attempts: Any, fence: Callable[[], None]) -> None:
        self._work, self._fence = Work(config, kind, attempts), fence

    def score(self, task: Task) -> Counter[str]:
        """Score a shard and seal it anew; how many images have each score."""
        number, windows, lack = task
        with storage.fenced(self._fence):
            return score_shard(number, windows, lack, self._work)


def score_on_cluster(
    config: RunConfig,
    tasks: Sequence[Task],
    fence: Callable[[], None],
    tell: Callable[[str], None],
) -> Iterator[Counter[str]]:
    """Score shards on all devices; yields the counts of each as it is done.

    Raises:
        UsageError: there is no such device, or no checkpoint.
        IncompleteRunError: devices or nodes are lost; the same command goes on with those that are left.
        StorageError: something cannot be read or written.
    """
    with engine_log(), cluster(tell) as there, start_attempts() as attempts:
        device = choose_device(config, npus(there))
        pools = size_pools(config.model_copy(update={"stage": "decode"}), device.kind, there)
        tell(f"device: {device.kind} ({device.reason}), {min(pools.decoder.most, len(tasks))} actors")
        remote: Any = ray.remote(ShardScorer)
        options = {**pools.actor_options(), **ACTOR_FAULT_OPTIONS}
        actors = [
            remote.options(**options).remote(config, device.kind, attempts, fence)
            for _ in range(min(pools.decoder.most, len(tasks)))
        ]
        yield from _results(actors, tasks, attempts, Watch(_needs(pools, len(actors)), nodes), fence)


def _needs(pools: Pools, actors: int) -> Mapping[str, float]:
    needs = {"CPU": actors * pools.actor_share}
    return {**needs, "NPU": float(actors)} if pools.kind == "ascend" else needs


def _results(
    actors: Sequence[Any], tasks: Sequence[Task], attempts: Any, watch: Watch, fence: Callable[[], None]
) -> Iterator[Counter[str]]:
    waiting, free = deque(tasks), list(actors)
    under_way: dict[Any, Any] = {}
    while waiting or under_way:
        while waiting and free:
            actor = free.pop()
            under_way[actor.score.remote(waiting.popleft())] = actor
        done, _ = ray.wait(list(under_way), timeout=LOOK_UP_S)
        for reference in done:
            free.append(under_way.pop(reference))
            yield _result(reference)
        fence()
        news = ray.get(attempts.news.remote())
        if news.trouble is not None:
            raise news.trouble
        if news.broken:
            # Whoever has it waits, and the shard with it.
            raise IncompleteRunError("; ".join(each.words for each in news.broken))
        try:
            watch.check()
        except ClusterShrankError as error:
            raise IncompleteRunError(f"{error}; start it again to go on with the rest") from error


def _result(reference: Any) -> Counter[str]:
    try:
        counts: Counter[str] = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, KandinskyBatchError):
            raise error.cause from error
        raise IncompleteRunError(f"a shard could not be scored: {error.cause!r}; start it again to go on") from error
    except ray.exceptions.RayError as error:
        raise IncompleteRunError(f"a device was lost: {error}; start it again to go on") from error
    return counts
