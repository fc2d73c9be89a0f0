"""`--stage prior`: fills the embedding store with what a manifest needs, and makes no image.

    read a window -> inputs -> prior pool -> store, some thousand rows at a time
    (CPU task)      (CPU)     (device)      (CPU)

What is stored is read and checked, and skipped where it is right, so the same command goes on where it stopped and
mends a damaged store. The rows that cannot be embedded are told; they fail again, with their reasons in the index, when
the images are made.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from jobs.engine.cluster import ClusterShrankError, cluster, engine_log, reason
from jobs.engine.ledger import Ledger, unfenced
from jobs.engine.pipeline import (
    EngineStoppedError,
    Setup,
    Work,
    after_loss,
    begin_pipeline,
    blocks_of,
    compilations,
    devices,
    embedded,
    losses,
    task_arguments,
    timeline,
    windows_left,
)
from jobs.engine.pools import npus, size_pools
from jobs.engine.store_lookup import WorkSplit, split_work
from jobs.leases.fence import Fence
from jobs.limits.failed_rows import FailureLimit
from jobs.monitoring.pace import duration
from jobs.monitoring.progress import RunProgress
from jobs.run import run_folder
from jobs.run.signals import Stop, StopNowError
from manifests import storage
from manifests.batch import Batch
from manifests.commit import FailureKind
from manifests.config import RunConfig
from manifests.embeddings.store import tidy_index
from manifests.errors import SUCCESS, IncompleteRunError, StorageError, UsageError, general
from manifests.planning.plan import Plan, share_of
from workers.device.device import choose_device
from workers.embeddings.lookup import remembered
from workers.embeddings.storing import newly_embedded, store_new
from workers.fault_tolerance.attempts import start_attempts

#: Rows that are stored together, as far as they come from one run of the pipeline.
STORED_ROWS = 4096


class PriorReport(BaseModel):
    """Content of `_run/prior.json`.

    Attributes:
        images: whose embeddings were wanted; of these `known` were in the store before, `embedded` were computed now,
            and `failed` have none.
        devices: what the actors ran on (workers/device/device.py).
        compilations: with `--graph`, what was compiled on which device and for how long (workers/kandinsky/graph.py).
        lost_workers: processes that were lost, by cause.
        batches_again: batches that were made again because of it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    embeddings: str
    images: int
    known: int
    embedded: int
    failed: int
    failed_by_status: Mapping[str, int]
    failure_examples: Mapping[str, str]
    seconds: float
    devices: tuple[Mapping[str, Any], ...]
    compilations: tuple[Mapping[str, Any], ...]
    lost_workers: Mapping[str, int] = Field(default_factory=dict)
    batches_again: int = 0


class _Done:
    """What this start did."""

    def __init__(self) -> None:
        self.embedded = 0
        self.failed: Counter[str] = Counter()
        self.examples: dict[str, str] = {}
        self.devices: tuple[dict[str, Any], ...] = ()
        self.compilations: tuple[dict[str, Any], ...] = ()
        self.lost_workers: dict[str, int] = {}
        self.batches_again = 0


def run_prior_stage(
    config: RunConfig, planned: Plan, progress: RunProgress, stop: Stop, fence: Fence, began: float
) -> PriorReport:
    """Embed what the store does not know of this job's share of the plan.

    Raises:
        UsageError: there is no store to fill.
        IncompleteRunError: some rows are neither stored nor failed; starting again goes on.
        TooManyFailedError: more rows failed than `--max-failed` lets, or the first thousand in one way.
        StorageError: the store cannot be written or read.
    """
    store_url = config.embeddings_url
    if store_url is None:
        raise UsageError("option --stage: 'prior' fills the embedding store, so it needs one; leave --embeddings out")
    run_folder.begin(config, planned)
    # Of every batch, sealed or not: the store may be another one than the images were made with.
    ledger = Ledger({number: planned.shards[number].batches for number in share_of(planned, config.share)}, (), {})
    work = windows_left(planned, ledger)
    done = _Done()
    progress.publish()
    progress.phase("starting Ray")
    with engine_log() as said, cluster(progress.note) as found:
        stop.listen()
        device = choose_device(config, npus(found))
        pools = size_pools(config, device.kind, found)
        progress.note(f"device: {device.kind} ({device.reason})")
        memory = remembered(config, device.kind)
        setup = Setup(
            config,
            pools,
            planned.tasks,
            start_attempts(),
            progress.note,
            progress.engine,
            stop.look,
            memory,
            fence=fence.check,
        )
        progress.phase("asking the store")
        first = split_work(config, work, memory, verify=True)
        progress.start(first.rows, first.rows - first.rows_to_embed)
        try:
            _embed_missing(setup, first, progress, done, stop)
        except StopNowError:
            stop.check()
        except (EngineStoppedError, IncompleteRunError) as error:
            log = run_folder.write_error(config, said.text)
            left = f"some of {first.rows_to_embed} embeddings are missing"
            raise IncompleteRunError(
                f"{left}: {reason(str(error))} (more in {log}); the same command goes on from here"
            ) from error
        done.devices, done.compilations = devices(setup), compilations(setup)
        done.lost_workers, done.batches_again = losses(setup)
        run_folder.write_timeline(config, timeline(setup.attempts))
        tidy_index(store_url)
    progress.finish()
    report = PriorReport(
        embeddings=store_url,
        images=first.rows,
        known=first.rows - first.rows_to_embed,
        embedded=done.embedded,
        failed=sum(done.failed.values()),
        failed_by_status=dict(done.failed),
        failure_examples=done.examples,
        seconds=round(time.monotonic() - began, 3),
        devices=done.devices,
        compilations=done.compilations,
        lost_workers=done.lost_workers,
        batches_again=done.batches_again,
    )
    run_folder.write_report(config, "prior.json", report.model_dump(mode="json"))
    return report


def _embed_missing(setup: Setup, found: WorkSplit, progress: RunProgress, done: _Done, stop: Stop) -> None:
    """Run the pipeline until what is left is what fails, asking the store each time anew."""
    wanted, before = found.rows, found.rows_to_embed + 1
    while found.with_prior:
        if found.rows_to_embed >= before:
            raise IncompleteRunError(f"{found.rows_to_embed} embeddings were given up on the way")
        before = found.rows_to_embed
        progress.phase("starting the pool")
        stop.wait_for(setup.pools.prior.most)
        done.failed.clear()
        # Of this round alone: nothing is kept of rows that fail here.
        limit = FailureLimit(setup.config, wanted)
        try:
            for new, failed in _stored(setup, found.with_prior):
                progress.phase("embedding")
                progress.add(new, sum(failed.values()))
                done.embedded += new
                kinds = []
                for message, count in failed.items():
                    status, text = message.split(": ", 1)
                    done.failed[status] += count
                    done.examples.setdefault(status, text)
                    kinds.append(FailureKind(status=status, reason=general(text), count=count, example=text))
                limit.count(kinds, new)
                if stop.came():
                    stop.check()
                limit.check()
        except ClusterShrankError as error:
            setup = after_loss(setup)
            progress.note(f"{error}; going on with {setup.pools.in_words}")
            before += 1
        found = split_work(setup.config, found.with_prior, setup.memory, verify=True)
        if found.rows_to_embed == sum(done.failed.values()):
            return


def _stored(setup: Setup, work: Sequence[Work]) -> Iterator[tuple[int, dict[str, int]]]:
    """Of some batches at a time: rows stored, and how many failed with which reason."""
    config = setup.config
    with begin_pipeline(setup) as places:
        dataset = embedded(setup, work, places)
        together = max(1, STORED_ROWS // config.batch_size)
        dataset = dataset.map_batches(
            store_batches,
            batch_size=together,
            batch_format="pyarrow",
            fn_args=(config.embeddings_url, setup.fence),
            **task_arguments(setup),
        )
        for block in blocks_of(dataset):
            for row in block.to_pylist():
                if row["refused"] is not None:
                    raise StorageError(f"{row['refused']}. Nothing is lost; then the same command goes on from here")
                yield row["stored"], json.loads(row["failed"])


def store_batches(block: pa.Table, store_url: str, fence: Callable[[], None] = unfenced) -> pa.Table:
    """Stage: the new embeddings of several batches, as one part of the store."""
    batches = [Batch.from_block(block.slice(row, 1)) for row in range(block.num_rows)]
    failed: Counter[str] = Counter()
    stored, refused = 0, None
    for batch in batches:
        columns = (batch.samples.column(name).to_pylist() for name in ("status", "error_message"))
        failed.update(f"{status}: {text}" for status, text in zip(*columns, strict=True) if status != SUCCESS)
    try:
        with storage.fenced(fence):
            for _ in store_new((batch.samples for batch in batches), store_url):
                pass
        stored = sum(newly_embedded(batch.samples) for batch in batches)
    except StorageError as error:
        # As data, so that one full disk is not one of the errors that a pipeline may have.
        refused = str(error)
    result: dict[str, Any] = {"stored": [stored], "failed": [json.dumps(failed)]}
    return pa.table({**result, "refused": pa.array([refused], pa.string())})


def describe(report: PriorReport) -> str:
    """The report in a few lines for the person who waited."""
    lines = [
        f"{report.embedded} embeddings computed, {report.known} known before, {report.failed} failed "
        f"(of {report.images} images, in {duration(report.seconds)})"
    ]
    for status, count in report.failed_by_status.items():
        lines += [f"  {status}: {count}", f"    {report.failure_examples[status]}"]
    lines.append(f"embeddings: {report.embeddings}; --stage decode makes the images")
    return "\n".join(lines)
