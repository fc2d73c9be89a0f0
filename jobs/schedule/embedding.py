"""The prior's half of a run by itself: embeddings are computed and stored, some thousand rows at a time.

    read a window -> inputs -> prior pool -> store
    (CPU task)      (CPU)     (device)      (CPU)

`--stage prior` is nothing but this, and it is the first phase of a schedule with phases (jobs/schedule/phases.py). What
is stored is durable: whoever goes on after a kill finds it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from jobs.engine.ledger import unfenced
from jobs.engine.pipeline import Setup, Work, begin_pipeline, blocks_of, embedded, task_arguments
from manifests import storage
from manifests.batch import Batch, Bucket, unpack
from manifests.commit import FailureKind
from manifests.errors import REJECTED, SUCCESS, RowStatus, StorageError, general
from workers.embeddings.storing import newly_embedded, store_new

#: Rows that are stored together at most, as far as they come from one run of the pipeline, and per prior actor: what a
#: kill loses of the prior's work, some ten seconds of each device.
STORED_ROWS, STORED_ROWS_PER_ACTOR = 4096, 128


@dataclass(frozen=True)
class FailedRow:
    """A row that has no embedding: its batch, its position in that, and why."""

    shard: int
    batch: int
    row: int
    status: RowStatus
    message: str


@dataclass(frozen=True)
class PriorTime:
    """How long the prior worked on a batch.

    Attributes:
        rows: of the batch; `embedded` of them were not known before.
    """

    bucket: Bucket
    rows: int
    embedded: int
    seconds: float


@dataclass(frozen=True)
class Embedded:
    """Some batches whose embeddings are stored.

    Attributes:
        rows: that the prior embedded now; others were known.
        failed: rows without an embedding, those that the plan rejects too.
        times: of each batch that the prior worked on.
    """

    rows: int
    failed: tuple[FailedRow, ...]
    times: tuple[PriorTime, ...]

    @property
    def failed_here(self) -> list[FailedRow]:
        """Those that the plan had not rejected before."""
        return [row for row in self.failed if row.status != REJECTED]


def embed(setup: Setup, work: Sequence[Work], images: bool = True, together: int | None = None) -> Iterator[Embedded]:
    """Embed what the store does not know of these windows' wanted batches, and store it.

    A batch may be given up and never be told of: the store knows in the end.

    Args:
        setup: with a store; its pools have no decoder.
        images: load the images of the requests as well, so that rows fail whose image cannot be read.
        together: batches that go to an actor at a time, for the engine's sake; None for one that is a row of its own.

    Raises:
        StorageError: the store cannot be written or read.
        KandinskyBatchError: as `jobs.engine.pipeline.run_pipeline`.
    """
    size = setup.config.batch_size * (together or 1)
    stored_at_once = max(1, min(STORED_ROWS, STORED_ROWS_PER_ACTOR * setup.pools.prior.most) // size)
    with begin_pipeline(setup) as places:
        dataset = embedded(setup, work, places, images, together).map_batches(
            store_batches,
            batch_size=stored_at_once,
            batch_format="pyarrow",
            fn_args=(setup.memory.url, setup.fence),
            **task_arguments(setup),
        )
        for block in blocks_of(dataset):
            for row in block.to_pylist():
                if row["refused"] is not None:
                    raise StorageError(f"{row['refused']}. Nothing is lost; then the same command goes on from here")
                yield Embedded(
                    row["stored"],
                    tuple(FailedRow(*failed) for failed in json.loads(row["failed"])),
                    tuple(
                        PriorTime(Bucket.model_validate(bucket), *measured)
                        for bucket, *measured in json.loads(row["times"])
                    ),
                )


def store_batches(block: pa.Table, store_url: str, fence: Callable[[], None] = unfenced) -> pa.Table:
    """Stage: the new embeddings of several batches, as one part of the store."""
    batches = [Batch.from_block(each) for each in unpack(block)]
    failed = [failure for batch in batches for failure in _failures(batch)]
    times = [
        (batch.bucket.model_dump(), batch.samples.num_rows, newly_embedded(batch.samples), batch.seconds["prior"])
        for batch in batches
        if batch.bucket is not None and "prior" in batch.seconds
    ]
    stored, refused = 0, None
    try:
        with storage.fenced(fence):
            for _ in store_new((batch.samples for batch in batches), store_url):
                pass
        stored = sum(newly_embedded(batch.samples) for batch in batches)
    except StorageError as error:
        # As data, so that one full disk is not one of the errors that a pipeline may have.
        refused = str(error)
    result: dict[str, Any] = {"stored": [stored], "failed": [json.dumps(failed)], "times": [json.dumps(times)]}
    return pa.table({**result, "refused": pa.array([refused], pa.string())})


def _failures(batch: Batch) -> Iterator[tuple[int, int, int, str, str]]:
    columns = (batch.samples.column(name).to_pylist() for name in ("status", "error_message"))
    for row, (status, text) in enumerate(zip(*columns, strict=True)):
        if status != SUCCESS:
            yield batch.shard, batch.index, row, status, text


def failure_kinds(failed: Sequence[FailedRow]) -> list[FailureKind]:
    """The same by what their messages have in common, in the order in which they came first."""
    kinds: dict[tuple[str, str], FailureKind] = {}
    for row in failed:
        kind = row.status, general(row.message)
        count = kinds[kind].count if kind in kinds else 0
        example = kinds[kind].example if kind in kinds else row.message
        kinds[kind] = FailureKind(status=kind[0], reason=kind[1], count=count + 1, example=example)
    return list(kinds.values())
