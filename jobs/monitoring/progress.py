"""What a person sees while a run is under way, on a terminal or in a log; both go to stderr and count images.

On a terminal this is one display that renews itself; in a log a plain line every ten seconds, and every minute some
more with all that is known.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.live import Live

from jobs.monitoring.display import Screen
from jobs.monitoring.facts import IMAGES, EngineState, Totals
from jobs.monitoring.lines import brief, details
from jobs.monitoring.pace import duration
from jobs.monitoring.status_file import StatusFile
from jobs.monitoring.tracker import Tracker
from jobs.terminal import lasting
from manifests.commit import Receipt

LOG_EVERY_S = 10.0

#: Of the lines in a log, every so many come with everything else that is known.
DETAILS_EVERY = 6

#: Seldom enough that the driver does not feel it.
REFRESH_PER_S = 1.0


class RunProgress:
    """The run's display; a context manager.

    Call `phase` for what happens before the first image, `start` when the number of images is known, `received` or
    `add` for every finished batch.

    Args:
        stream: where to; stderr if None.
        clock: tells seconds.
    """

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = Console(file=stream or _own_stderr())
        self._tracker = Tracker(clock)
        self._clock = clock
        self._began = clock()
        self._counts = False
        self._status: StatusFile | None = None
        self._live: Live | None = None
        self._ended = threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> RunProgress:
        if self._console.is_terminal:
            self._live = Live(
                console=self._console,
                get_renderable=lambda: Screen(self._tracker.facts()),
                refresh_per_second=REFRESH_PER_S,
                vertical_overflow="crop",
            )
            self._live.start()
        else:
            self._ticker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._live is not None:
            self._tracker.phase("done" if error is None else "ended early")
            # What has counted nothing leaves nothing behind.
            self._live.transient = not self._counts
            self._live.stop()
            return
        self._ticker.join()
        if self._counts:
            self._say(brief(self._tracker.facts()))

    def phase(self, text: str) -> None:
        """Say what begins now."""
        if self._tracker.phase(text) and self._live is None:
            self._say(text)

    def engine(self, state: EngineState) -> None:
        """How the engine is, until it is said again."""
        self._tracker.engine(state)

    def note(self, text: str) -> None:
        """A line that stays."""
        self._say(text)

    def start(self, total: int, done: int = 0) -> None:
        """Begin to count images; `done` of them were there before this run."""
        self.start_tasks({IMAGES: (total, done)})

    def start_tasks(self, totals: Totals) -> None:
        """Begin to count images by task: how many there are of each, and how many were there before this run."""
        self._tracker.start(totals)
        self._counts = True
        total, done = (sum(each[position] for each in totals.values()) for position in (0, 1))
        if 0 < done < total:
            self._say(f"going on from {done} of {total} images")

    def add(self, written: int, failed: int) -> None:
        """Count some images."""
        self._tracker.add(written, failed)

    def received(self, receipt: Receipt) -> None:
        """Count the images of a finished batch."""
        self._tracker.received(receipt)

    def achieved(self, tflops: Mapping[str, float]) -> None:
        """What a device of each pool has done per second of its calls, in TFLOP."""
        self._tracker.achieved(tflops)

    def plan_shards(self, shards: int, sealed: frozenset[int]) -> None:
        """How many shards there are, and which of them were committed before."""
        self._tracker.plan_shards(shards, sealed)

    def sealed(self, shard: int) -> None:
        """A shard is committed."""
        self._tracker.sealed(shard)

    def status_file(self, output: str, share: tuple[int, int], check: Callable[[], None]) -> StatusFile:
        """A context that shows others the same, from `publish` on.

        Args:
            check: raises where the output is another job's by now.
        """
        self._status = StatusFile(output, share, self._tracker.facts, self.note, check)
        return self._status

    def publish(self) -> None:
        """There is work to do: others see it from now on, if there is a status file."""
        if self._status is not None:
            self._status.begin()

    def finish(self) -> None:
        """All images are done; what was there before may have been an estimate."""
        self._tracker.finish()

    def _tick(self) -> None:
        """Lines of a log, which show life while nothing finishes."""
        lines = 0
        while not self._ended.wait(LOG_EVERY_S):
            facts = self._tracker.facts()
            self._say(brief(facts))
            lines += 1
            if lines % DETAILS_EVERY == 0:
                for line in details(facts):
                    self._say(f"  {line}")

    def _say(self, text: str) -> None:
        """One line; in a log each says how long the run has been going."""
        if self._live is not None:
            self._console.print(text, highlight=False, markup=False)
        else:
            line = f"[{duration(self._clock() - self._began)}] {text}"
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)


def _own_stderr() -> TextIO:
    """Stderr under a number of its own, so the display goes on while a library's output is held back."""
    try:
        return lasting(os.dup(sys.stderr.fileno()), sys.stderr.encoding, closefd=True)
    except (
        OSError,
        ValueError,
        AttributeError,
    ):  # replaced by something without a file, as in a test or notebook
        return sys.stderr
