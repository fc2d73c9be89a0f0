"""Tidying the embedding store: what it holds, and making few large parts of many small ones.

Everything here may be killed at any moment and may run beside jobs that use the store: new parts are found before old
ones go, and a reader whose file has gone looks again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from manifests import storage
from manifests.embeddings import key_index
from manifests.embeddings.keys import VECTORS, part_schema, right_rows
from manifests.embeddings.store import PART_FILE, PARTS_FOLDER, EmbeddingStore, part_url
from manifests.errors import StorageError

#: Parts below so many rows are put together.
SMALL_PART_ROWS = 16_384

#: Bytes of rows that become one part.
PART_BYTES = 128 << 20

#: Keys remembered to find doubled rows; what is doubled lies in neighbouring parts or does little harm.
_SEEN_KEYS = 4_000_000

#: Parts looked at together.
READERS = 16


@dataclass(frozen=True)
class PartInfo:
    """One part.

    Attributes:
        rows: by (checkpoint, dtype, width).
        bytes: size of the file.
    """

    name: str
    rows: Counter[tuple[str, str, int]]
    bytes: int


@dataclass
class Pruned:
    """What `prune` did: parts before and after, rows kept, rows dropped by reason, and files that are no parts."""

    parts_before: int = 0
    parts_after: int = 0
    rows: int = 0
    damaged: int = 0
    doubled: int = 0
    unwanted: int = 0
    unreadable: int = 0
    foreign: int = 0


def part_names(store_url: str) -> list[str]:
    """Names of the store's parts, by one listing."""
    matches = (PART_FILE.match(name) for name in storage.list_names(storage.join(store_url, PARTS_FOLDER)))
    return [match.group(1) for match in matches if match]


@contextmanager
def open_part(store_url: str, name: str) -> Iterator[pq.ParquetFile | None]:
    """A part as Parquet file; None where it is gone, damaged or not one of the store."""
    try:
        source = storage.open_arrow(part_url(store_url, name))
    except FileNotFoundError:
        yield None
        return
    with source:
        try:
            file = pq.ParquetFile(source, page_checksum_verification=True)
            kind = file.schema_arrow.field("image_embeds").type
            ours = pa.types.is_fixed_size_list(kind) and file.schema_arrow.equals(part_schema(kind))
        except (OSError, pa.ArrowException, KeyError) as error:
            if isinstance(error, StorageError):
                raise
            ours = False
        yield file if ours else None


def look(store_url: str, names: Collection[str]) -> Iterator[PartInfo | None]:
    """What each part holds, without its vectors; None for one that cannot be read."""

    def look_at(name: str) -> PartInfo | None:
        with open_part(store_url, name) as file:
            if file is None:
                return None
            kind = file.schema_arrow.field("image_embeds").type
            dtype = str(np.dtype(kind.value_type.to_pandas_dtype()))
            try:
                column = file.read(columns=["checkpoint"]).column(0).to_pylist()
            except (OSError, pa.ArrowException):
                return None
            rows = Counter((checkpoint, dtype, kind.list_size) for checkpoint in column)
            return PartInfo(name, rows, _size(store_url, name))

    with ThreadPoolExecutor(READERS) as pool:
        yield from pool.map(look_at, names)


def _size(store_url: str, name: str) -> int:
    with storage.open_arrow(part_url(store_url, name)) as source:
        return int(source.size())


def right_tables(store_url: str, name: str, dropped: Pruned) -> Iterator[pa.Table]:
    """The rows of a part that are what they claim, a row group at a time; the others are counted."""
    with open_part(store_url, name) as file:
        if file is None:
            dropped.unreadable += 1
            return
        for group in range(file.num_row_groups):
            try:
                table = file.read_row_group(group)
                right = right_rows(table)
            except (OSError, pa.ArrowException) as error:
                if isinstance(error, StorageError):
                    raise
                dropped.damaged += file.metadata.row_group(group).num_rows
                continue
            dropped.damaged += int((~right).sum())
            yield table.filter(pa.array(right)).combine_chunks()


def prune(store_url: str, keep: Collection[str] | None = None, check: bool = False) -> Pruned:
    """Put small parts together, drop what is damaged in them or doubled, and make one index of all.

    Args:
        keep: fingerprints of checkpoints whose embeddings stay; None keeps all.
        check: read the large parts as well, to drop what is damaged there.

    Raises:
        StorageError: the storage refused.
    """
    done = Pruned()
    names = part_names(store_url)
    done.parts_before = len(names)
    index = key_index.index_files(store_url)
    covered = set().union(*key_index.covered_parts(store_url, index).values()) if index else set()
    touched: list[str] = []
    for name, info in zip(names, look(store_url, names), strict=True):
        if info is None and _is_foreign(store_url, name):
            done.foreign += 1
            continue
        rows = 0 if info is None else sum(info.rows.values())
        unwanted = info is not None and keep is not None and any(origin[0] not in keep for origin in info.rows)
        if info is None or check or unwanted or rows < SMALL_PART_ROWS or name not in covered:
            touched.append(name)
        else:
            done.rows += rows
    written = set(_rewritten(store_url, touched, keep, done))
    gone = (set(touched) - written) | (covered - set(names) - written)
    key_index.merge_index(store_url, key_index.index_files(store_url), without=gone)
    for name in set(touched) - written:
        storage.remove(part_url(store_url, name))
    storage.sweep(storage.join(store_url, PARTS_FOLDER))
    storage.sweep(storage.join(store_url, key_index.INDEX_FOLDER))
    done.parts_after = done.parts_before - len(touched) + len(written)
    return done


def _is_foreign(store_url: str, name: str) -> bool:
    """Whether a file with a part's name is sound Parquet with none of a part's columns, so that somebody needs it."""
    try:
        with storage.open_arrow(part_url(store_url, name)) as source:
            return not {"key", "checksum", *VECTORS} & set(pq.read_schema(source).names)
    except (OSError, pa.ArrowException):
        return False


def _rewritten(store_url: str, names: Collection[str], keep: Collection[str] | None, done: Pruned) -> Iterator[str]:
    """Write the right rows of these parts into new ones; yields their names."""
    store = EmbeddingStore(store_url)
    # Rows of one dtype and width make a part; usually there is one kind.
    waiting: dict[pa.Schema, list[pa.Table]] = {}
    seen: set[bytes] = set()
    for name in names:
        if len(seen) > _SEEN_KEYS:
            seen.clear()
        for table in right_tables(store_url, name, done):
            wanted = _wanted(table, keep, seen, done)
            done.rows += wanted.num_rows
            if not wanted.num_rows:
                continue
            tables = waiting.setdefault(wanted.schema.remove_metadata(), [])
            tables.append(wanted)
            if sum(one.nbytes for one in tables) >= PART_BYTES:
                yield store.add(pa.concat_tables(tables))
                tables.clear()
    for tables in waiting.values():
        if tables:
            yield store.add(pa.concat_tables(tables))


def _wanted(table: pa.Table, keep: Collection[str] | None, seen: set[bytes], done: Pruned) -> pa.Table:
    keys, checkpoints = table.column("key").to_pylist(), table.column("checkpoint").to_pylist()
    flags = []
    for key, checkpoint in zip(keys, checkpoints, strict=True):
        unwanted, doubled = keep is not None and checkpoint not in keep, key in seen
        done.unwanted += unwanted
        done.doubled += doubled and not unwanted
        flags.append(not unwanted and not doubled)
        seen.add(key)
    return table.filter(pa.array(flags, pa.bool_())).combine_chunks()
