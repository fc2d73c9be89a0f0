"""All rows of an output, page by page: filtered by task and status, searched by words, read from index and tar alone.

Which shard a page lies in follows from the counts of the shards' stats wherever these tell, so that the last page of
millions of images costs what the first one does. A search reads a few columns of every index, once.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.output.summary import Summary, summarize
from jobs.output.tar_members import open_members
from jobs.run import run_folder
from manifests import storage
from manifests.commit import READERS, ShardStats, index_name
from manifests.errors import SUCCESS, StorageError, first_line
from manifests.planning.layout import shards_of
from manifests.records import RECORD_NAMES

#: Columns that words are looked for in.
SEARCHED = ("key", "id", "caption")

Row = Mapping[str, Any]
Positions = npt.NDArray[np.int64]
Value = TypeVar("Value")


@dataclass(frozen=True)
class Query:
    """Which rows are wanted; "" and no words are all of them.

    Attributes:
        words: in small letters; each must be somewhere in SEARCHED.
        task, status: as in the index.
    """

    words: tuple[str, ...] = ()
    task: str = ""
    status: str = ""

    def count_in(self, stats: ShardStats) -> int | None:
        """Rows of a shard, as far as its stats tell; None where its index must be asked."""
        if self.words or (self.task and self.status != SUCCESS):
            return None
        if self.task and self.task != stats.task:
            return 0
        if not self.status:
            return stats.count
        return stats.successes if self.status == SUCCESS else stats.failed_by_status.get(self.status, 0)

    def columns(self) -> list[str]:
        """Of the index, that decide."""
        return [*(SEARCHED if self.words else ()), *(["task"] if self.task else []), "status"]

    def holds(self, table: pa.Table) -> Positions:
        """Positions of the rows that are wanted, ascending."""
        wanted = np.ones(table.num_rows, bool)
        for name, value in (("task", self.task), ("status", self.status)):
            if value:
                wanted &= _true(pc.equal(table[name], value))
        for word in self.words:
            found = [_true(pc.match_substring(pc.utf8_lower(table[name]), word)) for name in SEARCHED]
            wanted &= np.logical_or.reduce(found)
        return np.flatnonzero(wanted)


def _true(flags: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    values: npt.NDArray[np.bool_] = pc.fill_null(flags, False).to_numpy()
    return values


class _Kept:
    """What was computed last, by its key; the oldest goes where there are too many."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, compute: Callable[[], Value]) -> Value:
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                kept: Value = self._values[key]
                return kept
        value = compute()
        with self._lock:
            self._values[key] = value
            while len(self._values) > self._most:
                self._values.popitem(last=False)
        return value


class Catalog:
    """The rows of an output. May be used by several threads.

    Args:
        output: its location.

    Raises:
        UsageError: no run was begun there.
        StorageError: it cannot be read.
    """

    def __init__(self, output: str) -> None:
        self.output = output
        self._config = run_folder.settings(output)
        self._positions = _Kept(20_000)
        self._members = _Kept(64)
        self.refresh()

    def refresh(self) -> None:
        """Look for shards that have been sealed since, or sealed anew."""
        self._rows = _Kept(5_000)
        self.summary: Summary = summarize(self.output)
        self._stats = {stats.shard: stats for stats in self.summary.stats}

    @property
    def image_format(self) -> str:
        """Of the image files: png, jpg or webp."""
        return self._config.image_format

    @property
    def statuses(self) -> list[str]:
        """Of all rows, that of the images first."""
        return [SUCCESS, *sorted(self.summary.failed)]

    @property
    def tasks(self) -> list[str]:
        """Of the shards, sorted."""
        return sorted({stats.task for stats in self._stats.values() if stats.task})

    def page(self, query: Query, first: int, count: int) -> tuple[int, list[Row]]:
        """How many rows are wanted, and some of them in the order of their keys.

        Args:
            first: of the wanted rows, from 0.
            count: of rows, at most.
        """
        stats = list(self._stats.values())
        counts = [query.count_in(one) for one in stats]
        if None in counts:
            with ThreadPoolExecutor(READERS) as pool:
                counts = list(pool.map(lambda one: len(self._wanted(query, one)), stats))
        ends = np.cumsum(np.array(counts, np.int64))
        rows: list[Row] = []
        place = int(np.searchsorted(ends, first, side="right"))
        while place < len(stats) and len(rows) < count:
            if counts[place]:
                begin = max(0, first + len(rows) - int(ends[place]) + int(counts[place] or 0))
                positions = self._wanted(query, stats[place])[begin : begin + count - len(rows)]
                rows += self._read(stats[place].shard, positions)
            place += 1
        return int(ends[-1]) if len(ends) else 0, rows

    def row(self, key: str) -> Row | None:
        """The record of a key; None where no sealed shard has it."""
        return self._rows.get(key, lambda: self._find(key))

    def like(self, rows: Sequence[Row]) -> list[Row | None]:
        """For rows of another output, the rows here that have the same id and image number; None where there is none.

        Runs of one manifest that differ in settings alone have them under the same keys, which is tried first.
        """
        found = {_name(row): row for key in (row["key"] for row in rows) if (row := self.row(key)) is not None}
        absent = {_name(row) for row in rows} - found.keys()
        if absent:
            with ThreadPoolExecutor(READERS) as pool:
                for more in pool.map(lambda stats: self._named(stats.shard, absent), self._stats.values()):
                    found.update(more)
        return [found.get(_name(row)) for row in rows]

    def _named(self, shard: int, names: Collection[tuple[str, int]]) -> dict[tuple[str, int], Row]:
        """The rows of a shard that are named so."""
        ids = pa.array(sorted({name for name, _ in names}))
        with open_index(self.output, shard) as file:
            table = file.read(columns=["id", "image_index"])
        places = np.flatnonzero(_true(pc.is_in(table["id"], value_set=ids)))
        return {name: row for row in self._read(shard, places) if (name := _name(row)) in names}

    def image(self, row: Row) -> bytes:
        """The image file of a row.

        Raises:
            StorageError: it has none, or its shard cannot be read.
        """
        stats = self._stats[row["shard"]]
        opening = functools.partial(open_members, self.output, stats, self.image_format)
        return self._members.get(stats.parquet.sha256, opening).read(row["key"])

    def _find(self, key: str) -> Row | None:
        for shard in shards_of(key, self._config.shard_size):
            if shard in self._stats and (row := read_row(self.output, shard, key)) is not None:
                return {**row, "shard": shard}
        return None

    def _wanted(self, query: Query, stats: ShardStats) -> Positions:
        def look() -> Positions:
            with open_index(self.output, stats.shard) as file:
                return query.holds(file.read(columns=query.columns()))

        return self._positions.get((query, stats.parquet.sha256), look)

    def _read(self, shard: int, positions: Positions) -> list[Row]:
        found = read_rows(self.output, shard, positions) if len(positions) else []
        # The page asks for their pictures next.
        return [self._rows.get(row["key"], functools.partial(dict, {**row, "shard": shard})) for row in found]


def _name(row: Row) -> tuple[str, int]:
    return row["id"], row["image_index"]


def read_row(output: str, shard: int, key: str) -> Row | None:
    """The record of a key in a shard's index; None where that has no such key.

    Raises:
        StorageError: the index cannot be read.
    """
    with open_index(output, shard) as file:
        found = file.read(columns=["key"])["key"].index(key).as_py()
    rows = read_rows(output, shard, np.array([found])) if found >= 0 else []
    return rows[0] if rows else None


def read_rows(output: str, shard: int, positions: Positions) -> list[dict[str, Any]]:
    """The records at some positions of an index.

    Raises:
        StorageError: the index cannot be read.
    """
    rows: list[dict[str, Any]] = read_table(output, shard, positions, RECORD_NAMES).to_pylist()
    return rows


def read_table(output: str, shard: int, positions: Positions, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows at some positions of an index, in their order; of its row groups only those that hold them are read.

    Args:
        columns: that are wanted; None for all.

    Raises:
        StorageError: the index cannot be read.
    """
    with open_index(output, shard) as file:
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
        ends = np.cumsum(sizes)
        groups = np.unique(np.searchsorted(ends, positions, side="right"))
        places = np.concatenate([np.arange(ends[group] - sizes[group], ends[group]) for group in groups])
        table = file.read_row_groups(groups.tolist(), columns=None if columns is None else list(columns))
    return table.take(pa.array(np.searchsorted(places, positions)))


@contextlib.contextmanager
def open_index(output: str, shard: int) -> Iterator[pq.ParquetFile]:
    """The index of a shard.

    Raises:
        StorageError: it cannot be read, also where the block meets that.
    """
    try:
        with storage.open_arrow(storage.join(output, index_name(shard))) as source:
            yield pq.ParquetFile(source)
    except (FileNotFoundError, pa.ArrowException) as error:
        raise StorageError(f"{output}/{index_name(shard)} cannot be read ({first_line(error)})") from error


def query_of(words: str, task: str, status: str) -> Query:
    """A query as a person types it."""
    return Query(tuple(words.lower().split()), task, status)
