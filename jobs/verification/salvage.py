"""What is still right in a shard that is damaged: which rows are known, and where in the tar their files lie.

The tar is read past its damage: a member's header has a checksum of its own, so the next one is found behind anything.
A row of the index counts where the whole index has its SHA-256, else where the tar says the same; an image counts where
it has the SHA-256 of its row.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.verification.checksums import HashingReader
from jobs.verification.findings import ShardReport
from jobs.verification.index import PLANNED_COLUMNS, compare_rows
from manifests import commit, storage
from manifests.commit import FileStats, ShardStats
from manifests.embeddings import kept_clip
from manifests.errors import SUCCESS, StorageError
from manifests.rankings import RANKINGS
from manifests.scores import COLUMNS

#: What the plan does not know of a row.
FACTS = ("status", "error_message", "prompt_truncated", "sha256")

#: A header, and what every member is filled up to.
_BLOCK = 512


@dataclass
class Salvage:
    """What is right in a shard.

    Attributes:
        stats: the commit record; None where it is missing or cannot be read.
        tar, index: the files as they are; None where they are missing.
        clip: the files of embeddings, as the record has them, or as they are where there is no record.
        lost_clip: one of them is not what the record says.
        rows: the whole index, where it is right.
        facts: key -> FACTS, scores and rankings, of the rows that are known where `rows` is None.
        members: key -> place and size of each of its files in the tar that a row does not hold, the image's first.
    """

    shard: int
    stats: ShardStats | None = None
    tar: FileStats | None = None
    index: FileStats | None = None
    clip: tuple[FileStats, ...] | None = None
    lost_clip: bool = False
    rows: pa.Table | None = None
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)
    members: dict[str, list[tuple[int, int]]] = field(default_factory=dict)


def salvage(output: str, shard: int, planned: pa.Table, suffixes: Sequence[str]) -> Salvage:
    """Look for what is right in a shard.

    Args:
        planned: `status` and PLANNED_COLUMNS of the rows that it must hold, in order.
        suffixes: what follows a key in the names of its members, the image's first.

    Raises:
        StorageError: a file is there and the storage does not give it.
    """
    found = Salvage(shard)
    with contextlib.suppress(FileNotFoundError, StorageError):
        found.stats = commit.read_stats(output, shard)
    found.index = _describe(storage.join(output, commit.index_name(shard)))
    _look_at_clip(output, found)
    found.rows = _right_rows(output, found, planned)
    known = {} if found.rows is None else dict(zip(*map(_values(found.rows), ("key", "sha256")), strict=True))
    url = storage.join(output, commit.tar_name(shard))
    try:
        with storage.open_read(url) as file:
            hashed = HashingReader(_PastErrors(file))
            _look_through(_members(hashed), known, planned, suffixes, found)
            found.tar = hashed.finish()
    except FileNotFoundError:
        pass
    recorded = None if found.stats is None else found.stats.tar
    if len(suffixes) > len(_RECORDED) and not _is(found.tar, recorded):
        # Nothing says whether latents are right but the checksum of all.
        found.members.clear()
    return found


#: Suffixes of members that a row says all about: the image by its checksum, caption and record by their content.
_RECORDED = ("image", ".txt", ".json")


def _values(table: pa.Table) -> Any:
    return lambda name: table.column(name).to_pylist()


def _is(found: FileStats | None, claimed: FileStats | None) -> bool:
    return found is not None and claimed is not None and (found.bytes, found.sha256) == (claimed.bytes, claimed.sha256)


def _describe(url: str) -> FileStats | None:
    try:
        with storage.open_read(url) as file:
            return HashingReader(_PastErrors(file)).finish()
    except FileNotFoundError:
        return None


def _look_at_clip(output: str, found: Salvage) -> None:
    there = [(name, _describe(storage.join(output, name))) for name in kept_clip.names(found.shard)]
    if found.stats is None:
        files = tuple(file.model_copy(update={"name": name}) for name, file in there if file is not None)
        found.clip = files if len(files) == len(there) else None
        return
    found.clip = found.stats.clip
    by_name = dict(there)
    found.lost_clip = any(not _is(by_name.get(claimed.name), claimed) for claimed in found.clip or ())


class _PastErrors:
    """A file of which a disk may not give all any more; what it does not give comes as zeros."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._place = 0

    def read(self, size: int = -1) -> bytes:
        """Read as the file would."""
        try:
            data = self._file.read(size)
        except OSError:
            data = bytes(size)
            self._file.seek(self._place + size)
        self._place += len(data)
        return data


def _right_rows(output: str, found: Salvage, planned: pa.Table) -> pa.Table | None:
    """The index, where it is the one that was committed; without a commit record, where it is as the manifest asks."""
    if found.index is None or (found.stats is not None and not _is(found.index, found.stats.parquet)):
        return None
    url = storage.join(output, commit.index_name(found.shard))
    try:
        with storage.open_arrow(url) as source:
            rows = pq.ParquetFile(source).read()
        report = ShardReport(found.shard)
        compare_rows(rows.select(["status", *PLANNED_COLUMNS]), planned, url, report)
    except (OSError, KeyError, pa.ArrowException):
        return None
    return None if report.findings else rows


def _members(file: HashingReader) -> Iterator[tuple[str, int, bytes]]:
    """Name, place and content of every member of a tar, past whatever is damaged between two of them."""
    while block := file.read(_BLOCK):
        try:
            member = tarfile.TarInfo.frombuf(block, "utf-8", "replace")
        except tarfile.HeaderError:
            continue
        place, content = file.bytes, file.read(member.size)
        file.read(-member.size % _BLOCK)
        yield member.name, place, content


def _look_through(
    members: Iterator[tuple[str, int, bytes]],
    known: Mapping[str, str | None],
    planned: pa.Table,
    suffixes: Sequence[str],
    found: Salvage,
) -> None:
    """Note the images that are right, and the rows that their records tell.

    Args:
        known: key -> SHA-256 by the index; empty where the records in the tar must say it.
    """
    rejected = zip(*map(_values(planned), ("key", "status")), strict=True)
    wanted = {key for key, status in rejected if status == SUCCESS}
    hashes: dict[str, str] = {}
    for name, place, content in members:
        key, dot, rest = name.partition(".")
        suffix = dot + rest
        if key not in wanted or suffix not in suffixes:
            continue
        if suffix == suffixes[0]:
            hashes[key] = hashlib.sha256(content).hexdigest()
            if not known or known.get(key) == hashes[key]:
                found.members[key] = [(place, len(content))]
        elif suffix == ".json" and not known:
            fact = _fact(content, key)
            if fact is not None and fact["sha256"] == hashes.get(key):
                found.facts[key] = fact
        elif suffix not in _RECORDED and key in found.members:
            found.members[key].append((place, len(content)))
    whole = 1 + len(suffixes) - len(_RECORDED)
    found.members = {
        key: places for key, places in found.members.items() if len(places) == whole and (known or key in found.facts)
    }


def _fact(record: bytes, key: str) -> dict[str, Any] | None:
    """FACTS of a sample by its record in the tar, and scores as that spells them; None where that is damaged."""
    try:
        members = json.loads(record)
        if members["key"] != key or members["status"] != SUCCESS:
            return None
        scores = {name: members[name] for name in (*COLUMNS, *RANKINGS) if name in members}
        return {**{name: members[name] for name in FACTS}, "error_message": None, **scores}
    except (ValueError, KeyError, TypeError):
        return None
