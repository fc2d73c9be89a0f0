"""Prove what an output holds: every request written or failed, nothing lost, doubled or damaged.

    python jobs/verify.py --manifest requests.parquet --output images

Reads the manifest and the output, every byte of it, and nothing else; changes nothing. Exit code 0: all of it is
right. 1: something is not, and the table says what. 2: the command line, the manifest or the output cannot be used.
"""

from __future__ import annotations

import itertools
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

# The script must run from any folder, installed or not, so this source tree comes first. Its own folder goes,
# because a module there could hide one of the same name that others import.
_ROOT = str(Path(__file__).resolve().parent.parent)
sys.path[:] = [
    _ROOT,
    *(entry for entry in sys.path if entry not in (_ROOT, str(Path(__file__).resolve().parent))),
]

import numpy as np  # noqa: E402
import pyarrow as pa  # noqa: E402
from pydantic import ValidationError  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from jobs.cli import EXIT_INCOMPLETE, EXIT_OK, parse_config, run_script  # noqa: E402
from jobs.run import run_folder  # noqa: E402
from jobs.verification.shard import Finding, ShardReport, check_shard, planned_rows  # noqa: E402
from manifests import storage  # noqa: E402
from manifests.commit import PARTS_FOLDER, member_suffixes, staged_parts  # noqa: E402
from manifests.config import RunConfig  # noqa: E402
from manifests.errors import UsageError  # noqa: E402
from manifests.planning.plan import Plan, batches_of, plan  # noqa: E402
from workers.stages.reseal import RESEAL_FOLDER, RETRY_FOLDER  # noqa: E402

#: Shards read at the same time; each holds one image and some index rows.
READERS = 8

#: Findings printed; the table counts all of them.
SHOWN = 30

#: What is proved, in the words of the table.
CHECKS = {
    "manifest": "the manifest is the one that the output was made of",
    "shards": "every planned shard is sealed, and there is no other",
    "index": "every planned sample is in the index once, as the manifest asks for it",
    "tar": "tar and index hold the same samples, in the same order, with the same records",
    "images": "every image has the SHA-256 that the index says",
    "stats": "counts, sizes and checksums of the stats files are right",
    "requests": "requests = written + failed",
    "left over": "no staged parts are left",
    "_SUCCESS": "the marker of a finished run is there where the run is finished",
}

_SHARD_FILE = re.compile(r"^(\d{5,})(\.tar|\.parquet|_stats\.json)$")


@dataclass
class Verdict:
    """What was found in an output.

    Attributes:
        findings: everything that is wrong.
        requests: rows of the manifest; `whole` of them have all their images, `failed` lack one at least.
        images_written, images_failed: rows of the indexes.
    """

    findings: list[Finding] = field(default_factory=list)
    requests: int = 0
    whole: int = 0
    failed: int = 0
    images_written: int = 0
    images_failed: int = 0
    shards: int = 0

    @property
    def right(self) -> bool:
        """True where nothing is wrong."""
        return not self.findings


def verify(config: RunConfig) -> Verdict:
    """Check the output against the manifest.

    Args:
        config: `manifest` and `output` are used; everything else comes from the output's own record.

    Raises:
        UsageError: there is no run in the output, or the manifest cannot be read.
        StorageError: the output cannot be listed.
    """
    stored = _stored(config.output, "plan.json")
    config = _with_settings(config, _stored(config.output, "config.json"))
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
            pending.add(pool.submit(check_shard, config.output, shard, rows, suffixes))
            # Bounded, so that the manifest does not pile up in memory before slow storage.
            while len(pending) >= 2 * READERS:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        yield from (future.result() for future in wait(pending).done)


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


def _stored(output: str, name: str) -> dict[str, object]:
    url = storage.join(output, "_run", name)
    try:
        content: dict[str, object] = json.loads(storage.read_bytes(url))
    except FileNotFoundError:
        raise UsageError(f"{output} has no _run/{name}, so no run was begun there; check --output") from None
    except ValueError as error:
        raise UsageError(f"{url} cannot be read: {error}") from error
    return content


def _with_settings(config: RunConfig, stored: dict[str, object]) -> RunConfig:
    """The settings that the output was made with, on the locations that were given."""
    try:
        return RunConfig.model_validate(
            {**stored, "manifest": config.manifest, "output": config.output, "append": False}
        )
    except ValidationError as error:
        detail = error.errors()[0]
        raise UsageError(
            f"{config.output}/_run/config.json is not of this version: {detail['loc'][0]}: {detail['msg']}"
        ) from error


def show(verdict: Verdict, console: Console) -> None:
    """Print the table, what is wrong, and the sum."""
    counts = Counter(finding.check for finding in verdict.findings)
    table = Table(box=None, pad_edge=False)
    table.add_column("check", no_wrap=True)
    table.add_column("what is proved")
    table.add_column("result", no_wrap=True)
    for check, meaning in CHECKS.items():
        table.add_row(check, meaning, f"{counts[check]} wrong" if counts[check] else "ok")
    console.print(table)
    for finding in verdict.findings[:SHOWN]:
        console.print(
            f"{finding.check}: {finding.place}: {finding.what}", markup=False, highlight=False, soft_wrap=True
        )
    if len(verdict.findings) > SHOWN:
        console.print(f"and {len(verdict.findings) - SHOWN} more", highlight=False)
    console.print(
        f"{verdict.requests} requests, {verdict.whole} written + {verdict.failed} failed; "
        f"{verdict.images_written} images written, {verdict.images_failed} failed, {verdict.shards} shards: "
        f"{'all of it is right' if verdict.right else 'NOT right'}",
        highlight=False,
        soft_wrap=True,
    )


def main() -> int:
    """Parse, check, tell."""
    config = parse_config(None, __doc__ or "", fields=("manifest", "output"))
    # Threads of Arrow on top of ours would only take memory.
    pa.set_cpu_count(1)
    verdict = verify(config)
    show(verdict, Console())
    return EXIT_OK if verdict.right else EXIT_INCOMPLETE


if __name__ == "__main__":
    run_script(main)
