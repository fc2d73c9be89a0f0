"""The store's index: where each key lies, as Parquet files sorted by key, of which a lookup reads a few row groups.

    STORE/index/{name}-{rows}.parquet    key_high: the first half of the key as a big-endian number
                                         part: position in the file's list of parts (schema metadata `parts`, JSON)
                                         row: position in that part

Every part comes with a small file of its own; `merge_index` makes one of many. Files never change, so whatever was
read of them is kept (bounded) in the process. An index file is only a hint: who follows it compares keys and
checksums in the part, so a wrong one costs work and never gives a wrong answer.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from manifests import storage

INDEX_FOLDER = "index"

#: Entries of a row group: what is read at least for one key.
GROUP_ROWS = 2048

#: Row groups read in one go; what a lookup holds at least.
_GROUPS_AT_ONCE = 128

#: Entries of all files that are sorted together while merging.
_MERGE_ROWS = 1 << 21

#: Bytes of index that a process keeps in memory.
CACHE_BYTES = 64 << 20

#: Files read at the same time.
READERS = 16

#: What reading a damaged or foreign file raises. What storage refuses is a `StorageError`, and none of these.
_UNUSABLE = (OSError, pa.ArrowException, KeyError, ValueError, AttributeError)

_NAME = re.compile(r"^([0-9a-f]{32})-(\d+)\.parquet$")
_SCHEMA = pa.schema(
    [("key_high", pa.uint64()), ("part", pa.int32()), ("row", pa.int32())],
)

Numbers = npt.NDArray[np.uint64]
Positions = npt.NDArray[np.int64]


def high_halves(keys: Sequence[bytes]) -> Numbers:
    """First halves of keys, which is what the index knows of them: the part has the whole key."""
    return np.frombuffer(b"".join(keys), ">u8").reshape(-1, 2)[:, 0].astype(np.uint64)


def index_files(store_url: str) -> dict[str, int]:
    """Names of the store's index files and their entries, by one listing."""
    matches = (_NAME.match(name) for name in storage.list_names(storage.join(store_url, INDEX_FOLDER)))
    return {match.group(0): int(match.group(2)) for match in matches if match}


def write_part_index(store_url: str, part: str, keys: Sequence[bytes]) -> str:
    """Make a part findable; returns the name of the index file.

    Raises:
        StorageError: the storage refused.
    """
    high = high_halves(keys)
    order = np.argsort(high, kind="stable").astype(np.int32)
    table = pa.table([high[order], np.zeros(len(order), np.int32), order], schema=_SCHEMA)
    return _write(store_url, [part], iter([table]))


def _write(store_url: str, parts: Sequence[str], tables: Iterator[pa.Table]) -> str:
    """Write an index file of sorted entries; its name follows from what it covers."""
    rows = 0
    schema = _SCHEMA.with_metadata({"parts": json.dumps(list(parts))})
    with storage.temporary_folder("index-") as folder:
        local = os.path.join(folder, "index.parquet")
        # Random keys do not shrink, and uncompressed entries are read faster.
        with pq.ParquetWriter(
            local,
            schema,
            compression="none",
            use_dictionary=False,
            write_statistics=["key_high"],
            write_page_checksum=True,
        ) as writer:
            for table in tables:
                writer.write_table(table.cast(schema), row_group_size=GROUP_ROWS)
                rows += table.num_rows
        name = f"{hashlib.blake2b(json.dumps([*parts, rows]).encode(), digest_size=16).hexdigest()}-{rows}.parquet"
        storage.put_atomic(local, storage.join(store_url, INDEX_FOLDER, name))
    return name


@dataclass(frozen=True)
class _File:
    """An open index file: its parts, and the first key of each row group."""

    url: str
    parts: tuple[str, ...]
    first: Numbers
    metadata: pq.FileMetaData

    @classmethod
    def open(cls, url: str) -> _File:
        with storage.open_arrow(url) as source:
            file = pq.ParquetFile(source)
            if not file.schema_arrow.equals(_SCHEMA):
                raise pa.ArrowInvalid("it has other columns")
            parts = json.loads((file.schema_arrow.metadata or {})[b"parts"])
            groups = (file.metadata.row_group(i).column(0).statistics for i in range(file.num_row_groups))
            first = np.array([statistics.min for statistics in groups], np.uint64)
            return cls(url, tuple(map(str, parts)), first, file.metadata)

    def read(self, groups: Sequence[int]) -> dict[int, _Group]:
        """Entries of some row groups."""
        with storage.open_arrow(self.url) as source:
            file = pq.ParquetFile(source, metadata=self.metadata, pre_buffer=True, page_checksum_verification=True)
            table = file.read_row_groups(list(groups), use_threads=True)
        columns = [table.column(name).to_numpy() for name in _SCHEMA.names]
        sizes = [self.metadata.row_group(group).num_rows for group in groups]
        ends = np.cumsum(sizes)
        return {
            group: _Group(*(np.ascontiguousarray(column[end - size : end]) for column in columns))
            for group, size, end in zip(groups, sizes, ends, strict=True)
        }

    def groups_for(self, high: Numbers) -> npt.NDArray[np.int64]:
        """The row groups that these keys may lie in; equal high halves may go on into the next group."""
        begin = np.maximum(np.searchsorted(self.first, high, "left") - 1, 0)
        end = np.maximum(np.searchsorted(self.first, high, "right") - 1, 0)
        spans = [np.arange(a, b + 1) for a, b in zip(begin[end > begin], end[end > begin], strict=True)]
        return np.unique(np.concatenate([begin, *spans])) if len(high) else begin


@dataclass(frozen=True)
class _Group:
    """Entries of one row group, or of some in a row, sorted by key."""

    high: Numbers
    part: npt.NDArray[np.int32]
    row: npt.NDArray[np.int32]

    @property
    def nbytes(self) -> int:
        return self.high.nbytes + self.part.nbytes + self.row.nbytes

    def find(self, high: Numbers) -> tuple[Positions, Positions]:
        """Pairs (position of the key asked for, position of the entry)."""
        begin, end = (np.searchsorted(self.high, high, side) for side in ("left", "right"))
        asked = np.repeat(np.arange(len(high)), end - begin)
        shift = np.arange(len(asked)) - np.repeat(np.cumsum(end - begin) - (end - begin), end - begin)
        return asked, np.repeat(begin, end - begin) + shift


class _Cache:
    """Open files and row groups of this process, the least recently used go first. Files never change."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: OrderedDict[str, _File] = OrderedDict()
        self._groups: OrderedDict[tuple[str, int], _Group] = OrderedDict()
        self._bytes = 0

    def file(self, url: str) -> _File:
        with self._lock:
            known = self._files.get(url)
            if known is not None:
                self._files.move_to_end(url)
                return known
        known = _File.open(url)
        with self._lock:
            self._files[url] = known
            while len(self._files) > 4096:
                self._files.popitem(last=False)
        return known

    def groups(self, file: _File, wanted: Sequence[int]) -> dict[int, _Group]:
        """All of these row groups, those that are not at hand read in one go."""
        with self._lock:
            found = {g: self._groups[file.url, g] for g in wanted if (file.url, g) in self._groups}
            for g in found:
                self._groups.move_to_end((file.url, g))
        missing = [g for g in wanted if g not in found]
        if missing:
            read = file.read(missing)
            found |= read
            with self._lock:
                for g, group in read.items():
                    if (file.url, g) not in self._groups:
                        self._groups[file.url, g] = group
                        self._bytes += group.nbytes
                while self._bytes > CACHE_BYTES and len(self._groups) > 1:
                    self._bytes -= self._groups.popitem(last=False)[1].nbytes
        return found


_cache = _Cache()


@dataclass(frozen=True)
class Places:
    """Where keys may lie.

    Attributes:
        by_part: for each part the positions of the keys asked for and their rows in it.
        vanished: an index file is gone, because it was merged into another one since it was listed.
    """

    by_part: dict[str, tuple[Positions, Positions]]
    vanished: bool = False

    def known(self, count: int) -> npt.NDArray[np.bool_]:
        """Which of the `count` keys asked for lie anywhere."""
        flags = np.zeros(count, bool)
        for asked, _ in self.by_part.values():
            flags[asked] = True
        return flags


def find(store_url: str, files: Collection[str], keys: Sequence[bytes]) -> Places:
    """Look keys up in these index files; a damaged or foreign file knows nothing.

    Raises:
        StorageError: the storage refused.
    """
    if not keys or not files:
        return Places({})
    high = high_halves(keys)
    with ThreadPoolExecutor(min(READERS, len(files))) as pool:
        answers = list(pool.map(lambda name: _find_in(store_url, name, high), sorted(files)))
    merged: dict[str, list[tuple[Positions, Positions]]] = defaultdict(list)
    for answer in answers:
        for part, pair in (answer or {}).items():
            merged[part].append(pair)
    by_part = {part: (_joined(pairs, 0), _joined(pairs, 1)) for part, pairs in merged.items()}
    return Places(by_part, vanished=None in answers)


def _joined(pairs: Sequence[tuple[Positions, Positions]], which: int) -> Positions:
    return np.concatenate([pair[which] for pair in pairs])


def _find_in(store_url: str, name: str, high: Numbers) -> dict[str, tuple[Positions, Positions]] | None:
    """What one file knows; None where it is gone."""
    try:
        file = _cache.file(storage.join(store_url, INDEX_FOLDER, name))
        asked, part, row = [], [], []
        wanted = file.groups_for(high).tolist()
        for start in range(0, len(wanted), _GROUPS_AT_ONCE):
            some = wanted[start : start + _GROUPS_AT_ONCE]
            groups = _cache.groups(file, some)
            # Neighbours in order, so together they are sorted as well.
            columns = [[getattr(groups[g], name) for g in some] for name in ("high", "part", "row")]
            entries = _Group(*(np.concatenate(column) for column in columns))
            positions, places = entries.find(high)
            asked.append(positions)
            part.append(entries.part[places])
            row.append(entries.row[places].astype(np.int64))
    except FileNotFoundError:
        return None
    except _UNUSABLE:
        return {}
    if not asked:
        return {}
    all_asked, all_parts, all_rows = np.concatenate(asked), np.concatenate(part), np.concatenate(row)
    usable = (all_parts >= 0) & (all_parts < len(file.parts)) & (all_rows >= 0)
    return {
        file.parts[number]: (all_asked[usable & (all_parts == number)], all_rows[usable & (all_parts == number)])
        for number in np.unique(all_parts[usable])
    }


def covered_parts(store_url: str, files: Collection[str]) -> dict[str, set[str]]:
    """Index file -> the parts that it covers; files that cannot be read are left out."""
    return {name: set(file.parts) for name, file in _open_files(store_url, files).items()}


def _open_files(store_url: str, names: Collection[str]) -> dict[str, _File]:
    """Those that can be opened."""
    files = {}
    for name in sorted(names):
        with contextlib.suppress(*_UNUSABLE):
            files[name] = _cache.file(storage.join(store_url, INDEX_FOLDER, name))
    return files


def merge_index(store_url: str, names: Collection[str], without: Collection[str] = ()) -> str | None:
    """Make one index file of several, then remove those; killed anywhere, all entries are still there.

    Memory holds some two million entries; the new file is built on the local disk, 16 bytes per entry.

    Args:
        names: files to merge; one that cannot be read is removed: `prune` finds the parts that none covers.
        without: parts that the new file shall not cover any more.

    Returns:
        Name of the new file; None where nothing is left to cover.
    """
    files = _open_files(store_url, names)
    while True:
        parts = sorted({part for file in files.values() for part in file.parts} - set(without))
        try:
            merged = _write(store_url, parts, _merged(list(files.values()), parts)) if parts else None
            break
        except _DamagedError as damaged:
            del files[damaged.name]
    for name in names:
        if name != merged:
            storage.remove(storage.join(store_url, INDEX_FOLDER, name))
    return merged


class _DamagedError(Exception):
    """An index file cannot be read to its end."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def _merged(files: Sequence[_File], parts: Sequence[str]) -> Iterator[pa.Table]:
    """Entries of all files in order, a slice of the key space at a time: keys are spread evenly over it."""
    numbers = {part: number for number, part in enumerate(parts)}
    renumber = [np.array([numbers.get(part, -1) for part in file.parts] or [-1], np.int32) for file in files]
    slices = max(1, -(-sum(file.metadata.num_rows for file in files) // _MERGE_ROWS))
    bounds = [(1 << 64) * i // slices for i in range(1, slices)]
    for low, high in zip([0, *bounds], [*bounds, 1 << 64], strict=True):
        columns: list[list[npt.NDArray[np.generic]]] = [[], [], []]
        for file, new in zip(files, renumber, strict=True):
            ends = np.array([low, min(high, (1 << 64) - 1)], np.uint64)
            if not len(file.first):
                continue
            first, last = file.groups_for(ends[:1])[0], file.groups_for(ends[1:])[-1]
            try:
                groups = file.read(range(int(first), int(last) + 1))
            except _UNUSABLE as error:
                raise _DamagedError(file.url.rsplit("/", 1)[-1]) from error
            for group in groups.values():
                part = np.where((group.part >= 0) & (group.part < len(new)), new[group.part % len(new)], -1)
                mine = (group.high >= np.uint64(low)) & (group.high <= np.uint64(high - 1)) & (part >= 0)
                entries: tuple[npt.NDArray[np.generic], ...] = (group.high, part, group.row)
                for column, values in zip(columns, entries, strict=True):
                    column.append(values[mine])
        if columns[0]:
            joined = [np.concatenate(column) for column in columns]
            order = np.argsort(joined[0], kind="stable")
            yield pa.table([column[order] for column in joined], schema=_SCHEMA)
