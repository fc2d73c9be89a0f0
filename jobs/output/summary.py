"""The head of the report: what was asked for, what is there, and what it took, from the files of an output."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from jobs.run import run_folder
from manifests.commit import READERS, ShardStats, read_stats, sealed_shards
from workers.fault_tolerance.timeline import Timeline


@dataclass(frozen=True)
class Summary:
    """What the files of an output say without a look at any row.

    Attributes:
        output: its location.
        settings: `_run/config.json`, of the last start.
        planned: `_run/plan.json`: requests, images, batches, shards.
        report: `_run/run.json`, empty while no start has come to its end.
        times: buckets of `_run/times.json`, empty where nothing was measured.
        course: of its images (jobs/cost/step_times.py), empty as well.
        timeline: of its devices, `_run/timeline.json`; None where there is none.
        stats: of the sealed shards, in order.
        whole: `_SUCCESS` is there.
    """

    output: str
    settings: Mapping[str, Any]
    planned: Mapping[str, Any]
    report: Mapping[str, Any]
    times: Sequence[Mapping[str, Any]]
    course: Sequence[tuple[float, int, int]]
    timeline: Timeline | None
    stats: Sequence[ShardStats]
    whole: bool

    @property
    def written(self) -> int:
        """Images of the sealed shards."""
        return sum(shard.successes for shard in self.stats)

    @property
    def failed(self) -> Mapping[str, int]:
        """Rows of the sealed shards without an image, by status, the commonest first."""
        counts: Counter[str] = Counter()
        for shard in self.stats:
            counts.update(shard.failed_by_status)
        return dict(counts.most_common())

    @property
    def left(self) -> int:
        """Rows that are in no sealed shard yet."""
        planned = int(self.planned.get("images", 0)) + int(self.planned.get("rejected", 0))
        return max(0, planned - self.written - sum(self.failed.values()))

    @property
    def bytes(self) -> int:
        """Of the image files."""
        return sum(shard.bytes for shard in self.stats)


def summarize(output: str) -> Summary:
    """Read the run's files and the stats of every sealed shard.

    Raises:
        UsageError: no run was begun there, or a file of it cannot be read.
        StorageError: the output cannot be read.
    """
    settings, planned = run_folder.begun(output)
    times = run_folder.read(output, run_folder.TIMES) or {}
    with ThreadPoolExecutor(READERS) as pool:
        stats = list(pool.map(lambda shard: read_stats(output, shard), sorted(sealed_shards(output))))
    return Summary(
        output=output,
        settings=settings,
        planned=planned,
        report=run_folder.read(output, "run.json") or {},
        times=times.get("buckets", ()),
        course=[tuple(mark) for mark in times.get("course", ())],
        timeline=_timeline(output),
        stats=stats,
        whole=run_folder.is_finished(output),
    )


def _timeline(output: str) -> Timeline | None:
    known = run_folder.read(output, run_folder.TIMELINE)
    try:
        return None if known is None else Timeline.model_validate(known)
    except ValidationError:
        return None  # of another version
