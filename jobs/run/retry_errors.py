"""`--retry-errors`: which rows failed that might not fail again, and trying exactly these.

Rows that failed validation are left alone: the plan's fingerprint says that the manifest is the same, and so would
be the verdict. Everything else may have had a cause that is gone: a missing input, a sick device, a full disk.
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.engine.cluster import ClusterShrankError
from jobs.engine.ledger import Sealer
from jobs.schedule.running import Running
from manifests import storage
from manifests.batch import Batch
from manifests.commit import READERS, Receipt, index_name, parts_url, read_stats
from manifests.config import RunConfig
from manifests.errors import REJECTED, SUCCESS, IncompleteRunError
from manifests.planning.plan import Plan, Window, planned_batches
from workers.stages.reseal import RETRY_FOLDER, reseal

#: Statuses that trying again cannot change.
FINAL = frozenset({SUCCESS, REJECTED})


@dataclass(frozen=True)
class FailedRows:
    """Rows to try again; a container of (shard, batch) pairs that also knows which rows of these.

    Attributes:
        rows: (shard, batch) -> positions in the batch, ascending.
    """

    rows: Mapping[tuple[int, int], tuple[int, ...]]

    def __contains__(self, place: object) -> bool:
        return cast("tuple[int, int]", place) in self.rows

    @property
    def count(self) -> int:
        """How many rows."""
        return sum(map(len, self.rows.values()))

    @property
    def shards(self) -> dict[int, list[int]]:
        """Shard -> its batches with such rows, ascending."""
        found: dict[int, list[int]] = defaultdict(list)
        for shard, batch in sorted(self.rows):
            found[shard].append(batch)
        return dict(found)

    def by_window(self, windows: Sequence[Window]) -> list[tuple[Window, FailedRows]]:
        """The windows that have such rows, each with its own."""
        starts = [window.first_shard for window in windows]
        groups: dict[int, dict[tuple[int, int], tuple[int, ...]]] = defaultdict(dict)
        for place, rows in self.rows.items():
            groups[bisect.bisect_right(starts, place[0]) - 1][place] = rows
        return [(windows[index], FailedRows(groups[index])) for index in sorted(groups)]

    def only(self, batches: Mapping[int, Collection[int]]) -> FailedRows:
        """Those of these batches of these shards."""
        return FailedRows({place: rows for place, rows in self.rows.items() if place[1] in batches[place[0]]})

    def narrow(self, batch: Batch) -> Batch:
        """The batch with only its rows to try again; the noise contract makes them what they would have been."""
        rows = pa.array(self.rows[batch.shard, batch.index], pa.int64())
        return replace(batch, samples=batch.samples.take(rows))


def failed_rows(config: RunConfig, planned: Plan, sealed: Collection[int]) -> FailedRows:
    """The rows of these sealed shards that failed and may be tried again."""

    def failures(shard: int) -> tuple[int, ...]:
        stats = read_stats(config.output, shard)
        if FINAL.issuperset(stats.failed_by_status):
            return ()
        with storage.open_arrow(storage.join(config.output, index_name(shard))) as file:
            status = pq.ParquetFile(file).read(columns=["status"]).column("status").to_pylist()
        return tuple(row for row, value in enumerate(status) if value not in FINAL)

    shards = sorted(sealed)
    with ThreadPoolExecutor(READERS) as pool:
        found = {shard: rows for shard, rows in zip(shards, pool.map(failures, shards), strict=True) if rows}
    places: dict[tuple[int, int], tuple[int, ...]] = {}
    for window in planned.windows:
        mine = [shard for shard in range(window.first_shard, window.first_shard + window.shards) if shard in found]
        sizes: dict[int, list[int]] = defaultdict(list)
        for shard, batch in planned_batches(config, window) if mine else ():
            sizes[shard].append(batch.stop - batch.start)
        for shard in mine:
            places.update(_by_batch(shard, found[shard], sizes[shard]))
    return FailedRows(places)


def _by_batch(shard: int, rows: Sequence[int], sizes: Sequence[int]) -> dict[tuple[int, int], tuple[int, ...]]:
    """Rows of a shard as positions in its batches."""
    ends = np.cumsum(sizes)
    found: dict[tuple[int, int], list[int]] = defaultdict(list)
    for row in rows:
        batch = int(np.searchsorted(ends, row, side="right"))
        found[shard, batch].append(row - int(ends[batch] - sizes[batch]))
    return {place: tuple(positions) for place, positions in found.items()}


def retry(running: Running, planned: Plan, failed: FailedRows, on_receipt: Callable[[Receipt], bool]) -> None:
    """Make these rows again and seal their shards anew.

    Args:
        on_receipt: hears of every batch; true where the run shall stop.

    Raises:
        IncompleteRunError: some rows could not be tried; their shards stay as they are.
    """
    config = running.setup.config
    sealer = Sealer(config, failed.shards, reseal, fence=running.setup.fence)

    def on_batch(receipt: Receipt, whole: bool) -> bool:
        if whole:
            sealer.add(receipt.shard)
        sealer.poll()
        return on_receipt(receipt)

    missing = make_rows(running, planned, failed, storage.join(config.output, RETRY_FOLDER), on_batch)
    sealer.finish()
    if missing:
        raise IncompleteRunError(f"failed rows of {missing} batches could not be tried again")


def make_rows(
    running: Running, planned: Plan, rows: FailedRows, root: str, on_batch: Callable[[Receipt, bool], bool]
) -> int:
    """Make these rows again and stage them under a folder of their own.

    Args:
        root: that folder, which is laid out as an output.
        on_batch: hears of every batch, and whether all of its shard's are there now; true where the run shall stop.

    Returns:
        How many batches are missing.
    """
    # Begun anew: what a killed start tried may have failed for what was mended since. Only of these shards: others
    # may be under way in another job (`--shards`).
    for shard in rows.shards:
        storage.remove(parts_url(root, shard), recursive=True)
    # One run of the pipeline only, so it must not leave anything out.
    config = running.setup.config.model_copy(update={"output": root})
    left = {shard: set(batches) for shard, batches in rows.shards.items()}
    while (remaining := rows.only(left)).rows:
        separate = replace(running.setup, config=config, trust_index=False)
        try:
            for receipt in running.receipts(list(remaining.by_window(planned.windows)), separate):
                new = receipt.batch in left[receipt.shard]
                left[receipt.shard].discard(receipt.batch)
                if on_batch(receipt, new and not left[receipt.shard]):
                    break
        except ClusterShrankError as error:
            running.lose(error)
            continue
        break
    return sum(map(len, left.values()))
