"""How a job on an output fares, told from its files alone: whether it lives, has died or is done, and its facts.

A job's own machine knows whether its process lives. Elsewhere a status that is not renewed tells. Clocks of two
machines may be an hour apart, so a status that looks old by them is watched for a moment: it may be renewed.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from pydantic import BaseModel, ConfigDict

from jobs.leases.files import Holder, holder_of
from jobs.leases.lease import STALE_S
from jobs.monitoring.facts import IMAGES, Count, RunFacts
from jobs.monitoring.pace import duration
from jobs.monitoring.shares import together
from jobs.monitoring.status_file import READERS, Status, read_statuses
from jobs.run import run_folder

State = Literal["running", "done", "ended early", "died"]

#: For so many of its renewals a status that looks old is watched.
RENEWALS = 2.5

#: Seconds between two looks at it.
LOOK_S = 0.5

#: Of several shares, the state that the whole has: the first of these that one of them has.
_WORST_FIRST: tuple[State, ...] = ("running", "died", "ended early", "done")


class ShareState(BaseModel):
    """One job of those that share the output, or the only one.

    Attributes:
        state: as it is, where `status` says what the job said last.
        words: state and reason for a person.
    """

    model_config = ConfigDict(frozen=True)

    state: State
    words: str
    status: Status


class OutputState(BaseModel):
    """All jobs on an output.

    Attributes:
        missing: shares that no job has begun.
        facts: of all shares together.
    """

    model_config = ConfigDict(frozen=True)

    output: str
    state: State
    words: str
    shares: tuple[ShareState, ...]
    missing: int
    facts: RunFacts


class Watcher:
    """Looks at an output, as often as one likes.

    Args:
        output: its location.
        clock: tells seconds.
        sleep: waits so many of them.
    """

    def __init__(
        self,
        output: str,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._output = output
        self._clock = clock
        self._sleep = sleep
        #: By share, the beat that was seen last, when it was seen first, and whether it has moved since.
        self._beats: dict[tuple[int, int], tuple[tuple[datetime.datetime, int], float, bool]] = {}

    def look(self) -> OutputState:
        """How things are.

        Raises:
            UsageError: no run was begun there.
            StorageError: the output cannot be read.
        """
        statuses = read_statuses(self._output)
        if not statuses:
            return self._without_status()
        with ThreadPoolExecutor(READERS) as pool:
            holders = list(pool.map(lambda status: holder_of(self._output, status.share), statuses))
        if doubtful := [
            each for each, holder in zip(statuses, holders, strict=True) if self._is_doubtful(each, holder)
        ]:
            statuses = self._watched(statuses, doubtful)
        shares = [self._judge(status, holder) for status, holder in zip(statuses, holders, strict=True)]
        states = {share.state for share in shares}
        state = next(each for each in _WORST_FIRST if each in states)
        missing = statuses[0].share[1] - len(shares)
        words = shares[0].words if len(shares) == 1 and not missing else _counted(shares, missing)
        if state != "running" and run_folder.is_finished(self._output):
            # Whatever those said last who are in the status: a later job has found nothing left to do.
            state, words = "done", words if state == "done" else "done"
        elif state == "done" and missing:
            state = "ended early"
        facts = together([_as_of_now(share) for share in shares])
        return OutputState(
            output=self._output, state=state, words=words, shares=tuple(shares), missing=missing, facts=facts
        )

    def _judge(self, status: Status, holder: Holder | None) -> ShareState:
        if status.state != "running":
            words = f"ended early: {status.reason}" if status.reason else status.state
            return ShareState(state=status.state, words=words, status=status)
        lives = None if holder is None or holder.pid != status.pid else holder.lives
        silent_s = self._silent_s(status)
        if lives or (lives is None and holder is not None and silent_s < STALE_S):
            return ShareState(state="running", words=f"running: {status.facts.phase}", status=status)
        if holder is None:
            # Its lease goes with its end, and so it may have said more meanwhile.
            for later in read_statuses(self._output):
                if later.share == status.share and later.state != "running":
                    return self._judge(later, None)
        why = f"no sign of life for {duration(silent_s)}" if lives is None and holder else "its process is gone"
        words = f"died while {status.facts.phase}: {why}; the same command goes on from there"
        return ShareState(state="died", words=words, status=status)

    def _is_doubtful(self, status: Status, holder: Holder | None) -> bool:
        """Only clocks say that it died, and none of its renewals was awaited yet."""
        if status.state != "running" or holder is None or holder.pid != status.pid or holder.lives is not None:
            return False
        new = status.share not in self._beats
        return self._silent_s(status) >= STALE_S and new

    def _watched(self, statuses: list[Status], doubtful: Sequence[Status]) -> list[Status]:
        """The statuses as soon as one of the doubtful ones is renewed, or when that takes too long."""
        before = {status.share: (status.started, status.beat) for status in doubtful}
        deadline = self._clock() + RENEWALS * max(status.every_s for status in doubtful)
        found = statuses
        while self._clock() < deadline and all(
            before.get(status.share, (status.started, status.beat)) == (status.started, status.beat) for status in found
        ):
            self._sleep(LOOK_S)
            found = read_statuses(self._output)
        return found if [status.share for status in found] == [status.share for status in statuses] else statuses

    def _silent_s(self, status: Status) -> float:
        beat, now = (status.started, status.beat), self._clock()
        known = self._beats.get(status.share)
        if known is None or known[0] != beat:
            self._beats[status.share] = (beat, now, known is not None)
            known = self._beats[status.share]
        since_seen = now - known[1]
        if known[2]:
            return since_seen
        by_clocks = (datetime.datetime.now(datetime.timezone.utc) - status.updated).total_seconds()
        return max(by_clocks, since_seen, 0.0)

    def _without_status(self) -> OutputState:
        """From the files of a run that has none: one of an earlier version."""
        run_folder.begun(self._output)
        report = run_folder.read(self._output, "run.json")
        done = run_folder.is_finished(self._output) and report is not None
        counts: tuple[Count, ...] = ()
        if done and report is not None:
            written, failed = int(report.get("written", 0)), int(report.get("failed", 0))
            counts = (Count(name=IMAGES, total=written + failed, done=written + failed, failed=failed),)
        words = "done" if done else "begun by a version that keeps no status; python jobs/report.py shows what is there"
        return OutputState(
            output=self._output,
            state="done" if done else "ended early",
            words=words,
            shares=(),
            missing=0,
            facts=RunFacts(phase="done" if done else "", detail="", seconds=0.0, counts=counts),
        )


def _as_of_now(share: ShareState) -> RunFacts:
    """Nothing goes on in a run that has ended."""
    facts = share.status.facts
    return facts if share.state == "running" else facts.model_copy(update={"left": None, "pools": (), "detail": ""})


def _counted(shares: Sequence[ShareState], missing: int) -> str:
    """How many shares are in which state."""
    counts = [(sum(share.state == state for share in shares), str(state)) for state in _WORST_FIRST]
    counts.append((missing, "not begun"))
    told = ", ".join(f"{count} {state}" for count, state in counts if count)
    return f"{len(shares) + missing} shares: {told}"
