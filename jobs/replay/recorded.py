"""What an output says of one image: its record, the run's settings, and what the run ran on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

from jobs.output.catalog import read_row
from jobs.output.sample import BUCKET_COLUMNS
from jobs.output.tar_members import open_members
from jobs.run import run_folder
from jobs.schedule.graphs import kept
from manifests import storage
from manifests.batch import Bucket
from manifests.commit import index_name, read_stats, sealed_shards, shard_name
from manifests.config import RunConfig
from manifests.errors import REJECTED, SUCCESS, UsageError
from manifests.planning.layout import shards_of
from workers.device.device import DeviceKind
from workers.kandinsky.batch_shape import FullCalls
from workers.kandinsky.graph_choice import EVERYTHING, NOTHING, GraphChoice


@dataclass(frozen=True)
class Recorded:
    """One row of an output's index.

    Attributes:
        output: where it lies.
        shard: that holds it.
        row: its columns RECORD_FIELDS.
        config: settings of the last start.
        report: `_run/run.json`; empty while no start has come to its end.
    """

    output: str
    shard: int
    row: Mapping[str, Any]
    config: RunConfig
    report: Mapping[str, Any]

    def together(self) -> int:
        """Images that the run made in one device call with this one, itself among them.

        The index has the rows of each bucket in their order, and a shard begins with a batch (manifests/planning/
        layout.py). With `--dedupe` it does not tell copies from what was made; then it is 1.

        Raises:
            StorageError: the index cannot be read.
        """
        if self.config.dedupe:
            return 1
        columns = ["key", "status", "negative_prompt", *BUCKET_COLUMNS]
        with storage.open_arrow(storage.join(self.output, index_name(self.shard))) as source:
            rows = pq.read_table(source, columns=columns).to_pylist()
        place = next(i for i, row in enumerate(rows) if row["key"] == self.row["key"])
        first, last = place, place + 1
        while first and _bucket(rows[first - 1]) == _bucket(self.row):
            first -= 1
        while last < len(rows) and _bucket(rows[last]) == _bucket(self.row):
            last += 1
        size = self.config.call_limit.of(self.row["height"], self.row["width"])
        first += (place - first) // size * size
        return sum(row["status"] == SUCCESS for row in rows[first : min(last, first + size)])

    def graphs(self, kind: DeviceKind) -> GraphChoice:
        """What the run compiled on such a device."""
        if self.config.graph != "auto":
            return EVERYTHING if self.config.graph == "on" else NOTHING
        plan = kept(self.output, kind)
        return NOTHING if plan is None else plan.choice

    def full_call(self, kind: DeviceKind) -> int | None:
        """Rows that each of the decoder's calls had on such a device; None where it was any number."""
        bucket = Bucket(**{name: self.row[name] for name in BUCKET_COLUMNS}, has_negative=False)
        return FullCalls.of(self.config, kind, self.graphs(kind)).decoder(bucket)

    def image(self) -> bytes:
        """The stored image file.

        Raises:
            StorageError: it is not in its shard, or the shard cannot be read.
        """
        stats = read_stats(self.output, self.shard)
        return open_members(self.output, stats, self.config.image_format).read(self.row["key"])


def _bucket(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a batch shares; rows that failed validation share it with none."""
    rejected = row["key"] if row["status"] == REJECTED else None
    return (*(row[name] for name in BUCKET_COLUMNS), row["negative_prompt"] is None, rejected)


def find(output: str, key: str) -> Recorded:
    """Look a key up in the index of its shard.

    Raises:
        UsageError: no run was begun there, or no sealed shard has such a key.
        StorageError: the index cannot be read.
    """
    config = run_folder.settings(output)
    sealed = sealed_shards(output)
    shards = shards_of(key, config.shard_size)
    for shard in shards:
        if shard in sealed and (row := read_row(output, shard, key)) is not None:
            return Recorded(output, shard, row, config, run_folder.read(output, "run.json") or {})
    raise UsageError(f"--key {key}: {_why_not(output, shards, sealed)}")


def _why_not(output: str, shards: Sequence[int], sealed: set[int]) -> str:
    if not shards:
        return "is not a key; the column `key` of the indexes (*.parquet) and the names of the image files have them"
    names = " or ".join(shard_name(shard) for shard in shards)
    if sealed.isdisjoint(shards):
        return f"{output} has no sealed shard {names}; check the key, or wait until the run has sealed the shard"
    return f"the index of shard {names} has no such row; check the key"
