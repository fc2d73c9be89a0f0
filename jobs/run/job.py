"""One run from config to report: plan, go on from what is there, make what is missing, seal, count."""

from __future__ import annotations

import contextlib
import functools
import platform
import sys
import time
import traceback
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from jobs.cost.achieved import Achieved, StageRate
from jobs.cost.price import models_of
from jobs.cost.step_times import Measured, Stopwatch
from jobs.engine.cluster import ClusterShrankError, EngineLog, connecting, reason
from jobs.engine.ledger import Ledger, Sealer
from jobs.engine.pipeline import EngineStoppedError, compilations, devices, losses, timeline, windows_left
from jobs.engine.store_lookup import check_known
from jobs.leases.fence import Fence, LeaseLostError
from jobs.leases.lease import Lease
from jobs.limits import disk_space
from jobs.limits.failed_rows import FailureLimit
from jobs.monitoring.facts import INVALID
from jobs.monitoring.pace import Pace, duration
from jobs.monitoring.progress import RunProgress
from jobs.run import run_folder
from jobs.run.outcome import count_outcome, failures_before, staged_failures
from jobs.run.parallel_planning import plan_job
from jobs.run.prior_stage import PriorReport, run_prior_stage
from jobs.run.prior_stage import describe as describe_prior_stage
from jobs.run.retry_errors import FailedRows, failed_rows, retry
from jobs.run.signals import Stop, StopNowError
from jobs.schedule.embedding import Embedded, failure_kinds
from jobs.schedule.running import Running, start
from manifests import storage
from manifests.commit import Receipt, sealed_shards, staged_parts
from manifests.config import RunConfig
from manifests.embeddings.store import tidy_index
from manifests.errors import IncompleteRunError, KandinskyBatchError, StorageError
from manifests.planning.plan import Plan, share_of
from manifests.planning.sources import describe as describe_sources
from workers import metrics
from workers.checkpoints import locations
from workers.stages.reseal import finish_reseals

#: Packages whose version may change an image or a run.
PACKAGES = ("kandinsky-batch", "ray", "mindspore", "mindone", "transformers", "numpy", "pyarrow")


class RunReport(BaseModel):
    """Content of `_run/run.json`.

    Attributes:
        written, failed: rows of the whole output with and without an image.
        shards: of the output, or of this job's share where `open_shards` others are not known to be done.
        made: rows that this start ended, one way or the other; the others were there before.
        embedded: of these, rows that the prior embedded; the others' embeddings were known, or they failed before.
        seconds: of this start, in all; `start_seconds` of it until the first batch was there.
        images_per_second: from the first batch to the last, without the start; None where only a few came.
        schedule: 'pools' or 'phases' (jobs/schedule/arrange.py), and `schedule_reason` why.
        graphs: what was compiled, and why, in a line (jobs/schedule/graphs.py).
        pools: sizes and shares (jobs/engine/pools.py); devices: what their actors ran on (workers/device/device.py).
        achieved: by stage, what a device did per second in its calls (jobs/cost/achieved.py).
        compilations: what was compiled on which device, for how long and to what gain (workers/kandinsky/graph.py).
        lost_workers: processes that ended in the middle of their work, by cause (workers/fault_tolerance/losses.py).
        batches_again: batches that were made again because of it, or because the engine gave them up.
        memory_relief: what the run did to go on with less memory, one line each (workers/fault_tolerance/memory.py).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    output: str
    requests: int
    written: int
    failed: int
    failed_by_status: Mapping[str, int]
    failure_examples: Mapping[str, tuple[str, ...]]
    shards: int
    open_shards: int
    made: int
    embedded: int
    seconds: float
    start_seconds: float | None
    images_per_second: float | None
    device: str | None
    device_reason: str | None
    schedule: str | None = None
    schedule_reason: str | None = None
    graphs: str | None = None
    pools: Mapping[str, Any] | None
    devices: tuple[Mapping[str, Any], ...]
    achieved: Mapping[str, StageRate] = Field(default_factory=dict)
    compilations: tuple[Mapping[str, Any], ...]
    lost_workers: Mapping[str, int]
    batches_again: int
    memory_relief: tuple[str, ...] = ()
    versions: Mapping[str, str]


class _Done:
    """What this start did; filled in on the way."""

    def __init__(self, config: RunConfig, limit: FailureLimit, embedding_limit: FailureLimit) -> None:
        self._limit = config.call_limit
        #: Of each stage; filled in once the checkpoint's configs are read.
        self.achieved = Achieved(None)
        #: Of a schedule with phases, the prior's failures have a limit of their own: they are counted again as images.
        self.limit, self.embedding_limit = limit, embedding_limit
        self.made = 0
        self.embedded = 0
        self.first_batch: float | None = None
        self._pace = Pace(sys.maxsize)
        self.device: str | None = None
        self.device_reason: str | None = None
        self.schedule: str | None = None
        self.schedule_reason: str | None = None
        self.graphs: str | None = None
        self.pools: dict[str, Any] | None = None
        self.devices: tuple[dict[str, Any], ...] = ()
        self.compilations: tuple[dict[str, Any], ...] = ()
        self.lost_workers: dict[str, int] = {}
        self.batches_again = 0
        self.memory_relief: tuple[str, ...] = ()
        self.times = Stopwatch()

    def add(self, receipt: Receipt) -> None:
        """Count a batch that just came."""
        self.times.add(receipt)
        self.achieved.add(receipt, self._limit)
        self.made += receipt.count
        self.embedded += receipt.embedded
        self.first_batch = self.first_batch or time.monotonic()
        self._pace.add(receipt.count)

    def add_embedded(self, stored: Embedded) -> None:
        """Count what a phase of the prior has stored."""
        self.embedded += stored.rows
        for call in stored.times:
            self.times.add_prior(call.bucket, call.rows, call.seconds)
            self.achieved.add_prior(call.bucket, call.embedded, call.seconds)
        # The plan has counted those that it rejects.
        self.embedding_limit.count(failure_kinds(stored.failed_here), stored.rows)

    @property
    def too_many(self) -> bool:
        """More rows have failed than may."""
        return self.limit.too_many or self.embedding_limit.too_many

    @property
    def rate(self) -> float | None:
        """Rows per second since the first batch; None where a few batches are all that came."""
        rate = self._pace.overall_rate
        return None if rate is None else round(rate, 4)


def run_job(config: RunConfig, progress: RunProgress) -> RunReport | PriorReport:
    """Do the whole job; returns its report, which is written to the output as well.

    Raises:
        UsageError: it cannot start like this; nothing was computed.
        IncompleteRunError: some rows are neither written nor failed; starting again goes on.
        TooManyFailedError: more rows failed than `--max-failed` lets, or the first thousand in one way.
        StorageError: the output cannot be written or read.
    """
    began = time.monotonic()
    with Stop(config.grace, progress.note) as stop:
        progress.phase("planning")
        config = run_folder.as_begun(config)
        planned = plan_job(config, run_folder.ends_of(config))
        for line in describe_sources(planned.sources):
            progress.note(line)
        locations.check(config.checkpoint, planned.samples_by_task if config.stage != "prior" else ())
        # Before the lease, which would be the first thing of ours in a folder that is somebody else's.
        run_folder.check(config, planned)
        # A lease is ours after a second only, in which Ray can start, where there is likely to be something to make.
        finished = run_folder.is_finished(config.output)
        ahead = contextlib.nullcontext() if finished else connecting(progress.note)
        with ahead, Lease(config.output, config.share, progress.note) as lease:
            stop.also = lease.check
            run = run_prior_stage if config.stage == "prior" else _run_share
            fence = lease.fence
            with progress.status_file(config.output, config.share, fence.check), storage.fenced(fence.check):
                return run(config, planned, progress, stop, fence, began)


def _run_share(
    config: RunConfig, planned: Plan, progress: RunProgress, stop: Stop, fence: Fence, began: float
) -> RunReport:
    """Do this job's share of the plan, which is all of it unless `--shards` says otherwise."""
    run_folder.begin(config, planned)
    numbers = share_of(planned, config.share)
    finish_reseals(config.output, numbers)
    batches = {number: planned.shards[number].batches for number in numbers}
    ledger = Ledger(batches, sealed_shards(config.output), staged_parts(config.output))
    if config.retry_errors:
        # Of shards that are not sealed yet they are made with what is missing.
        ledger.drop(staged_failures(config.output, ledger))
    progress.plan_shards(len(ledger.batches), ledger.sealed)
    totals = _totals(planned, ledger)
    progress.start_tasks(totals)
    total = sum(planned.shards[number].rows for number in numbers)
    before = failures_before(config, planned, ledger)
    done = _Done(config, FailureLimit(config, total, before), FailureLimit(config, total, before))
    failed = failed_rows(config, planned, ledger.sealed) if config.retry_errors else FailedRows({})
    if ledger.missing or failed.count:
        done.limit.check()
        left = sum(rows - made for name, (rows, made) in totals.items() if name != INVALID)
        disk_space.check(config, planned, left, run_folder.known_times(config), progress.note)
    if ledger.missing or ledger.to_seal or failed.count:
        _make_missing(config, planned, ledger, failed, progress, done, stop, fence)
    else:
        progress.phase("nothing to do: every shard is sealed")
    # Whoever is the last of several finds all of it done.
    whole = sealed_shards(config.output).issuperset(range(len(planned.shards)))
    outcome = count_outcome(config.output, planned, None if whole else numbers)
    report = RunReport(
        output=config.output,
        requests=planned.requests,
        written=outcome.written,
        failed=sum(outcome.failed.values()),
        failed_by_status=outcome.failed,
        failure_examples={status: tuple(reasons) for status, reasons in outcome.examples.items()},
        shards=len(planned.shards) if whole else len(numbers),
        open_shards=0 if whole else len(planned.shards) - len(numbers),
        made=done.made,
        embedded=done.embedded,
        seconds=round(time.monotonic() - began, 3),
        start_seconds=round(done.first_batch - began, 3) if done.first_batch else None,
        images_per_second=done.rate,
        device=done.device,
        device_reason=done.device_reason,
        schedule=done.schedule,
        schedule_reason=done.schedule_reason,
        graphs=done.graphs,
        pools=done.pools,
        devices=done.devices,
        achieved=done.achieved.rates([device["chip"] for device in done.devices]),
        compilations=done.compilations,
        lost_workers=done.lost_workers,
        batches_again=done.batches_again,
        memory_relief=done.memory_relief,
        versions=_versions(),
    )
    run_folder.finish(config, report.model_dump(mode="json"), anew=bool(done.made), whole=whole)
    return report


def _make_missing(
    config: RunConfig,
    planned: Plan,
    ledger: Ledger,
    failed: FailedRows,
    progress: RunProgress,
    done: _Done,
    stop: Stop,
    fence: Fence,
) -> None:
    """Start Ray, run the pipeline over the missing batches, and see every whole shard sealed; then try what failed."""
    progress.publish()
    known = functools.partial(run_folder.known_times, config)
    with start(config, planned, progress, stop, known, fence.check) as running:
        device, schedule = running.device, running.schedule
        done.device, done.device_reason = device.kind, device.reason
        done.schedule, done.schedule_reason = schedule.name, schedule.reason
        done.graphs = running.graphs.in_words
        done.pools = asdict(schedule.pools)
        done.achieved = Achieved(models_of(config.checkpoint, "inpaint" in planned.tasks), metrics.count_work)
        sealer = Sealer(config, ledger.batches, tell=progress.sealed, fence=fence.check)
        for shard in ledger.to_seal:
            sealer.add(shard)
        try:
            memory = running.setup.memory
            if config.stage == "decode":
                check_known(config, windows_left(planned, ledger), memory)
            if ledger.missing:
                _make(running, planned, ledger, sealer, progress, done, stop)
            progress.phase("sealing the last shards")
            sealer.finish(lambda left: running.setup.look(None))
            stop.check()
            if ledger.missing or failed.count:
                done.limit.check()
            if ledger.missing:
                done.embedding_limit.check()
            if failed.count and not ledger.missing:
                _retry(running, planned, failed, progress, done, stop)
        except StopNowError:
            stop.check()
        except (EngineStoppedError, IncompleteRunError) as error:
            raise _incomplete(config, ledger, running.said, error) from error
        except LeaseLostError:
            raise
        except StorageError as error:
            raise StorageError(f"{error}. Nothing is lost; then the same command goes on from here") from error
        finally:
            # Good for an estimate and a chart only, so nothing fails because of it.
            with contextlib.suppress(StorageError):
                done.devices, done.compilations = devices(running.setup), compilations(running.setup)
                choice = running.graphs.choice
                measured = Measured(choice, done.compilations, done.devices)
                times = done.times.record(device.kind, config.call_limit, schedule.pools, measured)
                run_folder.write_times(config, times)
                run_folder.write_timeline(config, timeline(running.setup.attempts))
        if ledger.missing:
            raise _incomplete(config, ledger, running.said)
        done.lost_workers, again, done.memory_relief = losses(running.setup)
        done.batches_again += again
        if memory.url is not None:
            tidy_index(memory.url)
    progress.finish()


def _make(
    running: Running, planned: Plan, ledger: Ledger, sealer: Sealer, progress: RunProgress, done: _Done, stop: Stop
) -> None:
    """Make what is missing; and again what was given up on the way, as long as that makes any of it."""

    def hear(stored: Embedded) -> bool:
        progress.phase("embedding")
        done.add_embedded(stored)
        progress.achieved(done.achieved.tflops)
        return stop.came() or done.too_many

    running.hear = hear
    before = ledger.missing + 1
    while 0 < ledger.missing < before:
        before = ledger.missing
        progress.phase("starting the pools")
        stop.wait_for(running.setup.pools.decoder.most)
        try:
            for receipt in running.receipts(windows_left(planned, ledger)):
                progress.phase("making images")
                progress.received(receipt)
                done.add(receipt)
                progress.achieved(done.achieved.tflops)
                if ledger.is_missing(receipt.shard, receipt.batch):
                    done.limit.add(receipt)
                if ledger.record(receipt):
                    sealer.add(receipt.shard)
                sealer.poll()
                if stop.came() or (done.limit.too_many and ledger.missing):
                    return
            if stop.asked or (done.too_many and ledger.missing):
                return
            if running.setup.trust_index and ledger.missing:
                # What came back as nothing may have been known to the store's index only.
                running.setup, before = replace(running.setup, trust_index=False), ledger.missing + 1
        except ClusterShrankError as error:
            running.lose(error)
            done.pools = asdict(running.setup.pools)
            before = ledger.missing + 1
            continue
        if ledger.missing:
            done.batches_again += ledger.missing
            progress.note(f"{ledger.missing} batches were given up on the way")


def _retry(running: Running, planned: Plan, failed: FailedRows, progress: RunProgress, done: _Done, stop: Stop) -> None:
    """Try the failed rows again."""
    progress.phase(f"trying {failed.count} failed rows again")
    progress.start(failed.count)
    stop.wait_for(running.setup.pools.decoder.most)
    run_folder.unfinish(running.setup.config)

    def on_embedded(stored: Embedded) -> bool:
        done.add_embedded(stored)
        return stop.came()

    running.hear = on_embedded
    tried: set[tuple[int, int]] = set()

    def on_receipt(receipt: Receipt) -> bool:
        progress.received(receipt)
        done.add(receipt)
        if (receipt.shard, receipt.batch) not in tried:
            tried.add((receipt.shard, receipt.batch))
            done.limit.add_retried(receipt)
        return stop.came() or done.limit.too_many

    try:
        retry(running, planned, failed, on_receipt)
    except IncompleteRunError:
        done.limit.check()
        raise
    finally:
        # Of an end that was asked for, not of what is missing because of it.
        stop.check()


def _incomplete(
    config: RunConfig, ledger: Ledger, said: EngineLog, error: KandinskyBatchError | None = None
) -> IncompleteRunError:
    """What is missing and why, with everything the engine said kept in the run's files."""
    why = str(error) if error else reason(said.text)
    trace = "".join(traceback.format_exception(error)) if error else ""
    log = run_folder.write_error(config, f"{said.text}\n{trace}")
    total = sum(ledger.batches.values())
    return IncompleteRunError(
        f"{ledger.missing} of {total} batches are missing: {why} (more in {log}); the same command goes on from here"
    )


def _totals(planned: Plan, ledger: Ledger) -> dict[str, tuple[int, int]]:
    """By task, rows in all and rows made before; of a shard under way an estimate, because its batches differ in size.

    Rows that failed validation have a count of their own.
    """
    total: Counter[str] = Counter()
    done: Counter[str] = Counter()
    for number in ledger.batches:
        shard = planned.shards[number]
        left = shard.rows_in(ledger.missing_of([number]).count)
        # The rejected rows of a shard come last.
        made = min(shard.samples, shard.rows - left)
        for name, rows, before in (
            (shard.task or INVALID, shard.samples, made),
            (INVALID, shard.rejected, shard.rows - left - made),
        ):
            if rows:
                total[name] += rows
                done[name] += before
    return {name: (total[name], done[name]) for name in sorted(total, key=lambda name: (name == INVALID, name))}


def _versions() -> dict[str, str]:
    """Versions by the packages' metadata; nothing is imported for it."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def describe(report: RunReport | PriorReport) -> str:
    """The report in a few lines for the person who waited."""
    if isinstance(report, PriorReport):
        return describe_prior_stage(report)
    rate = f", {report.images_per_second:.2f} images/s" if report.images_per_second else ""
    now = f"{report.made} now in {duration(report.seconds)}{rate}" if report.made else "all of them before"
    lines = [f"{report.written} images written, {report.failed} failed ({now})"]
    for status, count in report.failed_by_status.items():
        lines.append(f"  {status}: {count}")
        reasons = report.failure_examples.get(status, ())
        lines += [f"    {reason}" for reason in reasons]
        if count > len(reasons):
            lines.append(f"    and {count - len(reasons)} more; the indexes (*.parquet) have all of them")
    lines.append(f"output: {report.output} ({report.shards} shards)")
    if report.open_shards:
        lines.append(f"this was one share; {report.open_shards} shards are the work of other jobs (--shards)")
    return "\n".join(lines)
