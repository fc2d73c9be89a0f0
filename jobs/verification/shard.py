"""Checks of one committed shard: what the plan says, what its stats say, what its index and its tar hold.

Files are read from their beginning to their end, the tar one member at a time; of the index some columns are
held at once. What does not fit together becomes a `Finding`; nothing here raises for damage.
"""

from __future__ import annotations

import contextlib
import hashlib
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from manifests import storage
from manifests.commit import FileStats, ShardStats, read_stats
from manifests.errors import SUCCESS, StorageError, first_line
from manifests.records import RECORD_NAMES
from workers.stages.sample_json import sidecar_json

#: Columns of the index that the plan decides. Paths are left out, because a manifest may move with its images;
#: so is what stages fill in.
PLANNED_COLUMNS: tuple[str, ...] = tuple(
    name
    for name in RECORD_NAMES
    if name not in ("status", "error_message", "prompt_truncated", "sha256", "image_path", "mask_path", "conditions")
)

#: Index rows looked at in one go.
_ROWS = 1000

#: Problems told of one kind in one shard; a shard that is all wrong would drown the others.
_SHOWN = 3


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: which check found it, in which file or place, and what it is."""

    check: str
    place: str
    what: str


@dataclass
class ShardReport:
    """What was seen in one shard.

    Attributes:
        findings: everything wrong; of each kind the first few and a count of the others.
        written, failed: rows of the index.
        images: image members of the tar.
        manifest_rows: the request of each row; `failed_rows` those of failed rows.
    """

    shard: int
    findings: list[Finding] = field(default_factory=list)
    written: int = 0
    failed: int = 0
    images: int = 0
    manifest_rows: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    failed_rows: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))


def check_shard(output: str, shard: int, planned: pa.Table, suffixes: Sequence[str]) -> ShardReport:
    """Read everything a sealed shard has and compare it.

    Args:
        planned: key and PLANNED_COLUMNS and `status` of the rows it must hold, in order.
        suffixes: what follows a key in the names of its members, the image's first.
    """
    report = ShardReport(shard)
    noted = _Notes(report.findings)
    try:
        stats = read_stats(output, shard)
    except FileNotFoundError:
        noted.add("shards", f"shard {shard:05d}", "is planned, but has no stats file, so it is not sealed")
    except StorageError as error:
        noted.add("stats", f"shard {shard:05d}", str(error))
    else:
        if stats.shard != shard:
            noted.add("stats", f"shard {shard:05d}", f"its stats file is of shard {stats.shard}")
        rows = _check_index(output, stats, planned, report, noted)
        _check_tar(output, stats, rows, suffixes, report, noted)
    noted.finish()
    return report


class _Notes:
    """Findings of one shard; too many of one kind in one file become a count."""

    def __init__(self, findings: list[Finding]) -> None:
        self._findings = findings
        self._counts: Counter[tuple[str, str]] = Counter()

    def add(self, check: str, place: str, what: str) -> None:
        self._counts[check, place] += 1
        if self._counts[check, place] <= _SHOWN:
            self._findings.append(Finding(check, place, what))

    def finish(self) -> None:
        for (check, place), count in self._counts.items():
            if count > _SHOWN:
                self._findings.append(Finding(check, place, f"and {count - _SHOWN} more like these"))


class _Hashed:
    """A readable file that hashes and counts what passes through it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.bytes = 0

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._digest.update(data)
        self.bytes += len(data)
        return data

    def finish(self) -> FileStats:
        """Read to the end; size and checksum of all of it."""
        while self.read(1 << 20):
            pass
        return FileStats(name="", bytes=self.bytes, sha256=self._digest.hexdigest())


def _compare_file(claimed: FileStats, found: FileStats, noted: _Notes) -> None:
    if (claimed.bytes, claimed.sha256) != (found.bytes, found.sha256):
        sizes = f" ({claimed.bytes} bytes in the stats, {found.bytes} found)" if claimed.bytes != found.bytes else ""
        noted.add("stats", claimed.name, f"its checksum is not the one that the stats file has{sizes}")


def _check_index(
    output: str, stats: ShardStats, planned: pa.Table, report: ShardReport, noted: _Notes
) -> Iterator[tuple[dict[str, Any], pa.Schema]]:
    """Check the index against plan and stats; returns its successful rows, read a second time as they are wanted."""
    name, url = stats.parquet.name, storage.join(output, stats.parquet.name)
    try:
        with storage.open_read(url) as file:
            _compare_file(stats.parquet, _Hashed(file).finish(), noted)
        with storage.open_arrow(url) as source:
            index = pq.ParquetFile(source).read(columns=["status", *PLANNED_COLUMNS])
    except FileNotFoundError:
        noted.add("index", name, "is missing")
        return iter(())
    except (StorageError, OSError, pa.ArrowException) as error:
        noted.add("index", name, f"cannot be read: {first_line(error)}")
        return iter(())
    _compare_rows(index, planned, name, noted)
    failed = np.array([status != SUCCESS for status in index.column("status").to_pylist()], bool)
    report.manifest_rows = index.column("manifest_row").to_numpy()
    report.failed_rows = report.manifest_rows[failed]
    report.failed, report.written = int(failed.sum()), len(failed) - int(failed.sum())
    statuses = Counter(status for status in index.column("status").to_pylist() if status != SUCCESS)
    counted = (len(failed), report.written, report.failed, dict(statuses))
    claimed = (stats.count, stats.successes, stats.failed, dict(stats.failed_by_status))
    if counted != claimed:
        noted.add(
            "stats",
            f"shard {stats.shard:05d}",
            "rows, written, failed and failed by status are {} {} {} {} in the index, {} {} {} {} in the stats".format(
                *counted, *claimed
            ),
        )
    return _successful_rows(url)


def _compare_rows(index: pa.Table, planned: pa.Table, name: str, noted: _Notes) -> None:
    keys, wanted = index.column("key").to_pylist(), planned.column("key").to_pylist()
    for key, count in Counter(keys).items():
        if count > 1:
            noted.add("index", name, f"key {key} is there {count} times")
    present, expected = set(keys), set(wanted)
    for key in wanted:
        if key not in present:
            noted.add("index", name, f"sample {key} is missing")
    for key in keys:
        if key not in expected:
            noted.add("index", name, f"sample {key} is not planned")
    if keys != wanted:
        if present == expected and len(keys) == len(wanted):
            noted.add("index", name, "its rows are not in the planned order")
        return
    for column in PLANNED_COLUMNS:
        if not index.column(column).equals(planned.column(column)):
            pairs = zip(keys, index.column(column).to_pylist(), planned.column(column).to_pylist(), strict=True)
            for key, found, right in pairs:
                if found != right:
                    noted.add("index", name, f"sample {key}: {column} is {found!r}, the manifest says {right!r}")
    rejected = zip(keys, index.column("status").to_pylist(), planned.column("status").to_pylist(), strict=True)
    for key, found, right in rejected:
        if (found == "failed_to_validate") != (right == "failed_to_validate"):
            noted.add("index", name, f"sample {key}: status is {found!r}, validation of the manifest says {right!r}")


def _successful_rows(url: str) -> Iterator[tuple[dict[str, Any], pa.Schema]]:
    with storage.open_arrow(url) as source:
        file = pq.ParquetFile(source)
        schema = file.schema_arrow
        for batch in file.iter_batches(_ROWS):
            for row in batch.to_pylist():
                if row["status"] == SUCCESS:
                    yield row, schema


def _check_tar(
    output: str,
    stats: ShardStats,
    rows: Iterator[tuple[dict[str, Any], pa.Schema]],
    suffixes: Sequence[str],
    report: ShardReport,
    noted: _Notes,
) -> None:
    """Walk tar and index side by side: the same samples in the same order, each member with the right content."""
    if stats.tar is None:
        if report.written:
            noted.add("tar", f"shard {stats.shard:05d}", f"has no tar, but {report.written} rows with an image")
        return
    name = stats.tar.name
    seen: set[str] = set()
    image_bytes = 0
    try:
        with storage.open_read(storage.join(output, name)) as file, contextlib.closing(_Members(file)) as members:
            for row, schema in rows:
                key = row["key"]
                for member in (key + suffix for suffix in suffixes):
                    found = members.take(member, seen, lambda what: noted.add("tar", name, what))
                    if found is None:
                        continue
                    if member.endswith(suffixes[0]):
                        report.images += 1
                        image_bytes += len(found)
                        if hashlib.sha256(found).hexdigest() != row["sha256"]:
                            noted.add("images", name, f"the sha256 of {member} is not the one in the index")
                    elif member.endswith(".txt"):
                        if found != (row["caption"] or "").encode():
                            noted.add("tar", name, f"{member} is not the caption in the index")
                    elif member.endswith(".json") and found != sidecar_json(row, schema):
                        noted.add("tar", name, f"{member} is not the record in the index")
            members.rest(seen, lambda what: noted.add("tar", name, what))
            _compare_file(stats.tar, members.finish(), noted)
    except FileNotFoundError:
        noted.add("tar", name, "is missing")
    except (StorageError, OSError, tarfile.TarError, pa.ArrowException) as error:
        noted.add("tar", name, f"cannot be read to its end: {first_line(error)}")
    else:
        if image_bytes != stats.bytes:
            noted.add("stats", name, f"its images have {image_bytes} bytes, the stats file says {stats.bytes}")


class _Members:
    """A tar read as a stream, with one member of look-ahead."""

    def __init__(self, file: IO[bytes]) -> None:
        self._hashed = _Hashed(file)
        self._tar = tarfile.open(fileobj=self._hashed, mode="r|")  # type: ignore[call-overload] # noqa: SIM115
        self._next: tuple[str, bytes] | None = None
        self._advance()

    def close(self) -> None:
        self._tar.close()

    def _advance(self) -> None:
        member = self._tar.next()
        # tarfile remembers every member it met, and a shard may have millions.
        self._tar.members = []
        if member is None:
            self._next = None
            return
        content = self._tar.extractfile(member)
        self._next = (member.name, b"" if content is None else content.read())

    def take(self, name: str, seen: set[str], tell: Any) -> bytes | None:
        """Content of the member that must come now; None where it does not.

        A member that belongs to no row, or comes again, is told and passed over.
        """
        while self._next is not None and self._next[0] != name:
            # Members are sorted by key, so a later one means that this one is not there.
            if self._next[0] not in seen and _sample_of(self._next[0]) >= _sample_of(name):
                break
            self._tell_odd(seen, tell)
        if self._next is None or self._next[0] != name:
            tell(f"member {name} is missing")
            return None
        data = self._next[1]
        seen.add(name)
        self._advance()
        return data

    def rest(self, seen: set[str], tell: Any) -> None:
        """Tell of every member that no row accounts for."""
        while self._next is not None:
            self._tell_odd(seen, tell)

    def finish(self) -> FileStats:
        """Size and checksum of the whole tar."""
        return self._hashed.finish()

    def _tell_odd(self, seen: set[str], tell: Any) -> None:
        assert self._next is not None
        name = self._next[0]
        tell(f"member {name} is there twice" if name in seen else f"member {name} belongs to no row of the index")
        self._advance()


def _sample_of(member: str) -> str:
    return member.split(".", 1)[0]


def planned_rows(batches: Sequence[pa.Table]) -> pa.Table:
    """The planned rows of a shard, without what a check does not need."""
    return pa.concat_tables([batch.select(["status", *PLANNED_COLUMNS]) for batch in batches])
