"""The pools of a run, with the prior's part of the devices by what an earlier run has measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jobs.cost.estimate import prior_share
from jobs.cost.step_times import StepTimes
from jobs.engine.pools import Node, Pools, size_pools
from manifests.config import RunConfig
from manifests.planning.plan import Plan
from workers.device.device import DeviceKind


def split_devices(
    config: RunConfig,
    planned: Plan,
    kind: DeviceKind,
    nodes: Sequence[Node],
    known: tuple[str, StepTimes] | None,
    notify: Callable[[str], None],
) -> Pools:
    """As `size_pools`; arguments too.

    Args:
        known: the step times of an earlier run, and where they stand (`jobs.run.run_folder.known_times`).
        notify: hears which part is the prior's, and where that is from.

    Raises:
        UsageError: the pools cannot run at the same time on what the cluster has.
    """
    share = None
    if known is not None and known[1].device == kind == "ascend" and config.prior_actors == "auto":
        share = prior_share(planned.buckets, known[1], config.batch_size)
        if share is not None:
            notify(f"of the device time {share:.0%} is the prior's, by {known[0]}")
    return size_pools(config, kind, nodes, share)
