"""Planning with all of the cluster's CPUs, where a manifest is large enough to be worth it.

The plan is the same, whoever summarizes its windows: Ray tasks get stretches of windows and give back what the driver
keeps of them, in order and only so many ahead of it that its memory stays bounded.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from jobs.engine.pools import total
from manifests.config import RunConfig
from manifests.errors import KandinskyBatchError
from manifests.planning.plan import Plan, plan, summarize_in_turn
from manifests.planning.window_summary import Scope, WindowSummary, summarize
from manifests.requests.files import Piece

#: From here on Ray's start is paid back.
PARALLEL_ROWS = 4_000_000

Stretch = Sequence[tuple[Piece, ...]]


def plan_job(config: RunConfig, ends: Sequence[int] = ()) -> Plan:
    """`manifests.planning.plan.plan`, by this process or by all of the cluster.

    Raises:
        UsageError: a setting or the manifest cannot be used.
        StorageError: the ids cannot be sorted, because TMPDIR is full.
    """
    return plan(config, ends, _summarize)


def _summarize(config: RunConfig, stretches: Sequence[Stretch], scope: Scope) -> Iterator[WindowSummary]:
    pieces = (piece for stretch in stretches for window in stretch for piece in window)
    if sum(piece.stop - piece.start for piece in pieces) < PARALLEL_ROWS:
        yield from summarize_in_turn(config, stretches, scope)
        return
    # Here: a small manifest should not wait for Ray to be imported.
    from jobs.engine.cluster import cluster

    with cluster() as nodes:
        yield from _summarize_with_ray(config, stretches, scope, max(1, int(total(nodes, "CPU"))))


def _summarize_with_ray(
    config: RunConfig, stretches: Sequence[Stretch], scope: Scope, cpus: int
) -> Iterator[WindowSummary]:
    import ray

    task = ray.remote(num_cpus=1, max_retries=3)(_summarize_stretch)
    left = iter(stretches)
    running: deque[Any] = deque()
    while True:
        for stretch in itertools.islice(left, 2 * cpus - len(running)):
            running.append(task.remote(config, stretch, scope))
        if not running:
            return
        try:
            yield from ray.get(running.popleft())
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, KandinskyBatchError):
                raise error.cause from error
            raise


def _summarize_stretch(config: RunConfig, stretch: Stretch, scope: Scope) -> list[WindowSummary]:
    return list(summarize(config, stretch, scope))
