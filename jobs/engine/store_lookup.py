"""Which batches need no prior, asked of the embedding store's index before a pipeline begins.

Only who knows this can leave the prior out: a pool is part of a pipeline from its beginning. The question goes out in
one Ray task per window, and what comes back is one bit per batch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import ray

from manifests.batch import Batch
from manifests.config import RunConfig
from manifests.errors import KandinskyBatchError, UsageError
from manifests.planning.plan import Window, window_batches
from workers.embeddings.lookup import Memory, recallable

if TYPE_CHECKING:
    from jobs.engine.ledger import Wanted

#: Windows asked for at the same time, per CPU of the cluster.
_PER_CPU = 2


@dataclass(frozen=True)
class Chosen:
    """Those of some wanted batches that need the prior, or those that do not; a container of (shard, batch) pairs.

    Attributes:
        wanted: the batches to choose from.
        known: shard -> a number with bit b set where batch b needs no prior.
        needs_prior: choose those that do.
    """

    wanted: Wanted
    known: Mapping[int, int]
    needs_prior: bool

    def __contains__(self, place: object) -> bool:
        shard, batch = cast("tuple[int, int]", place)
        if place not in self.wanted:
            return False
        return bool(self.known.get(shard, 0) >> batch & 1) != self.needs_prior

    def narrow(self, batch: Batch) -> Batch:
        """The wanted rows of a batch."""
        return self.wanted.narrow(batch)


@dataclass
class WorkSplit:
    """Some work, split by what the store knows of it.

    Attributes:
        without_prior, with_prior: the two parts; a window may be in both.
        rows, rows_to_embed: in all, and that need the prior.
    """

    without_prior: list[tuple[Window, Wanted]] = field(default_factory=list)
    with_prior: list[tuple[Window, Wanted]] = field(default_factory=list)
    rows: int = 0
    rows_to_embed: int = 0


@dataclass(frozen=True)
class _Answer:
    """Of one window: as `Chosen.known`, how many batches were asked for, and how many rows."""

    known: Mapping[int, int]
    batches: int
    rows: int
    rows_to_embed: int


def split_work(
    config: RunConfig, work: Sequence[tuple[Window, Wanted]], memory: Memory, verify: bool = False
) -> WorkSplit:
    """Split the work into what needs the prior and what does not.

    Args:
        verify: read all embeddings. Else the index is believed, which may know what a damaged part has lost: a row may
            turn out unknown later on.

    Raises:
        StorageError: the store cannot be read.
    """
    split = WorkSplit()
    for (window, wanted), answer in zip(work, _answers(config, work, memory, verify), strict=True):
        count = sum(mask.bit_count() for mask in answer.known.values())
        if count:
            split.without_prior.append((window, Chosen(wanted, answer.known, needs_prior=False)))
        if count < answer.batches:
            split.with_prior.append((window, Chosen(wanted, answer.known, needs_prior=True)))
        split.rows += answer.rows
        split.rows_to_embed += answer.rows_to_embed
    return split


def check_known(config: RunConfig, work: Sequence[tuple[Window, Wanted]], memory: Memory) -> None:
    """That the store holds any embedding of what `--stage decode` is to make.

    Raises:
        UsageError: it holds none, and no row brings its own.
    """
    found = split_work(config, work, memory)
    if found.rows and found.rows == found.rows_to_embed:
        raise UsageError(
            f"the embedding store ({memory.url or 'none'}) has none of the {found.rows} embeddings that are wanted; "
            "give --embeddings where they are (same checkpoint, same kind of device), or run with --stage prior first, "
            "or with --stage all"
        )


def _answers(
    config: RunConfig, work: Sequence[tuple[Window, Wanted]], memory: Memory, verify: bool
) -> Iterator[_Answer]:
    ask = ray.remote(num_cpus=1, max_retries=3)(_ask)
    most = max(1, int(ray.cluster_resources().get("CPU", 1)) * _PER_CPU)
    running = [ask.remote(config, *item, memory, verify) for item in work[:most]]
    for position in range(len(work)):
        try:
            yield ray.get(running[position])
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, KandinskyBatchError):
                raise error.cause from error
            raise
        running[position] = None
        if position + most < len(work):
            running.append(ask.remote(config, *work[position + most], memory, verify))


def _ask(config: RunConfig, window: Window, wanted: Wanted, memory: Memory, verify: bool) -> _Answer:
    known: dict[int, int] = defaultdict(int)
    batches = rows = rows_to_embed = 0
    wanted_batches = (wanted.narrow(batch) for batch in window_batches(config, window, wanted))
    for batch, left in recallable(wanted_batches, memory, verify):
        batches += 1
        rows += len(batch.pending)
        rows_to_embed += left
        if not left:
            known[batch.shard] |= 1 << batch.index
    return _Answer(dict(known), batches, rows, rows_to_embed)
