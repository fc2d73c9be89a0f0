"""The files of leases, and which of them count.

    OUTPUT/_run/leases/00000-of-00001-000003.json      the whole plan, epoch 3
    OUTPUT/_run/leases/00002-of-00004-000001.json      its third quarter (`--shards 3/4`), epoch 1

Whoever takes a lease writes a file of the next epoch, and no epoch is used twice: the last file stays when its job
ends, marked as ended. A lease counts as long as none of a higher epoch is in its way, which is one of the same share
or of shares of another size. So a job that slept while its lease was taken over sees so in the names alone, whatever it
still writes into its own file. Files without an epoch are those of earlier versions.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, ValidationError

from manifests import storage

FOLDER = "_run/leases"

_NAME = re.compile(r"^(\d{5})-of-(\d{5})(?:-(\d{6,}))?\.json$")

#: Which of how many shares, from 0.
Share = tuple[int, int]


class Holder(BaseModel):
    """Content of a lease.

    Attributes:
        host, machine, pid, started: who holds it and since when (UTC); `machine` also tells apart containers and
            starts of one machine, within which a process id means something.
        token: of this one start; beat: how often it was renewed.
        ended: it was given back.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str
    machine: str
    pid: int
    process_started: str
    started: str
    token: str
    beat: int = 0
    ended: bool = False

    @property
    def words(self) -> str:
        """Who and since when, for a person."""
        return f"process {self.pid} on {self.host}, since {self.started}"

    @property
    def lives(self) -> bool | None:
        """Whether it lives, by its process id; None where nobody can tell from here."""
        if self.machine != machine():
            return None
        return process_started(self.pid) == self.process_started


@dataclass(frozen=True, order=True)
class Place:
    """A lease's place among all of an output."""

    epoch: int
    share: Share

    def is_in_the_way_of(self, share: Share) -> bool:
        """True for the same share, and for shares of another size, which hold some of the same work."""
        return self.share == share or self.share[1] != share[1]

    def url(self, output: str) -> str:
        """Where its file lies."""
        number, count = self.share
        epoch = f"-{self.epoch:06d}" if self.epoch else ""
        return storage.join(output, FOLDER, f"{number:05d}-of-{count:05d}{epoch}.json")


def places(output: str) -> list[Place]:
    """All leases of an output, ended ones too, lowest epoch first; one listing."""
    matches = map(_NAME.match, storage.list_names(storage.join(output, FOLDER)))
    return sorted(Place(int(m.group(3) or 0), (int(m.group(1)), int(m.group(2)))) for m in matches if m)


def overtaken_by(found: Sequence[Place], mine: Place) -> Place | None:
    """The newest lease that has taken this one's place; None where it counts."""
    return next((one for one in reversed(found) if one.epoch > mine.epoch and one.is_in_the_way_of(mine.share)), None)


def in_the_way(output: str, found: Sequence[Place], share: Share) -> dict[Place, Holder]:
    """Leases that count, have not ended, and are in the way of a share."""
    counting = [one for one in found if one.is_in_the_way_of(share) and overtaken_by(found, one) is None]
    holders = {place: read(place.url(output)) for place in counting}
    return {place: holder for place, holder in holders.items() if holder is not None and not holder.ended}


def holder_of(output: str, share: Share) -> Holder | None:
    """Who holds a share of an output; None where nobody does."""
    newest = next((place for place in reversed(places(output)) if place.share == share), None)
    holder = None if newest is None else read(newest.url(output))
    return None if holder is None or holder.ended else holder


def read(url: str) -> Holder | None:
    """Content of a lease; None where there is none that can be read."""
    try:
        return Holder.model_validate_json(storage.read_bytes(url))
    except (FileNotFoundError, ValidationError):
        return None


def machine() -> str:
    """Within what a process id means one process: a start of a machine, and a container on it."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return f"{file.read().strip()}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        # Not Linux: nobody can be told to be dead, only to be silent.
        return uuid.uuid4().hex


def process_started(pid: int) -> str | None:
    """When a process started, in ticks since boot; None where there is none. Ids are used again, starts are not."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            # The name in parentheses may hold anything, spaces too; what follows has fixed places.
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else fields[19]
