"""What verification says: single findings, what was seen in one shard, and the verdict on an output."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

#: Findings kept of one kind in one file; a shard that is all wrong would drown the others.
_KEPT = 3


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
    _counts: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, check: str, place: str, what: str) -> None:
        """Note a finding; too many of one kind in one file are only counted."""
        self._counts[check, place] += 1
        if self._counts[check, place] <= _KEPT:
            self.findings.append(Finding(check, place, what))

    def finish(self) -> None:
        """Say how many findings were only counted."""
        for (check, place), count in self._counts.items():
            if count > _KEPT:
                self.findings.append(Finding(check, place, f"and {count - _KEPT} more like these"))


@dataclass
class Verdict:
    """What was found in an output.

    Attributes:
        findings: everything that is wrong.
        requests: rows of the manifest; `whole` of them have all their images, `failed` lack one at least.
        images_written, images_failed: rows of the indexes.
        shards: that were looked at; `damaged` has the numbers of those that something is wrong with.
    """

    findings: list[Finding] = field(default_factory=list)
    requests: int = 0
    whole: int = 0
    failed: int = 0
    images_written: int = 0
    images_failed: int = 0
    shards: int = 0
    damaged: list[int] = field(default_factory=list)

    @property
    def right(self) -> bool:
        """True where nothing is wrong."""
        return not self.findings
