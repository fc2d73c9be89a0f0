"""One job at a time on an output, or on a share of it: leases with a heartbeat under `_run/leases/`.

    OUTPUT/_run/leases/00000-of-00001.json      the whole plan
    OUTPUT/_run/leases/00002-of-00004.json      its third quarter (`--shards 3/4`)

A lease holds who has it and a beat that its holder raises every few seconds. Clocks of two machines are never
compared: whoever wants a lease that is held watches its beat. A beat that moves is a job that lives; one that
stands still for `STALE_S` is a dead one, whose lease is taken over. On the holder's own machine its process id
tells at once.
"""

from __future__ import annotations

import datetime
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable
from types import TracebackType

from pydantic import BaseModel, ConfigDict, ValidationError

from manifests import storage
from manifests.errors import StorageError, UsageError

FOLDER = "_run/leases"

#: Between two beats.
BEAT_S = 10.0

#: A beat that stands still for so long is a dead job's. Longer than storage.RETRY_FOR_S and some beats, so that a
#: job that waits for its storage keeps its lease.
STALE_S = 180.0

#: Between two looks at somebody's beat.
LOOK_S = 1.0

_NAME = re.compile(r"^(\d{5})-of-(\d{5})\.json$")


class LeaseLostError(StorageError):
    """Another job took this job's lease over, because it saw no beat for too long."""


class Holder(BaseModel):
    """Content of a lease.

    Attributes:
        host, machine, pid, started: who holds it and since when (UTC); `machine` also tells apart containers and
            starts of one machine, within which a process id means something.
        token: of this one start; beat: how often it was renewed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str
    machine: str
    pid: int
    process_started: str
    started: str
    token: str
    beat: int = 0

    @property
    def words(self) -> str:
        """Who and since when, for a person."""
        return f"process {self.pid} on {self.host}, since {self.started}"

    @property
    def lives(self) -> bool | None:
        """Whether it lives, by its process id; None where nobody can tell from here."""
        if self.machine != _machine():
            return None
        return _process_started(self.pid) == self.process_started


class Lease:
    """The right to work on one share of an output; a context manager.

    Args:
        output: its location.
        share: which of how many shares, from 0.
        notify: hears what takes long.

    Raises:
        UsageError: another job works there.
    """

    def __init__(self, output: str, share: tuple[int, int], notify: Callable[[str], None]) -> None:
        self._output = output
        self._share = share
        self._notify = notify
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
        self._holder = Holder(
            host=socket.gethostname(),
            machine=_machine(),
            pid=os.getpid(),
            process_started=_process_started(os.getpid()) or "",
            started=now,
            token=uuid.uuid4().hex,
        )
        self._ended = threading.Event()
        self._lost: str | None = None
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)

    def __enter__(self) -> Lease:
        self._wait_for_others()
        self._write()
        # Two jobs that saw no lease at the same moment have both written; what lies there now decides between two
        # of one share, and of two that cut the plan differently both stop.
        time.sleep(LOOK_S)
        self._hold()
        others = self._others()
        if others:
            self._release()
            raise self._refused(next(iter(others.values())))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join(LOOK_S)
        self._release()

    def check(self) -> None:
        """Make sure that the lease is still ours.

        Raises:
            LeaseLostError: another job has it.
        """
        if self._lost is not None:
            raise LeaseLostError(
                f"the lease of {self._output} was taken over by {self._lost}, because this job gave no sign of life "
                f"for {STALE_S:g} s; that job goes on with the work"
            )

    @property
    def _url(self) -> str:
        return _url_of(self._output, self._share)

    def _wait_for_others(self) -> None:
        """Until no living job holds what would be in the way; a dead one's lease is removed."""
        for url, holder in self._others().items():
            if holder.lives or (holder.lives is None and self._beats(url, holder)):
                raise self._refused(holder)
            storage.remove(url)

    def _beats(self, url: str, holder: Holder) -> bool:
        self._notify(f"{self._output} is held by {holder.words}; waiting for a sign of life from it")
        deadline = time.monotonic() + STALE_S
        while time.monotonic() < deadline:
            time.sleep(LOOK_S)
            seen = _read(url)
            if seen is None:
                return False
            if (seen.token, seen.beat) != (holder.token, holder.beat):
                return True
        return False

    def _others(self) -> dict[str, Holder]:
        """Leases in the way: of the same share, or of shares of another size."""
        found = {}
        for name in storage.list_names(storage.join(self._output, FOLDER)):
            match = _NAME.match(name)
            share = (int(match.group(1)), int(match.group(2))) if match else None
            if share is None or (share[1] == self._share[1] and share != self._share):
                continue
            url = storage.join(self._output, FOLDER, name)
            holder = _read(url)
            if holder is not None and holder.token != self._holder.token:
                found[url] = holder
        return found

    def _refused(self, holder: Holder) -> UsageError:
        return UsageError(
            f"another job works on {self._output}: {holder.words}. Wait for it or stop it; to share one output "
            "between several jobs, start all of them with --shards 1/N … N/N"
        )

    def _hold(self) -> None:
        seen = _read(self._url)
        if seen is None or seen.token != self._holder.token:
            if seen is None:
                raise UsageError(f"{self._url} vanished while it was taken; start again")
            raise self._refused(seen)

    def _write(self) -> None:
        storage.write_atomic(self._url, self._holder.model_dump_json().encode())

    def _release(self) -> None:
        seen = _read(self._url)
        if seen is not None and seen.token == self._holder.token:
            storage.remove(self._url)

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_S):
            try:
                seen = _read(self._url)
                if seen is not None and seen.token != self._holder.token:
                    self._lost = seen.words
                    return
                self._holder = self._holder.model_copy(update={"beat": self._holder.beat + 1})
                self._write()
            except StorageError:
                # The run itself meets the same storage, and tells.
                continue


def holder_of(output: str, share: tuple[int, int]) -> Holder | None:
    """Who holds a share of an output; None where nobody does."""
    return _read(_url_of(output, share))


def _url_of(output: str, share: tuple[int, int]) -> str:
    return storage.join(output, FOLDER, "{:05d}-of-{:05d}.json".format(*share))


def _read(url: str) -> Holder | None:
    try:
        return Holder.model_validate_json(storage.read_bytes(url))
    except (FileNotFoundError, ValidationError):
        return None


def _machine() -> str:
    """Within what a process id means one process: a start of a machine, and a container on it."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return f"{file.read().strip()}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        # Not Linux: nobody can be told to be dead, only to be silent.
        return uuid.uuid4().hex


def _process_started(pid: int) -> str | None:
    """When a process started, in ticks since boot; None where there is none. Ids are used again, starts are not."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            # The name in parentheses may hold anything, spaces too; what follows has fixed places.
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else fields[19]
