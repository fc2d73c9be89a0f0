"""`--stage prior`: fills the embedding store with what a manifest needs, and makes no image.

What it runs is jobs/schedule/embedding.py. What is stored is read and checked, and skipped where it is right, so the
same command goes on where it stopped and mends a damaged store. The rows that cannot be embedded are told; they fail
again, with their reasons in the index, when the images are made.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from jobs.engine.cluster import ClusterShrankError, reason
from jobs.engine.ledger import Ledger
from jobs.engine.pipeline import EngineStoppedError, compilations, devices, losses, timeline, windows_left
from jobs.engine.store_lookup import WorkSplit, split_work
from jobs.leases.fence import Fence
from jobs.limits.failed_rows import FailureLimit
from jobs.monitoring.pace import duration
from jobs.monitoring.progress import RunProgress
from jobs.run import run_folder
from jobs.run.signals import Stop, StopNowError
from jobs.schedule.embedding import embed, failure_kinds
from jobs.schedule.running import Running, start
from manifests.config import RunConfig
from manifests.embeddings.store import tidy_index
from manifests.errors import IncompleteRunError, UsageError
from manifests.planning.plan import Plan, share_of


class PriorReport(BaseModel):
    """Content of `_run/prior.json`.

    Attributes:
        images: whose embeddings were wanted; of these `known` were in the store before, `embedded` were computed now,
            and `failed` have none.
        devices: what the actors ran on (workers/device/device.py).
        compilations: with `--graph`, what was compiled on which device and for how long (workers/kandinsky/graph.py).
        lost_workers: processes that were lost, by cause.
        batches_again: batches that were made again because of it.
        memory_relief: what the run did to go on with less memory, one line each.
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
    memory_relief: tuple[str, ...] = ()


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
        self.memory_relief: tuple[str, ...] = ()


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
    with start(config, planned, progress, stop, fence=fence.check) as running:
        progress.phase("asking the store")
        first = split_work(config, work, running.setup.memory, verify=True)
        progress.start(first.rows, first.rows - first.rows_to_embed)
        try:
            _embed_missing(running, first, progress, done, stop)
        except StopNowError:
            stop.check()
        except (EngineStoppedError, IncompleteRunError) as error:
            log = run_folder.write_error(config, running.said.text)
            left = f"some of {first.rows_to_embed} embeddings are missing"
            raise IncompleteRunError(
                f"{left}: {reason(str(error))} (more in {log}); the same command goes on from here"
            ) from error
        done.devices, done.compilations = devices(running.setup), compilations(running.setup)
        done.lost_workers, done.batches_again, done.memory_relief = losses(running.setup)
        run_folder.write_timeline(config, timeline(running.setup.attempts))
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
        memory_relief=done.memory_relief,
    )
    run_folder.write_report(config, "prior.json", report.model_dump(mode="json"))
    return report


def _embed_missing(running: Running, found: WorkSplit, progress: RunProgress, done: _Done, stop: Stop) -> None:
    """Run the pipeline until what is left is what fails, asking the store each time anew."""
    config = running.setup.config
    wanted, before = found.rows, found.rows_to_embed + 1
    while found.with_prior:
        if found.rows_to_embed >= before:
            raise IncompleteRunError(f"{found.rows_to_embed} embeddings were given up on the way")
        before = found.rows_to_embed
        progress.phase("starting the pool")
        stop.wait_for(running.setup.pools.prior.most)
        done.failed.clear()
        # Of this round alone: nothing is kept of rows that fail here.
        limit = FailureLimit(config, wanted)
        try:
            for stored in embed(running.setup, found.with_prior):
                progress.phase("embedding")
                progress.add(stored.rows, len(stored.failed))
                done.embedded += stored.rows
                kinds = failure_kinds(stored.failed)
                for kind in kinds:
                    done.failed[kind.status] += kind.count
                    done.examples.setdefault(kind.status, kind.example)
                limit.count(kinds, stored.rows)
                if stop.came():
                    stop.check()
                limit.check()
        except ClusterShrankError as error:
            running.lose(error)
            before += 1
        found = split_work(config, found.with_prior, running.setup.memory, verify=True)
        if found.rows_to_embed == sum(done.failed.values()):
            return


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
