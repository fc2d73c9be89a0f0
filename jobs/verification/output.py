"""The check of an output against its manifest: every planned shard, then what else lies there, then the sums.

Files are read from their beginning to their end; of an index some columns are held at once. Damage is a `Finding`
and raises nothing.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import cast

import numpy as np
import pyarrow as pa

from jobs.run import run_folder
from jobs.verification.clip import check_clip, check_others
from jobs.verification.findings import Finding, ShardReport, Verdict
from jobs.verification.index import check_index, planned_rows
from jobs.verification.tar import check_tar
from manifests import storage
from manifests.batch import Batch
from manifests.commit import PARTS_FOLDER, member_suffixes, read_stats, staged_parts
from manifests.config import RunConfig
from manifests.errors import StorageError
from manifests.planning.plan import Plan, Window, batches_of, plan, share_of
from workers.stages.reseal import RESEAL_FOLDER, RETRY_FOLDER

#: Shards read at the same time; each holds one image and some index rows.
READERS = 8

_SHARD_FILE = re.compile(r"^(\d{5,})(\.tar|\.parquet|_stats\.json)$")


def planned_output(config: RunConfig) -> tuple[RunConfig, Plan, bool]:
    """The settings that an output was made with, the plan of its manifest, and whether that is the output's.

    Args:
        config: `manifest` and `output` are used.

    Raises:
        UsageError: there is no run in the output, or the manifest cannot be read.
    """
    _, stored = run_folder.begun(config.output)
    config = run_folder.settings(config.output, manifest=config.manifest)
    planned = plan(config, run_folder.ends_of(config))
    return config, planned, stored.get("fingerprint") == planned.fingerprint


def verify(config: RunConfig, share: tuple[int, int] = (0, 1), only: Collection[int] | None = None) -> Verdict:
    """Check the output against the manifest.

    Args:
        config: `manifest` and `output` are used; everything else comes from the output's own record.
        share: which shards to read, as `share_of`; of a part of them nobody can say that it holds all requests.
        only: of these the shards to read; None for all.

    Raises:
        UsageError: there is no run in the output, or the manifest cannot be read.
        StorageError: the output cannot be listed.
    """
    config, planned, is_right = planned_output(config)
    chosen = frozenset(share_of(planned, share)).intersection(range(len(planned.shards)) if only is None else only)
    verdict = Verdict(requests=planned.requests, shards=len(chosen))
    if not is_right:
        verdict.findings.append(Finding("manifest", ", ".join(config.manifest), "is not what the output was made of"))
    seen, failed = np.zeros(planned.requests, bool), np.zeros(planned.requests, bool)
    for report in _check_shards(config, planned, chosen):
        verdict.findings += report.findings
        verdict.damaged += [report.shard] if report.findings else []
        verdict.images_written += report.written
        verdict.images_failed += report.failed
        for flags, rows in ((seen, report.manifest_rows), (failed, report.failed_rows)):
            flags[rows[(rows >= 0) & (rows < planned.requests)]] = True
    verdict.failed, verdict.whole = int(failed.sum()), int((seen & ~failed).sum())
    if len(chosen) < len(planned.shards):
        verdict.requests = int(seen.sum())
    elif verdict.whole + verdict.failed != verdict.requests:
        lost = np.flatnonzero(~seen)
        verdict.findings.append(
            Finding("requests", "manifest", f"{len(lost)} requests are in no index, the first in row {lost[0]}")
        )
    verdict.findings += _check_folder(config.output, planned, unfinished=not verdict.right)
    return verdict


def _check_shards(config: RunConfig, planned: Plan, chosen: frozenset[int]) -> Iterator[ShardReport]:
    """Reports of the chosen shards; the manifest is read in order, the shards in threads behind it."""
    pending: set[Future[ShardReport]] = set()
    suffixes = member_suffixes(config)
    with ThreadPoolExecutor(READERS) as pool:
        for shard, batches in shards_of(config, planned, chosen):
            rows = planned_rows([batch.samples for batch in batches])
            pending.add(pool.submit(_check_shard, config.output, shard, rows, suffixes, config.keep_clip))
            # Bounded, so that the manifest does not pile up in memory before slow storage.
            while len(pending) >= 2 * READERS:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        yield from (future.result() for future in wait(pending).done)


def shards_of(config: RunConfig, planned: Plan, shards: Collection[int]) -> Iterator[tuple[int, Iterator[Batch]]]:
    """Numbers of shards, ascending, each with its batches; reads the rows of these alone."""
    batches = batches_of(config, windows_of(planned, shards), OfShards(frozenset(shards)))
    yield from itertools.groupby(batches, key=lambda batch: batch.shard)


def windows_of(planned: Plan, shards: Collection[int]) -> list[Window]:
    """The windows that some shards are of."""
    return [
        window
        for window in planned.windows
        if any(number in shards for number in range(window.first_shard, window.first_shard + window.shards))
    ]


@dataclass(frozen=True)
class OfShards:
    """All batches of some shards; a container of (shard, batch) pairs."""

    shards: frozenset[int]

    def __contains__(self, place: object) -> bool:
        return cast("tuple[int, int]", place)[0] in self.shards


def _check_shard(output: str, shard: int, planned: pa.Table, suffixes: Sequence[str], keep_clip: bool) -> ShardReport:
    """Read everything a sealed shard has and compare it.

    Args:
        planned: key and PLANNED_COLUMNS and `status` of the rows it must hold, in order.
        suffixes: what follows a key in the names of its members, the image's first.
        keep_clip: embeddings of its images must be there.
    """
    report = ShardReport(shard)
    try:
        stats = read_stats(output, shard)
    except FileNotFoundError:
        report.add("shards", f"shard {shard:05d}", "is planned, but has no stats file, so it is not sealed")
    except StorageError as error:
        report.add("stats", f"shard {shard:05d}", str(error))
    else:
        if stats.shard != shard:
            report.add("stats", f"shard {shard:05d}", f"its stats file is of shard {stats.shard}")
        rows = check_index(output, stats, planned, report)
        check_tar(output, stats, rows, suffixes, report)
        check_clip(output, stats, keep_clip, report)
    report.finish()
    return report


def _check_folder(output: str, planned: Plan, unfinished: bool) -> Iterator[Finding]:
    """What lies in the output besides the planned shards, and what does not."""
    names = storage.list_names(output)
    for name in names:
        match = _SHARD_FILE.match(name)
        if match and int(match.group(1)) >= len(planned.shards):
            yield Finding("shards", name, f"belongs to no planned shard; the plan has {len(planned.shards)}")
    yield from check_others(output, len(planned.shards))
    for shard, batches in staged_parts(output).items():
        yield Finding("left over", f"{PARTS_FOLDER}/{shard:05d}", f"{len(batches)} staged parts; start the job again")
    if staged_parts(storage.join(output, RETRY_FOLDER)) or storage.list_names(storage.join(output, RESEAL_FOLDER)):
        yield Finding("left over", RETRY_FOLDER, "rows of a --retry-errors that did not end; start it again")
    if "_SUCCESS" in names and unfinished:
        yield Finding("_SUCCESS", "_SUCCESS", "is there although the output is not right")
    if "_SUCCESS" not in names:
        yield Finding("_SUCCESS", "_SUCCESS", "is missing: the run did not end; start the job again")
