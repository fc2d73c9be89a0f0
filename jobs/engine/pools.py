"""How many prior and decoder actors a run starts, and the share of the machine each process asks Ray for.

Pure arithmetic over the cluster's resources, so that a request that cannot fit is refused with its sum in
words before anything starts. Ray Data itself does not count NPUs: an actor that finds none waits for ever.

    own cards:     prior 1, decoder 7 of 8 NPUs; when the prior's work is done the decoder grows to 8. Where an
                   earlier run has measured both, they get devices in proportion to their work
    shared cards:  decoder 8 of 8 NPUs, and beside some of them a prior actor (`--share-devices`)
    in turn:       prior 8 of 8 NPUs, then decoder 8 of 8 (jobs/schedule/phases.py)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from manifests.config import RunConfig
from manifests.errors import IncompleteRunError, UsageError
from workers.device.device import PROCESS_ENVIRONMENT, DeviceKind

#: Of the device time, what the prior takes where nothing was measured: a small part of what a decoder run costs.
PRIOR_SHARE = 1 / 8

#: Kinds of CPU tasks that run beside the pools: reading and inputs, with and without known embeddings, and encoding.
TASK_KINDS = 5

#: Of the CPUs that Ray counts, what the actors of both pools may hold, all of them together. Ray Data reserves a tenth
#: of the CPUs for each stage, one after the other, and leaves nothing to the last one, which encodes, where there is no
#: more: images then wait until the engine has nothing else to do.
ACTORS_PART = 0.5

#: Of the CPUs that Ray counts, what one CPU task asks for: a few of a kind can run in the tenth that a stage has.
TASK_PART = 1 / 24

#: For each actor of the larger pool, the CPU tasks that one stage may have under way. Ray Data looks about eight times
#: a second which tasks have ended, so one actor's part is 16 batches a second at most, if the CPUs are as fast.
TASKS_PER_ACTOR = 2

#: Actors on CPUs that need no more tasks than one on a card: their batches take seconds.
CPUS_AS_ONE = 4

#: Ray's share of a card for each of the two actors on it. Only their sum matters: a placement group holds the card.
NPU_SHARE = 0.5


@dataclass(frozen=True)
class PoolSize:
    """Fewest and most actors of one pool."""

    least: int
    most: int


class Actors(NamedTuple):
    """How many each pool can have."""

    prior: int
    decoder: int


ONE_EACH = Actors(1, 1)


@dataclass(frozen=True)
class Pools:
    """Both pools, what one actor of them asks for, and what a CPU task asks for.

    Attributes:
        beside_prior: most decoder actors while the prior holds its devices; `decoder.most` later.
        actor_share, task_share: of the CPUs that Ray counts, for one actor and for one task; 0 until `_with_cpus`.
        threads: of one actor's numeric libraries; Ray would set 1 for a share of one CPU or less. 0 until then, too.
        shared: prior actors share cards with decoder actors.
        in_turn: one pool runs after the other, each with all devices; `of_phase` gives the one that runs.
    """

    kind: DeviceKind
    prior: PoolSize
    decoder: PoolSize
    beside_prior: int
    actor_share: float = 0.0
    task_share: float = 0.0
    threads: int = 0
    shared: bool = False
    in_turn: bool = False

    def actor_options(self) -> dict[str, Any]:
        """Ray options of a device actor."""
        npus = NPU_SHARE if self.shared else 1
        device: dict[str, Any] = {"resources": {"NPU": npus}} if self.kind == "ascend" else {}
        environment = {**PROCESS_ENVIRONMENT, "OMP_NUM_THREADS": str(self.threads)}
        return {"num_cpus": self.actor_share, "runtime_env": {"env_vars": environment}, **device}

    @property
    def tasks_at_once(self) -> int:
        """CPU tasks that one stage may have under way: enough for the actors, and few processes on a small machine."""
        actors = max(self.prior.most, self.decoder.most)
        return TASKS_PER_ACTOR * (math.ceil(actors / CPUS_AS_ONE) if self.kind == "cpu" else actors)

    @property
    def in_words(self) -> str:
        """How many actors a pipeline begins with."""
        sizes = [(self.prior.most, "prior"), (self.beside_prior, "decoder")]
        return (", then " if self.in_turn else " and ").join(
            f"{most} {name}" for most, name in sizes if most
        ) + " actors"

    @property
    def needs(self) -> dict[str, float]:
        """What all of it takes of the cluster, by Ray's names of resources."""
        actors = self.prior.most + self.beside_prior
        if self.in_turn:
            actors = max(self.prior.most, self.beside_prior)
        needs = {"CPU": actors * self.actor_share + TASK_KINDS * self.task_share}
        if self.kind == "ascend":
            needs["NPU"] = self.beside_prior if self.shared else actors
        return needs

    def of_phase(self, stage: Literal["prior", "decoder"]) -> Pools:
        """The one pool of two that take turns."""
        none = PoolSize(0, 0)
        if stage == "prior":
            return replace(self, decoder=none, beside_prior=0, in_turn=False)
        return replace(self, prior=none, in_turn=False)


#: What a node has, by Ray's names of resources.
Node = Mapping[str, float]


def total(nodes: Sequence[Node], name: str) -> float:
    """Of one resource, on all nodes."""
    return sum(node.get(name, 0.0) for node in nodes)


def npus(nodes: Sequence[Node]) -> int:
    """NPUs on all nodes."""
    return int(total(nodes, "NPU"))


def size_pools(
    config: RunConfig,
    kind: DeviceKind,
    nodes: Sequence[Node],
    prior_share: float | None = None,
    in_turn: bool = False,
    on_cpus: Actors = ONE_EACH,
) -> Pools:
    """Sizes of both pools for this cluster.

    Args:
        config: its `prior_actors`, `decoder_actors`, `share_devices` and `device_memory`.
        kind: 'ascend' or 'cpu'.
        nodes: of the cluster, those that are alive.
        prior_share: of the device time of this run, what the prior will take; None: nobody knows.
        in_turn: one pool is to run after the other.
        on_cpus: what pools have there that nobody has given a size (jobs/schedule/cpu_actors.py).

    Raises:
        UsageError: the pools cannot run, or not at the same time, on what the cluster has.
    """
    prior = _asked("prior_actors", config.prior_actors)
    decoder = _asked("decoder_actors", config.decoder_actors)
    cards = npus(nodes) if kind == "ascend" else 0
    devices = on_cpus if kind == "cpu" else Actors(cards, cards)
    if config.stage != "all":
        return _with_cpus(_one_pool(config.stage, kind, devices, prior, decoder), nodes)
    if in_turn or kind == "cpu":
        prior = _on_all(kind, devices.prior, "prior", prior)
        decoder = _on_all(kind, devices.decoder, "decoder", decoder)
        return _with_cpus(Pools(kind, prior, decoder, decoder.most, in_turn=in_turn), nodes)
    share = PRIOR_SHARE if prior_share is None else prior_share
    if config.share_devices:
        return _with_cpus(_on_shared_cards(cards, prior, decoder, share, config.device_memory), nodes)
    return _with_cpus(_on_own_cards(cards, prior, decoder, share), nodes)


def shrink(pools: Pools, nodes: Sequence[Node]) -> Pools:
    """The same pools on a cluster that has lost nodes or devices: the decoder gives first, then the prior.

    Raises:
        IncompleteRunError: not even one actor of each pool fits any more.
    """
    prior, decoder = pools.prior, pools.decoder
    beside = pools.beside_prior
    if pools.kind == "ascend":
        left = npus(nodes)
        # One card for each pool that there is, or one for both where they share it or take turns.
        together = pools.shared or pools.in_turn
        for_decoder = 0 if together or not decoder.most else 1
        needed = for_decoder + (1 if prior.most else 0)
        if left < needed:
            raise IncompleteRunError(f"the pools need {needed} NPUs or more, and {left} of the cluster's are left")
        most = min(prior.most, left - for_decoder)
        prior = PoolSize(min(prior.least, most), most)
        beside = min(beside, left if together else left - most)
        decoder = PoolSize(min(decoder.least, beside), min(decoder.most, left))
    return _with_cpus(replace(pools, prior=prior, decoder=decoder, beside_prior=beside), nodes)


def with_less_memory(pools: Pools) -> Pools | None:
    """The same pools with less in memory at a time: an actor less, or one after the other; None where that is all."""
    prior, decoder = (
        PoolSize(min(size.least, most), most) if (most := size.most - 1) > 0 else size
        for size in (pools.prior, pools.decoder)
    )
    if pools.in_turn and (prior, decoder) != (pools.prior, pools.decoder):
        return replace(pools, prior=prior, decoder=decoder, beside_prior=decoder.most)
    if pools.in_turn:
        return None
    if pools.decoder.most > 1:
        beside = max(1, pools.beside_prior - 1)
        least = min(decoder.least, beside)
        fewer = prior if pools.shared and pools.prior.most > decoder.most else pools.prior
        return replace(pools, prior=fewer, decoder=replace(decoder, least=least), beside_prior=beside)
    if pools.prior.most > 1:
        return replace(pools, prior=prior)
    return replace(pools, shared=False, in_turn=True) if pools.prior.most and pools.decoder.most else None


def without_prior(pools: Pools, nodes: Sequence[Node]) -> Pools:
    """The same pools for a pipeline that has no prior: the decoder may have its devices from the beginning."""
    beside = pools.beside_prior if pools.shared else pools.decoder.most
    return _with_cpus(replace(pools, prior=PoolSize(0, 0), beside_prior=beside), nodes)


def _with_cpus(pools: Pools, nodes: Sequence[Node]) -> Pools:
    """Share the CPUs out among all processes."""
    cpus = total(nodes, "CPU") or 1.0
    actors = (max if pools.in_turn else sum)((pools.prior.most, pools.decoder.most))
    room = cpus * ACTORS_PART / actors
    # An actor can only be where its card is, so all of a node's actors must fit its CPUs, with room for one task.
    cards = [node for node in nodes if node.get("NPU", 0) >= 1] if pools.kind == "ascend" else []
    beside = [node.get("CPU", 0.0) / (node["NPU"] * (2 if pools.shared else 1) + 1) for node in cards]
    actor_share, task_share = _rounded(min([room, *beside])), _rounded(cpus * TASK_PART)
    return replace(pools, actor_share=actor_share, task_share=task_share, threads=max(1, math.ceil(cpus / actors)))


def _rounded(share: float) -> float:
    """Down, so that the shares never add up to more than there is; no process asks for more than one CPU."""
    return min(1.0, max(0.01, math.floor(100 * share) / 100))


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


def _one_pool(stage: str, kind: DeviceKind, devices: Actors, prior: PoolSize | None, decoder: PoolSize | None) -> Pools:
    """The one pool of `--stage prior` or `--stage decode`, on all devices unless told otherwise."""
    none = PoolSize(0, 0)
    if stage == "prior":
        return Pools(kind, _on_all(kind, devices.prior, "prior", prior), none, 0)
    size = _on_all(kind, devices.decoder, "decoder", decoder)
    return Pools(kind, none, size, size.most)


def _on_all(kind: DeviceKind, cards: int, stage: str, asked: PoolSize | None) -> PoolSize:
    """A pool that has all devices to itself."""
    size = asked or PoolSize(max(1, cards), max(1, cards))
    if kind == "ascend" and size.least > cards:
        raise UsageError(f"option --{stage}-actors: asks for {size.least} NPUs, but the cluster has {cards}")
    return PoolSize(size.least, min(size.most, max(1, cards)) if kind == "ascend" else size.most)


def _on_own_cards(npus: int, prior: PoolSize | None, decoder: PoolSize | None, share: float) -> Pools:
    """Both pools on so many NPUs, one NPU per actor; the decoder gets most, and later all."""
    if prior is None:
        room = npus - (decoder.least if decoder else 1)
        # The pool that is done last sets the pace. Of equals fewer, because the decoder cannot give any back.
        size = min(range(1, room + 1), key=lambda n: max(share / n, (1 - share) / (npus - n)), default=1)
        prior = PoolSize(size, size)
    # The prior at its largest, because an actor that has to start again needs its NPU back.
    room = npus - prior.most
    if decoder is None:
        decoder = PoolSize(max(1, room), max(1, npus))
    if decoder.least > room:
        raise UsageError(
            f"the prior pool needs {prior.most} and the decoder pool at least {decoder.least}, together "
            f"{prior.most + decoder.least} NPUs, but the cluster has {npus}; lower --prior-actors or "
            "--decoder-actors, add nodes, let them share cards with --share-devices, or run with --device cpu"
        )
    return Pools("ascend", prior, replace(decoder, most=min(decoder.most, npus)), min(decoder.most, room))


def _on_shared_cards(
    npus: int, prior: PoolSize | None, decoder: PoolSize | None, share: float, memory: float | None
) -> Pools:
    """A decoder actor on each of so many NPUs, and beside some of them a prior actor."""
    if memory is None:
        raise UsageError(
            "option --share-devices: needs --device-memory, the GiB of one card (npu-smi info shows them), because "
            "each of two processes must be told how much of it is its own"
        )
    for name, size in (("prior", prior), ("decoder", decoder)):
        if size is not None and size.least != size.most:
            raise UsageError(f"option --{name}-actors: shared cards have fixed pools; give one number or auto")
    decoder = decoder or PoolSize(max(1, npus), max(1, npus))
    if prior is None:
        few = min(decoder.most, max(1, round(decoder.most * share)))
        prior = PoolSize(few, few)
    if decoder.most > npus or prior.most > decoder.most:
        raise UsageError(
            f"on shared cards {decoder.most} decoder actors need {decoder.most} NPUs and the cluster has {npus}, and "
            f"each of the {prior.most} prior actors needs a decoder actor to share with; lower --prior-actors or "
            "--decoder-actors"
        )
    return Pools("ascend", prior, decoder, decoder.most, shared=True)
