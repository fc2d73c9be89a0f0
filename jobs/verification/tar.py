"""Checks of a shard's tar: the members of the index's rows, in their order, each with the content that the index says.

The tar is read from its beginning to its end, one member at a time.
"""

from __future__ import annotations

import contextlib
import hashlib
import tarfile
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

import pyarrow as pa

from jobs.verification.checksums import HashingReader, compare_file
from jobs.verification.findings import ShardReport
from manifests import storage
from manifests.commit import FileStats, ShardStats
from manifests.errors import StorageError, first_line
from workers.stages.sample_json import sidecar_json


def check_tar(
    output: str,
    stats: ShardStats,
    rows: Iterator[tuple[dict[str, Any], pa.Schema]],
    suffixes: Sequence[str],
    report: ShardReport,
) -> None:
    """Walk tar and index side by side: the same samples in the same order, each member with the right content."""
    if stats.tar is None:
        if report.written:
            report.add("tar", f"shard {stats.shard:05d}", f"has no tar, but {report.written} rows with an image")
        return
    name = stats.tar.name
    image_bytes = 0

    def note(what: str) -> None:
        report.add("tar", name, what)

    try:
        with storage.open_read(storage.join(output, name)) as file, contextlib.closing(_Members(file, note)) as members:
            for row, schema in rows:
                key = row["key"]
                for member in (key + suffix for suffix in suffixes):
                    found = members.take(member)
                    if found is None:
                        continue
                    if member.endswith(suffixes[0]):
                        report.images += 1
                        image_bytes += len(found)
                        if hashlib.sha256(found).hexdigest() != row["sha256"]:
                            report.add("images", name, f"the sha256 of {member} is not the one in the index")
                    elif member.endswith(".txt"):
                        if found != (row["caption"] or "").encode():
                            note(f"{member} is not the caption in the index")
                    elif member.endswith(".json") and found != sidecar_json(row, schema):
                        note(f"{member} is not the record in the index")
            members.rest()
            compare_file(stats.tar, members.finish(), report)
    except FileNotFoundError:
        note("is missing")
    except (StorageError, OSError, tarfile.TarError, pa.ArrowException) as error:
        note(f"cannot be read to its end: {first_line(error)}")
    else:
        if image_bytes != stats.bytes:
            report.add("stats", name, f"its images have {image_bytes} bytes, the stats file says {stats.bytes}")


class _Members:
    """A tar read as a stream, with one member of look-ahead.

    Args:
        note: is told of every member that is missing, comes again, or belongs to no row.
    """

    def __init__(self, file: IO[bytes], note: Callable[[str], None]) -> None:
        self._note = note
        self._seen: set[str] = set()
        self._hashed = HashingReader(file)
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

    def take(self, name: str) -> bytes | None:
        """Content of the member that must come now; None where it does not. Unexpected ones are passed over."""
        while self._next is not None and self._next[0] != name:
            # Members are sorted by key, so a later one means that this one is not there.
            if self._next[0] not in self._seen and _sample_of(self._next[0]) >= _sample_of(name):
                break
            self._pass_over()
        if self._next is None or self._next[0] != name:
            self._note(f"member {name} is missing")
            return None
        data = self._next[1]
        self._seen.add(name)
        self._advance()
        return data

    def rest(self) -> None:
        """Pass over what is left: no row accounts for it."""
        while self._next is not None:
            self._pass_over()

    def finish(self) -> FileStats:
        """Size and checksum of the whole tar."""
        return self._hashed.finish()

    def _pass_over(self) -> None:
        assert self._next is not None
        name = self._next[0]
        again = name in self._seen
        self._note(f"member {name} is there twice" if again else f"member {name} belongs to no row of the index")
        self._advance()


def _sample_of(member: str) -> str:
    return member.split(".", 1)[0]
