"""Keeps a job whose lease was taken over from changing anything, in every process that works for it.

`storage.fenced(fence.check)` has storage ask right before it replaces or removes a file. To ask is to list the leases,
which each process does again when its last answer is older than `FRESH_S`: a process that was stopped and wakes up
finds its answer old. Whoever takes a silent job's lease over waits so long before it begins, so that no answer of
before is fresh by then.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from jobs.leases.files import Place, overtaken_by, places, read
from manifests.errors import StorageError

#: Seconds that an answer is believed.
FRESH_S = 5.0


class LeaseLostError(StorageError):
    """Another job took this job's lease over, because it saw no beat for too long."""


@dataclass(frozen=True)
class Fence:
    """One job's lease as its processes see it. Travels to the workers by pickle."""

    output: str
    place: Place

    def check(self) -> None:
        """Make sure that nobody has taken the lease over.

        Raises:
            LeaseLostError: somebody has.
            StorageError: the storage does not say.
        """
        now = _clocks()
        before = _asked.get(self)
        if before is not None and all(0 <= new - old < FRESH_S for new, old in zip(now, before, strict=True)):
            return
        self.ask()
        _asked[self] = now

    def ask(self) -> None:
        """The same, whatever was known."""
        newer = overtaken_by(places(self.output), self.place)
        if newer is not None:
            holder = read(newer.url(self.output))
            raise LeaseLostError(lost_to(self.output, "another job" if holder is None else holder.words))


#: When this process asked last, by the clocks of `_clocks`.
_asked: dict[Fence, tuple[float, float]] = {}


def _clocks() -> tuple[float, float]:
    """Two clocks, because each has a sleep that it does not count: of the process, the machine, or a virtual one."""
    return time.time(), time.monotonic()


def lost_to(output: str, words: str) -> str:
    """What a job says whose lease is gone."""
    return (
        f"the lease of {output} was taken over by {words}, because this job gave no sign of life for too long; that "
        "job goes on with the work"
    )
