"""`_run/status.json`: the facts of a run as it goes on, renewed by its driver, for whoever looks from elsewhere.

    OUTPUT/_run/status.json                   of a job on the whole plan
    OUTPUT/_run/status-00002-of-00004.json    of `--shards 3/4`

A status that says 'running' and is not renewed is that of a job that died (jobs/run/watching.py).
"""

from __future__ import annotations

import datetime
import os
import re
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from jobs.leases.files import places
from jobs.monitoring.facts import RunFacts
from manifests import storage
from manifests.errors import KandinskyBatchError, first_line

FOLDER = "_run"

#: Seconds between two writes; on an object store each is a request that costs money.
EVERY_S, EVERY_REMOTE_S = 5.0, 30.0

#: Seconds that the last write may try again: the run's own end waits for it.
LAST_WRITE_S = 10.0

#: Files read at the same time; on an object store each is one round trip.
READERS = 16

_NAME = re.compile(r"^status(?:-(\d{5})-of-(\d{5}))?\.json$")


class Status(BaseModel):
    """Content of the file.

    Attributes:
        state: 'running' until the job's end, then whether it ended well.
        reason: why it ended early, "" otherwise.
        share: which of how many, from 0.
        host, pid, started: the job; its start in UTC.
        updated: when this was written, in UTC by the job's clock.
        beat: how often it was written before.
        every_s: seconds until it is written again, if the storage lets it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    state: Literal["running", "done", "ended early"]
    reason: str
    share: tuple[int, int]
    host: str
    pid: int
    started: datetime.datetime
    updated: datetime.datetime
    beat: int
    every_s: float
    facts: RunFacts


class StatusFile:
    """Renews the status of this job from `begin` until its end; a context manager. Nothing that it meets ends the run.

    A job that ends well and has never begun, because there was nothing to do, leaves the status of the one before.

    Args:
        output: where; share: of what.
        facts: tells how things are.
        notify: hears, once, why the file cannot be written.
        check: raises where the output is another job's by now, and then nothing is written.
    """

    def __init__(
        self,
        output: str,
        share: tuple[int, int],
        facts: Callable[[], RunFacts],
        notify: Callable[[str], None],
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._url = storage.join(output, FOLDER, _name(share))
        self._share = share
        self._facts = facts
        self._notify = notify
        self._check = check
        self._every_s = EVERY_REMOTE_S if storage.is_remote(output) else EVERY_S
        self._started = _now()
        self._beat = 0
        self._troubled = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="status", daemon=True)

    def __enter__(self) -> StatusFile:
        return self

    def begin(self) -> None:
        """There is work to do, which is to be seen from now on."""
        self._thread.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        began = self._thread.ident is not None
        if began:
            self._thread.join(LAST_WRITE_S)
        if error is None:
            if began:
                self._write("done", "", LAST_WRITE_S)
        else:
            words = first_line(error) if isinstance(error, Exception) else f"interrupted ({error})"
            self._write("ended early", words, LAST_WRITE_S)

    def _renew(self) -> None:
        while True:
            self._write("running", "", self._every_s)
            if self._ended.wait(self._every_s):
                return

    def _write(self, state: Literal["running", "done", "ended early"], reason: str, patience_s: float) -> None:
        try:
            self._check()
        except KandinskyBatchError:
            return
        try:
            status = Status(
                state=state,
                reason=reason,
                share=self._share,
                host=socket.gethostname(),
                pid=os.getpid(),
                started=self._started,
                updated=_now(),
                beat=self._beat,
                every_s=self._every_s,
                facts=self._facts(),
            )
            self._beat += 1
            with storage.patience(patience_s):
                storage.write_atomic(self._url, status.model_dump_json(indent=2).encode() + b"\n")
        except Exception as error:  # whatever it is, the images are worth more
            if not self._troubled:
                self._troubled = True
                self._notify(f"{self._url} is not up to date: {first_line(error)}; the run goes on")


def read_statuses(output: str) -> list[Status]:
    """Those of the shares that the plan was last cut into, in their order; empty where there are none.

    A file that cannot be read, of another version say, is none.
    """
    names = filter(_NAME.match, storage.list_names(storage.join(output, FOLDER)))
    found: dict[int, list[Status]] = {}
    with ThreadPoolExecutor(READERS) as pool:
        for status in pool.map(lambda name: _read(storage.join(output, FOLDER, name)), names):
            if status is not None:
                found.setdefault(status.share[1], []).append(status)
    # By the order of leases, where there are some: clocks of the jobs' machines may differ by an hour.
    cuts = [place.share[1] for place in places(output) if place.share[1] in found]
    newest = found[cuts[-1]] if cuts else max(found.values(), key=_last_word, default=[])
    return sorted(newest, key=lambda status: status.share)


def _last_word(group: list[Status]) -> datetime.datetime:
    return max(status.updated for status in group)


def _read(url: str) -> Status | None:
    try:
        return Status.model_validate_json(storage.read_bytes(url))
    except (FileNotFoundError, ValidationError):
        return None


def _name(share: tuple[int, int]) -> str:
    return "status.json" if share[1] == 1 else "status-{:05d}-of-{:05d}.json".format(*share)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)
