"""How the devices of a run are divided: side by side into two pools, or all of them to one stage after the other.

    pools    a time of max(prior / n, decoder / (N - n)) for n of N devices: one of two pools may idle
    phases   a time of (prior + decoder) / N, and loading a model on every device once more, twice per further piece

`--schedule auto` takes the pools unless phases are surely faster, or, on CPUs, the memory is too small for the models
of both pools: pools have their first images sooner, and leave nothing to be stored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from jobs.cost.step_times import DECODER, PRIOR
from jobs.cost.weights import Weights
from jobs.cost.work import DeviceTime
from jobs.engine.pools import ONE_EACH, Node, Pools, npus, size_pools, total
from jobs.monitoring.pace import duration
from jobs.schedule.cpu_actors import actors_on_cpus
from jobs.schedule.embedding import STORED_ROWS_PER_ACTOR
from jobs.schedule.pieces import Pieces
from manifests.config import RunConfig
from manifests.planning.layout import PlannedShard
from workers.device.device import DeviceKind

ScheduleName = Literal["pools", "phases"]

#: Seconds that a device takes to get the weights of another model, where nothing else is known: some gigabytes from a
#: disk or a store, and the imports.
LOADING_S = 60.0

#: What phases must save of a run's time to be preferred.
SAVED = 0.01

#: A piece lasts so many times what loading both models for it takes, as long as its first half, the prior's, is not
#: longer than this.
LOADINGS, EMBEDDING_S = 200, 1800.0

#: Rows that Ray Data is to move each second at most, where they can hold several batches; it can move some thirty.
ROWS_A_SECOND = 5

#: Images of a piece at most: their embeddings are 3 kB each, and the driver knows of each that failed.
PIECE_ROWS = 1_000_000


class Sized(Protocol):
    """What a plan (`manifests.planning.plan.Plan`) is asked for here: images, batches, shards."""

    @property
    def samples(self) -> int: ...

    @property
    def batches(self) -> int: ...

    @property
    def shards(self) -> Sequence[PlannedShard]: ...


@dataclass(frozen=True)
class Schedule:
    """Who works when.

    Attributes:
        reason: why so, in words.
        pools: their sizes.
        pieces: how the manifest is cut for phases.
    """

    name: ScheduleName
    reason: str
    pools: Pools
    pieces: Pieces

    @property
    def in_words(self) -> str:
        """One line for the beginning of a run."""
        return f"schedule: {self.name} ({self.reason})"


def arrange(
    config: RunConfig,
    planned: Sized,
    kind: DeviceKind,
    nodes: Sequence[Node],
    time: DeviceTime | None,
    notify: Callable[[str], None],
    weights: Callable[[], Weights | None] = lambda: None,
) -> Schedule:
    """Choose the schedule, and size the pools for it.

    Args:
        time: what the plan takes of one device; None where nobody can say.
        notify: hears which part of it is the prior's.
        weights: tells those of the models, None where nobody can; asked only where it counts, as it reads files.

    Raises:
        UsageError: the pools cannot run on what the cluster has.
    """
    cards = max(1, npus(nodes)) if kind == "ascend" else 1
    rows = _piece_rows(planned, cards, time)
    name, reason = _choose(config, kind, cards, time, max(1, math.ceil(planned.samples / rows)))
    on_cpus = ONE_EACH
    if kind == "cpu" and (held := weights()) is not None:
        if (config.stage, config.schedule) == ("all", "auto"):
            too_much = _too_much(size_pools(config, kind, nodes), nodes, held)
            name, reason = ("phases", too_much) if too_much else (name, reason)
        if time is not None:
            on_cpus = actors_on_cpus(config.stage, planned.batches, nodes, time, held, name == "phases")
    share = None
    if time is not None and kind == "ascend" and config.stage == "all" and config.prior_actors == "auto":
        share = time.prior_share
        notify(f"of the device time {share:.1%} is the prior's, by {time.source}")
    pools = size_pools(config, kind, nodes, share, in_turn=name == "phases", on_cpus=on_cpus)
    return Schedule(name, reason, pools, Pieces(rows, planned.shards, _together(config, planned, cards, time)))


def pools_seconds(time: DeviceTime, cards: int) -> float:
    """How long two pools take at best that divide so many cards, at least two."""
    return min(max(time.prior / n, time.decoder / (cards - n)) for n in range(1, cards))


def phases_seconds(time: DeviceTime, cards: int, pieces: int) -> float:
    """How long so many cards take in phases, from the prior's first call on."""
    prior, decoder = loading(time)
    return time.total / cards + pieces * decoder + (pieces - 1) * prior


def loading(time: DeviceTime | None) -> tuple[float, float]:
    """Seconds that a device takes to get the prior's weights in place of the decoder's, and the other way round."""
    known = time.loading if time is not None else {}
    return known.get(PRIOR, LOADING_S), known.get(DECODER, LOADING_S)


def _choose(
    config: RunConfig, kind: DeviceKind, cards: int, time: DeviceTime | None, pieces: int
) -> tuple[ScheduleName, str]:
    if config.stage != "all":
        return "pools", f"--stage {config.stage} has one pool"
    if config.schedule != "auto":
        return config.schedule, f"--schedule {config.schedule}"
    if kind == "cpu":
        return "pools", "both share the CPUs, so none is idle"
    if config.share_devices:
        return "pools", "--share-devices"
    if (config.prior_actors, config.decoder_actors) != ("auto", "auto"):
        return "pools", "the sizes of pools are given"
    if cards == 1:
        return "phases", "there is one NPU, for one model at a time"
    if time is None:
        return "pools", "nobody knows yet what the prior's part of the work is"
    pools, phases = pools_seconds(time, cards), phases_seconds(time, cards, pieces)
    words = (
        f"the prior is {time.prior_share:.1%} of the work, so two pools would keep {time.total / cards / pools:.0%} of "
        f"{cards} NPUs busy"
    )
    if phases <= (1 - SAVED) * pools:
        return "phases", f"{words}, and taking turns saves {duration(pools - phases)} of {duration(pools)}"
    return "pools", f"{words}, and loading models again would cost as much"


def _too_much(pools: Pools, nodes: Sequence[Node], weights: Weights) -> str | None:
    """That the models of both pools are too large for the nodes' memory, in words; None where they are not."""
    held = pools.prior.most * weights.prior + pools.decoder.most * weights.decoder
    room = total(nodes, "memory")
    if not room or held <= room:
        return None
    return f"the models of both pools take {held / 2**30:.1f} GiB, and Ray has {room / 2**30:.1f} GiB for processes"


def _piece_rows(planned: Sized, cards: int, time: DeviceTime | None) -> int:
    """Images of a piece; all pieces are about equal."""
    if time is None or not planned.samples or not time.total:
        return PIECE_ROWS
    per_row = time.total / planned.samples / cards
    seconds = min(LOADINGS * sum(loading(time)), EMBEDDING_S / max(time.prior_share, 1e-6))
    most = min(PIECE_ROWS, max(1, int(seconds / per_row)))
    return math.ceil(planned.samples / math.ceil(planned.samples / most))


def _together(config: RunConfig, planned: Sized, cards: int, time: DeviceTime | None) -> int:
    """Batches of the prior that travel together, so that the engine can keep all devices busy with them."""
    # At the end no device is to wait for another one's last row for long.
    most = max(1, min(STORED_ROWS_PER_ACTOR // config.batch_size, planned.batches // (8 * cards)))
    if time is None or not planned.batches or not time.prior:
        return min(most, cards)
    a_second = cards / (time.prior / planned.batches)
    return min(most, math.ceil(a_second / ROWS_A_SECOND))
