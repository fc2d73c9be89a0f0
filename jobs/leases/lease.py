"""One job at a time on an output, or on a share of it: leases with a heartbeat (files.py says where they lie).

A lease holds who has it and a beat that its holder raises every few seconds. Clocks of two machines are never
compared: whoever wants a lease that is held watches its beat. A beat that moves is a job that lives; one that
stands still for `STALE_S` is a dead one, whose lease is taken over. On the holder's own machine its process id
tells at once.

To take a lease is to write the file of the next epoch, which storage gives to one job alone where it can do so
(manifests/storage/exclusive.py). Where it cannot, two jobs that start within a second may both have written it, and
what lies there a moment later decides.
"""

from __future__ import annotations

import datetime
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from types import TracebackType

from jobs.leases import files
from jobs.leases.fence import FRESH_S, Fence, LeaseLostError, lost_to
from jobs.leases.files import Holder, Place, Share
from manifests import storage
from manifests.errors import StorageError, UsageError

#: Between two beats.
BEAT_S = 10.0

#: A beat that stands still for so long is a dead job's. Longer than storage.RETRY_FOR_S and some beats, so that a
#: job that waits for its storage keeps its lease.
STALE_S = 180.0

#: Between two looks at somebody's beat.
LOOK_S = 1.0


class Lease:
    """The right to work on one share of an output; a context manager.

    Args:
        output: its location.
        share: which of how many shares, from 0.
        notify: hears what takes long.

    Raises:
        UsageError: another job works there.
    """

    def __init__(self, output: str, share: Share, notify: Callable[[str], None]) -> None:
        self._output = output
        self._notify = notify
        self._place = Place(1, share)
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
        self._holder = Holder(
            host=socket.gethostname(),
            machine=files.machine(),
            pid=os.getpid(),
            process_started=files.process_started(os.getpid()) or "",
            started=now,
            token=uuid.uuid4().hex,
        )
        #: Somebody whose process nobody can see from here was taken for dead.
        self._believed_dead = False
        self._ended = threading.Event()
        self._lost: str | None = None
        self._thread = threading.Thread(target=self._beat, name="lease", daemon=True)

    def __enter__(self) -> Lease:
        exclusive = storage.is_exclusive(storage.join(self._output, files.FOLDER))
        while not self._take(exclusive):
            continue
        # Two jobs that cut the plan differently may have written at the same moment, and where storage gives a name to
        # several, two of one share as well.
        time.sleep(max(LOOK_S, FRESH_S if self._believed_dead else 0.0))
        self._hold()
        self._tidy()
        if self._believed_dead:
            # What it was about to put in place when it fell asleep: without it, it cannot when it wakes up.
            storage.sweep(self._output, STALE_S / 2, below=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join(LOOK_S)
        self._release()

    @property
    def fence(self) -> Fence:
        """What keeps this job's processes from changing anything once the lease is gone."""
        return Fence(self._output, self._place, self._holder.token)

    def check(self) -> None:
        """Make sure that the lease is still ours.

        Raises:
            LeaseLostError: another job has it.
        """
        if self._lost is not None:
            raise LeaseLostError(self._lost)

    @property
    def _url(self) -> str:
        return self._place.url(self._output)

    def _take(self, exclusive: bool) -> bool:
        """Write the next epoch's file when nobody who lives is in the way; False where somebody else was faster."""
        found = files.places(self._output)
        for place, holder in files.in_the_way(self._output, found, self._place.share).items():
            lives = holder.lives
            if lives or (lives is None and self._beats(place, holder)):
                raise self._refused(holder)
            self._believed_dead |= lives is None
        self._place = Place(max((place.epoch for place in found), default=0) + 1, self._place.share)
        if exclusive:
            return storage.create(self._url, self._content)
        self._write()
        return True

    def _beats(self, place: Place, holder: Holder) -> bool:
        self._notify(f"{self._output} is held by {holder.words}; waiting for a sign of life from it")
        deadline = time.monotonic() + STALE_S
        while time.monotonic() < deadline:
            time.sleep(LOOK_S)
            seen = files.read(place.url(self._output))
            if seen is None or seen.ended:
                return False
            if (seen.token, seen.beat) != (holder.token, holder.beat):
                return True
        return False

    def _refused(self, holder: Holder) -> UsageError:
        return UsageError(
            f"another job works on {self._output}: {holder.words}. Wait for it or stop it; to share one output "
            "between several jobs, start all of them with --shards 1/N … N/N"
        )

    def _hold(self) -> None:
        """Make sure that nobody else has taken what we have."""
        seen = files.read(self._url)
        if seen is None:
            raise UsageError(f"{self._url} vanished while it was taken; start again")
        if seen.token != self._holder.token:
            raise self._refused(seen)
        found = files.places(self._output)
        rivals = files.in_the_way(self._output, found, self._place.share)
        rivals.pop(self._place, None)
        newer = files.overtaken_by(found, self._place)
        if newer is not None and newer not in rivals:
            # It has come and gone in the meantime.
            self._release()
            raise UsageError(f"another job has worked on {self._output} while this one started; start again")
        if rivals:
            self._release()
            raise self._refused(next(iter(rivals.values())))

    def _tidy(self) -> None:
        """Remove files of this share that no longer count."""
        for place in files.places(self._output):
            if place.share == self._place.share and place.epoch < self._place.epoch:
                storage.remove(place.url(self._output))

    @property
    def _content(self) -> bytes:
        return self._holder.model_dump_json().encode()

    def _write(self) -> None:
        storage.write_atomic(self._url, self._content)

    def _release(self) -> None:
        """Give it back. The file stays, so that its epoch is not used again."""
        seen = files.read(self._url)
        if seen is not None and seen.token == self._holder.token:
            self._holder = self._holder.model_copy(update={"ended": True})
            self._write()

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_S):
            try:
                self.fence.ask()
                seen = files.read(self._url)
                if seen is not None and seen.token != self._holder.token:
                    self._lost = lost_to(self._output, seen.words)
                    return
                self._holder = self._holder.model_copy(update={"beat": self._holder.beat + 1})
                self._write()
            except LeaseLostError as error:
                self._lost = str(error)
                return
            except StorageError:
                # The run itself meets the same storage, and tells.
                continue
