"""The check of an output against its manifest: every planned shard, then what else lies there, then the sums.

Files are read from their beginning to their end; of an index some columns are held at once. Damage is a `Finding`
and raises nothing.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

import numpy as np
import pyarrow as pa

from jobs.run import run_folder
from jobs.verification.findings import Finding, ShardReport, Verdict
from jobs.verification.index import check_index, planned_rows
from jobs.verification.tar import check_tar
from manifests import storage
from manifests.commit import PARTS_FOLDER, member_suffixes, read_stats, staged_parts
from manifests.config import RunConfig
from manifests.errors import StorageError
from manifests.planning.plan import Plan, batches_of, plan
from workers.stages.reseal import RESEAL_FOLDER, RETRY_FOLDER

#: Shards read at the same time; each holds one image and some index rows.
READERS = 8

_SHARD_FILE = re.compile(r"^(\d{5,})(\.tar|\.parquet|_stats\.json)$")


def verify(config: RunConfig) -> Verdict:
    """Check the output against the manifest.

    Args:
        config: `manifest` and `output` are used; everything else comes from the output's own record.

    Raises:
        UsageError: there is no run in the output, or the manifest cannot be read.
        StorageError: the output cannot be listed.
    """
    _, stored = run_folder.begun(config.output)
    config = run_folder.settings(config.output, manifest=config.manifest)
    planned = plan(config, run_folder.ends_of(config))
    verdict = Verdict(requests=planned.requests, shards=len(planned.shards))
    if stored.get("fingerprint") != planned.fingerprint:
        verdict.findings.append(Finding("manifest", ", ".join(config.manifest), "is not what the output was made of"))
    seen, failed = np.zeros(planned.requests, bool), np.zeros(planned.requests, bool)
    for report in _check_shards(config, planned):
        verdict.findings += report.findings
        verdict.images_written += report.written
        verdict.images_failed += report.failed
        for flags, rows in ((seen, report.manifest_rows), (failed, report.failed_rows)):
            flags[rows[(rows >= 0) & (rows < planned.requests)]] = True
    verdict.failed, verdict.whole = int(failed.sum()), int((seen & ~failed).sum())
    if verdict.whole + verdict.failed != verdict.requests:
        lost = np.flatnonzero(~seen)
        verdict.findings.append(
            Finding("requests", "manifest", f"{len(lost)} requests are in no index, the first in row {lost[0]}")
        )
    verdict.findings += _check_folder(config.output, planned, unfinished=not verdict.right)
    return verdict


def _check_shards(config: RunConfig, planned: Plan) -> Iterator[ShardReport]:
    """Reports of all planned shards; the manifest is read in order, the shards in threads behind it."""
    pending: set[Future[ShardReport]] = set()
    suffixes = member_suffixes(config)
    with ThreadPoolExecutor(READERS) as pool:
        for shard, batches in itertools.groupby(batches_of(config, planned.windows), key=lambda batch: batch.shard):
            rows = planned_rows([batch.samples for batch in batches])
            pending.add(pool.submit(_check_shard, config.output, shard, rows, suffixes))
            # Bounded, so that the manifest does not pile up in memory before slow storage.
            while len(pending) >= 2 * READERS:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        yield from (future.result() for future in wait(pending).done)


def _check_shard(output: str, shard: int, planned: pa.Table, suffixes: Sequence[str]) -> ShardReport:
    """Read everything a sealed shard has and compare it.

    Args:
        planned: key and PLANNED_COLUMNS and `status` of the rows it must hold, in order.
        suffixes: what follows a key in the names of its members, the image's first.
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
    report.finish()
    return report


def _check_folder(output: str, planned: Plan, unfinished: bool) -> Iterator[Finding]:
    """What lies in the output besides the planned shards, and what does not."""
    names = storage.list_names(output)
    for name in names:
        match = _SHARD_FILE.match(name)
        if match and int(match.group(1)) >= len(planned.shards):
            yield Finding("shards", name, f"belongs to no planned shard; the plan has {len(planned.shards)}")
    for shard, batches in staged_parts(output).items():
        yield Finding("left over", f"{PARTS_FOLDER}/{shard:05d}", f"{len(batches)} staged parts; start the job again")
    if staged_parts(storage.join(output, RETRY_FOLDER)) or storage.list_names(storage.join(output, RESEAL_FOLDER)):
        yield Finding("left over", RETRY_FOLDER, "rows of a --retry-errors that did not end; start it again")
    if "_SUCCESS" in names and unfinished:
        yield Finding("_SUCCESS", "_SUCCESS", "is there although the output is not right")
    if "_SUCCESS" not in names:
        yield Finding("_SUCCESS", "_SUCCESS", "is missing: the run did not end; start the job again")
