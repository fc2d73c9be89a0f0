"""`verify.py --repair`: what is damaged is made again, proved by the recorded checksums, and put in its place.

    damaged shards -> what is right of them -> the rest made again -> files built and proved -> the damaged replaced
                      (salvage.py)             (make_again.py)        (rebuild.py)

What is right is not touched, what cannot be proved is not written, and what nobody planned is named and left to the
person.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from jobs.leases.lease import Lease
from jobs.run import run_folder
from jobs.run.retry_errors import FailedRows
from jobs.verification.findings import Verdict
from jobs.verification.index import planned_rows
from jobs.verification.output import planned_output, shards_of
from jobs.verification.rebuild import Mending, rebuild, rows_to_make
from jobs.verification.salvage import Salvage, salvage
from manifests import storage
from manifests.batch import Batch
from manifests.commit import member_suffixes
from manifests.config import RunConfig
from manifests.errors import UsageError
from manifests.planning.plan import Plan

#: Where rows that are made again are staged, laid out as an output.
REPAIR_FOLDER = "_run/repair"

#: Makes rows of a plan on the devices and stages them under a folder.
Maker = Callable[[RunConfig, Plan, FailedRows, str], None]


def repair(config: RunConfig, verdict: Verdict, make: Maker, notify: Callable[[str], None]) -> Iterator[Mending]:
    """Mend the shards that verification has found damaged; yields what came of each, those without a device first.

    Args:
        verdict: of the same output.
        make: called once, where something must be made again.
        notify: hears what is done.

    Raises:
        UsageError: the manifest is not that of the output, or somebody works there.
        StorageError: the output cannot be written or read.
    """
    if any(finding.check == "manifest" for finding in verdict.findings):
        raise UsageError("option --repair: the manifest is not what the output was made of, so it says nothing of it")
    settings, planned, _ = planned_output(config)
    finished = run_folder.is_finished(config.output)
    made_at = storage.join(config.output, REPAIR_FOLDER)
    with Lease(config.output, (0, 1), notify) as lease, storage.fenced(lease.fence.check):
        storage.remove(made_at, recursive=True)
        try:
            lost: dict[tuple[int, int], tuple[int, ...]] = {}
            for found, batches in _salvaged(settings, planned, verdict.damaged):
                trouble = _beyond_repair(found, finished)
                rows = {} if trouble else rows_to_make(found, batches)
                lost.update(rows)
                if trouble:
                    yield Mending(found.shard, trouble=trouble)
                elif not rows:
                    yield rebuild(found, batches, (), made_at, settings)
            if lost:
                notify(f"{sum(map(len, lost.values())):,} images are lost and made again")
                make(settings, planned, FailedRows(lost), made_at)
            for found, batches in _salvaged(settings, planned, {shard for shard, _ in lost}):
                yield rebuild(found, batches, lost.keys(), made_at, settings)
        finally:
            storage.remove(made_at, recursive=True)


def _beyond_repair(found: Salvage, finished: bool) -> str | None:
    if found.stats is None and not finished:
        return "is not sealed, and the run has not ended; start the job again"
    if found.stats is None and found.tar is None and found.index is None:
        return "nothing of it is left; start the job again, which makes it anew"
    return None


def _salvaged(config: RunConfig, planned: Plan, shards: Collection[int]) -> Iterator[tuple[Salvage, list[Batch]]]:
    """What is right of each of these shards, with its batches; one at a time, because an index may be large."""
    suffixes = member_suffixes(config)
    for shard, batches in shards_of(config, planned, shards):
        whole = list(batches)
        rows = planned_rows([batch.samples for batch in whole])
        yield salvage(config.output, shard, rows, suffixes), whole
