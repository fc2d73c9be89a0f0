"""How many prior and decoder actors a run starts, and the share of the machine each process asks Ray for.

Pure arithmetic over the cluster's resources, so that a request that cannot fit is refused with its sum in
words before anything starts. Ray Data itself does not count NPUs: an actor that finds none waits for ever.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from manifests.config import RunConfig
from manifests.errors import UsageError
from workers.device import PROCESS_ENVIRONMENT, DeviceKind

#: One NPU for the prior per this many: a prior step costs a small part of what a decoder run costs.
NPUS_PER_PRIOR = 8

#: Kinds of CPU tasks that run beside the pools: reading, inputs, encoding.
TASK_KINDS = 3


@dataclass(frozen=True)
class PoolSize:
    """Fewest and most actors of one pool."""

    least: int
    most: int


@dataclass(frozen=True)
class Pools:
    """Both pools, what one actor of them asks for, and what a CPU task asks for."""

    kind: DeviceKind
    prior: PoolSize
    decoder: PoolSize
    #: Of the CPUs that Ray counts, for one actor and for one task.
    cpu_share: float
    #: Threads of one actor's numeric libraries; Ray would set 1 for a share of one CPU or less.
    threads: int

    def actor_options(self) -> dict[str, Any]:
        """Ray options of a device actor."""
        device: dict[str, Any] = {"resources": {"NPU": 1}} if self.kind == "ascend" else {}
        environment = {**PROCESS_ENVIRONMENT, "OMP_NUM_THREADS": str(self.threads)}
        return {"num_cpus": self.cpu_share, "runtime_env": {"env_vars": environment}, **device}


def size_pools(config: RunConfig, kind: DeviceKind, resources: Mapping[str, float]) -> Pools:
    """Sizes of both pools for this cluster.

    Args:
        config: its `prior_actors` and `decoder_actors`.
        kind: 'ascend' or 'cpu'.
        resources: what the cluster has in all, as Ray counts it.

    Raises:
        UsageError: the pools cannot run at the same time on what the cluster has.
    """
    prior = _asked("prior_actors", config.prior_actors)
    decoder = _asked("decoder_actors", config.decoder_actors)
    if kind == "ascend":
        prior, decoder = _split_npus(int(resources.get("NPU", 0)), prior, decoder)
    prior = prior or PoolSize(1, 1)
    decoder = decoder or PoolSize(1, 1)
    cpus = resources.get("CPU", 1.0)
    processes = prior.most + decoder.most + TASK_KINDS
    # Rounded down, so that the shares never add up to more than there is.
    share = min(1.0, max(0.01, math.floor(100 * cpus / processes) / 100))
    threads = max(1, math.ceil(cpus / (prior.most + decoder.most)))
    return Pools(kind, prior, decoder, share, threads)


def _asked(name: str, value: str) -> PoolSize | None:
    """`auto`, `N` or `MIN:MAX`; None is auto. The config has checked the form already."""
    if value == "auto":
        return None
    least, _, most = value.partition(":")
    size = PoolSize(int(least), int(most or least))
    if size.least > size.most:
        option = "--" + name.replace("_", "-")
        raise UsageError(f"option {option}: {value!r} asks for at least {size.least}, at most {size.most}")
    return size


def _split_npus(npus: int, prior: PoolSize | None, decoder: PoolSize | None) -> tuple[PoolSize, PoolSize]:
    """Both pools on so many NPUs, one NPU per actor; the decoder gets most."""
    if prior is None:
        room = npus - (decoder.least if decoder else 1)
        size = max(1, min(round(npus / NPUS_PER_PRIOR), room))
        prior = PoolSize(size, size)
    if decoder is None:
        size = max(1, npus - prior.most)
        decoder = PoolSize(size, size)
    # The prior at its largest, because an actor that has to start again needs its NPU back.
    needed = prior.most + decoder.least
    if needed > npus:
        raise UsageError(
            f"the prior pool needs {prior.most} and the decoder pool at least {decoder.least}, together "
            f"{needed} NPUs, but the cluster has {npus}; lower --prior-actors or --decoder-actors, "
            "add nodes, or run with --device cpu"
        )
    return prior, decoder
