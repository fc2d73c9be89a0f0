"""Keeps a job whose lease was taken over from changing anything, in every process that works for it.

`storage.fenced(fence.check)` has storage ask right before it replaces or removes a file. To ask is to list the leases,
which each process does again when its last answer is older than `FRESH_S`: a process that was stopped and wakes up
finds its answer old. Whoever takes a silent job's lease over waits so long before it begins, so that no answer of
before is fresh by then.

A local output is a name that may come to mean another folder: a link that is pointed elsewhere, a mount that is gone, a
folder that was moved. So an answer counts for the folder that it was given in, and only where this job's lease lies is
what this job may change.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from jobs.leases.files import Place, overtaken_by, places, read
from manifests import storage
from manifests.errors import StorageError

#: Seconds that an answer is believed.
FRESH_S = 5.0


class LeaseLostError(StorageError):
    """Another job took this job's lease over, because it saw no beat for too long; or the output is another folder."""


@dataclass(frozen=True)
class Fence:
    """One job's lease as its processes see it. Travels to the workers by pickle."""

    output: str
    place: Place
    token: str

    def check(self) -> None:
        """Make sure that nobody has taken the lease over, and that the output is where it was.

        Raises:
            LeaseLostError: somebody has.
            StorageError: the storage does not say.
        """
        now, folder = _clocks(), _identity(self.output)
        before = _asked.get(self)
        if before is not None and before[1] == folder and _is_fresh(before[0], now):
            return
        self.ask()
        _asked[self] = now, folder

    def ask(self) -> None:
        """The same, whatever was known."""
        newer = overtaken_by(places(self.output), self.place)
        if newer is not None:
            holder = read(newer.url(self.output))
            raise LeaseLostError(lost_to(self.output, "another job" if holder is None else holder.words))
        if not storage.is_remote(self.output):
            mine = read(self.place.url(self.output))
            if mine is None or mine.token != self.token:
                raise LeaseLostError(
                    f"{self.output} is not the folder any more that this job has begun to write to: its lease is not "
                    "there. A link may have been pointed elsewhere, or a mount be gone; what was made lies where it was"
                )


#: When this process asked last, by the clocks of `_clocks`, and about which folder.
_asked: dict[Fence, tuple[tuple[float, float], tuple[int, int] | None]] = {}


def _identity(output: str) -> tuple[int, int] | None:
    """Tells a local folder from others, on this machine; None where there is none, and of remote ones."""
    if storage.is_remote(output):
        return None
    try:
        found = os.stat(storage.local_path(output))
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _clocks() -> tuple[float, float]:
    """Two clocks, because each has a sleep that it does not count: of the process, the machine, or a virtual one."""
    return time.time(), time.monotonic()


def _is_fresh(then: tuple[float, float], now: tuple[float, float]) -> bool:
    return all(0 <= new - old < FRESH_S for new, old in zip(now, then, strict=True))


def lost_to(output: str, words: str) -> str:
    """What a job says whose lease is gone."""
    return (
        f"the lease of {output} was taken over by {words}, because this job gave no sign of life for too long; that "
        "job goes on with the work"
    )
