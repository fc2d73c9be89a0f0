"""Which rows the report shows: a seeded sample of every bucket, and the failed rows, read from the shards' indexes.

The sample depends on seed and keys alone. Of each bucket it takes a few rows from a few shards, so that few tars must
be opened; memory holds one index at a time and what is kept of it.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.output.product import Product, ProductFinder
from jobs.output.scores import Tallies, Tally
from manifests import storage
from manifests.batch import bucket_words
from manifests.commit import ShardStats, index_name
from manifests.errors import SUCCESS, StorageError, first_line, general
from manifests.records import RECORD_NAMES
from manifests.requests.schema import SETTINGS
from manifests.scores import COLUMNS

#: What the rows of one bucket share (manifests/batch.py), as far as the index has it.
BUCKET_COLUMNS = ("task", *SETTINGS)

#: Rows of one bucket from one shard, where it is in enough of them.
PER_SHARD = 6

#: Failed rows that are shown of each kind.
EXAMPLES = 20

#: Reasons that are counted apart; a message that is different for every row must not fill the memory.
MOST_REASONS = 1000

Row = dict[str, Any]


@dataclass
class BucketSample:
    """Rows of one bucket.

    Attributes:
        values: of BUCKET_COLUMNS.
        images: images of the bucket in all sealed shards.
        rows: records of the sample with their `shard`, in the order of their draw.
    """

    values: tuple[Any, ...]
    images: int = 0
    rows: list[Row] = field(default_factory=list)

    @property
    def name(self) -> str:
        """As a person would call it."""
        task, height, width, steps, guidance, prior_steps, prior_guidance, strength = self.values
        strength_words = "" if strength is None else f", strength {strength:g}"
        return (
            f"{bucket_words(task, width, height, steps)}, guidance {guidance:g}{strength_words}, "
            f"prior {prior_steps} steps, guidance {prior_guidance:g}"
        )


@dataclass
class Sample:
    """What is shown of an output.

    Attributes:
        buckets: the commonest first.
        failures: examples of failed rows, by status.
        reasons: how often each (status, reason) came; of a reason only what many rows share is kept.
        unreadable: what is wrong with indexes that could not be read.
        product: what the manifest is a product of; None where it is none.
        scores: how they lie, with the best and the worst rows.
    """

    buckets: list[BucketSample]
    failures: Mapping[str, list[Row]]
    reasons: Counter[tuple[str, str]]
    unreadable: list[str]
    product: Product | None
    scores: list[Tally] = field(default_factory=list)


class _Bucket:
    """Keeps the rows of the shards that come first in the order of their hashes."""

    def __init__(self) -> None:
        self.images = 0
        self._shards: list[tuple[int, int, list[Row]]] = []

    def add(self, images: int, shard_hash: int, shard: int, rows: list[Row], shards: int) -> None:
        self.images += images
        # The negative hash makes the heap give the largest one away.
        heapq.heappush(self._shards, (-shard_hash, shard, rows))
        if len(self._shards) > shards:
            heapq.heappop(self._shards)

    def rows(self, most: int) -> list[Row]:
        """In the order of their draw, one of each shard in turn."""
        ordered = [rows for _, _, rows in sorted(self._shards, key=lambda entry: -entry[0])]
        turns = itertools.zip_longest(*ordered)
        return [row for turn in turns for row in turn if row is not None][:most]


def draw_sample(output: str, stats: Sequence[ShardStats], requests: int, seed: int, per_bucket: int) -> Sample:
    """Read every index once, and choose.

    Args:
        stats: of the sealed shards.
        requests: rows of the manifest.
        seed: another one shows other rows.
        per_bucket: rows of a bucket, at most.
    """
    buckets: dict[tuple[Any, ...], _Bucket] = defaultdict(_Bucket)
    failures: dict[str, list[Row]] = defaultdict(list)
    reasons: Counter[tuple[str, str]] = Counter()
    unreadable: list[str] = []
    finder = ProductFinder(output, requests)
    tallies = Tallies()
    shards = -(-per_bucket // PER_SHARD)
    for shard in stats:
        try:
            table = read_index(output, shard.shard)
            finder.add(shard.shard, table)
        except (StorageError, FileNotFoundError, OSError, pa.ArrowException) as error:
            unreadable.append(f"{index_name(shard.shard)}: {first_line(error)}")
            continue
        is_made = pc.equal(table["status"], SUCCESS)
        made = table.filter(is_made)
        tallies.add(shard.shard, made)
        shard_hash = int(_hashes([str(shard.shard)], seed)[0])
        for values, positions in _by_bucket(made):
            rows = [{**row, "shard": shard.shard} for row in _choose(made, positions, seed, per_bucket)]
            buckets[values].add(len(positions), shard_hash, shard.shard, rows, shards)
        if shard.failed:
            _collect_failures(table.filter(pc.invert(is_made)), failures, reasons)
    samples = [BucketSample(values, bucket.images, bucket.rows(per_bucket)) for values, bucket in buckets.items()]
    samples.sort(key=lambda sample: (-sample.images, str(sample.values)))
    return Sample(samples, failures, reasons, unreadable, finder.product(), tallies.product())


def read_index(output: str, shard: int) -> pa.Table:
    """The records of a shard without the columns that only travel."""
    with storage.open_arrow(storage.join(output, index_name(shard))) as source:
        file = pq.ParquetFile(source)
        scores = [name for name in file.schema_arrow.names if name in COLUMNS]
        return file.read(columns=[*RECORD_NAMES, *scores])


def _hashes(keys: Iterable[str], seed: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
    values: np.ndarray[Any, np.dtype[np.uint64]] = pd.util.hash_array(
        np.array(list(keys), object), hash_key=f"{seed:016x}"[-16:], categorize=False
    )
    return values


def _by_bucket(table: pa.Table) -> list[tuple[tuple[Any, ...], np.ndarray[Any, np.dtype[np.int64]]]]:
    """Positions of each bucket's rows."""
    places = table.select(list(BUCKET_COLUMNS)).append_column("position", pa.array(np.arange(table.num_rows)))
    grouped = places.group_by(list(BUCKET_COLUMNS)).aggregate([("position", "list")])
    columns = [grouped.column(name).to_pylist() for name in BUCKET_COLUMNS]
    positions = grouped.column("position_list").to_pylist()
    return [(values, np.array(found)) for values, found in zip(zip(*columns, strict=True), positions, strict=True)]


def _choose(table: pa.Table, positions: np.ndarray[Any, np.dtype[np.int64]], seed: int, most: int) -> list[Row]:
    keys = table.column("key").take(pa.array(positions)).to_pylist()
    first = np.argsort(_hashes(keys, seed), kind="stable")[:most]
    rows: list[Row] = table.take(pa.array(positions[first])).to_pylist()
    return rows


def _collect_failures(table: pa.Table, failures: dict[str, list[Row]], reasons: Counter[tuple[str, str]]) -> None:
    statuses, messages = table.column("status").to_pylist(), table.column("error_message").to_pylist()
    for position, (status, message) in enumerate(zip(statuses, messages, strict=True)):
        reason = (status, general(message or ""))
        reasons[reason if reason in reasons or len(reasons) < MOST_REASONS else (status, "other reasons")] += 1
        if len(failures[status]) < EXAMPLES:
            failures[status] += table.slice(position, 1).to_pylist()
