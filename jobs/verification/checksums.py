"""Checksums: a file is hashed while it is read, and compared with what the stats file claims."""

from __future__ import annotations

import hashlib
from typing import Protocol

from jobs.verification.findings import ShardReport
from manifests.commit import FileStats


class Readable(Protocol):
    """What is read from its beginning on."""

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes; all that are left with -1."""


class HashingReader:
    """A readable file that hashes and counts what passes through it."""

    def __init__(self, file: Readable) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.bytes = 0

    def read(self, size: int = -1) -> bytes:
        """Read as the file would."""
        data = self._file.read(size)
        self._digest.update(data)
        self.bytes += len(data)
        return data

    def finish(self) -> FileStats:
        """Read to the end; size and checksum of all of it."""
        while self.read(1 << 20):
            pass
        return FileStats(name="", bytes=self.bytes, sha256=self._digest.hexdigest())


def compare_file(claimed: FileStats, found: FileStats, report: ShardReport) -> None:
    """Note a file whose size or checksum is not the one in the stats."""
    if (claimed.bytes, claimed.sha256) != (found.bytes, found.sha256):
        sizes = f" ({claimed.bytes} bytes in the stats, {found.bytes} found)" if claimed.bytes != found.bytes else ""
        report.add("stats", claimed.name, f"its checksum is not the one that the stats file has{sizes}")
