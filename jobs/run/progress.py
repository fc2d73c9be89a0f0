"""What a person sees while a run is under way: phases, images done, rate, failures and the time left.

On a terminal this is one bar; in a log file it is a plain line every ten seconds. Both go to stderr and both
count images. `Pace` holds the arithmetic and knows neither.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn

from jobs.terminal import lasting

LOG_EVERY_S = 10.0


class Pace:
    """Images done over the last while, from which rate and time left follow.

    The first finished images carry the start of the pools in their time, so the measure begins with them and
    says nothing until a few more have come. Images of an earlier run count as done, never towards the rate.
    """

    #: Old enough to smooth over buckets of different cost, young enough to follow a pool that grows.
    WINDOW_S = 300.0
    MIN_STEPS = 3
    MIN_SECONDS = 3.0

    def __init__(self, total: int, done: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self.total = total
        self.done = done
        self.failed = 0
        self._clock = clock
        self._marks: deque[tuple[float, int]] = deque()

    def add(self, written: int, failed: int) -> None:
        """Count images that just ended, one way or the other."""
        now = self._clock()
        self.done = min(self.done + written + failed, self.total)
        self.failed += failed
        self._marks.append((now, self.done))
        while len(self._marks) > self.MIN_STEPS + 1 and now - self._marks[1][0] > self.WINDOW_S:
            self._marks.popleft()

    @property
    def rate(self) -> float | None:
        """Images per second, or None while too little is known."""
        if len(self._marks) <= self.MIN_STEPS:
            return None
        (first, before), (last, after) = self._marks[0], self._marks[-1]
        if last - first < self.MIN_SECONDS:
            return None
        return (after - before) / (last - first)

    @property
    def seconds_left(self) -> float | None:
        """Until the last image, or None while too little is known; counts down between two batches."""
        rate = self.rate
        if rate is None or rate <= 0 or self.done >= self.total:
            return None
        left = (self.total - self.done) / rate
        # A batch that takes long must not count the rest down to nothing: what is left stays left.
        return max(left - (self._clock() - self._marks[-1][0]), left / 2)

    def describe(self) -> str:
        """Rate, failures and time left in words, whatever of them is known."""
        words = []
        if self.rate is not None:
            words.append(f"{self.rate:.2f} images/s" if self.rate < 10 else f"{self.rate:.0f} images/s")
        if self.failed:
            words.append(f"{self.failed} failed")
        if self.seconds_left is not None:
            words.append(f"{duration(self.seconds_left)} left")
        return ", ".join(words)


class RunProgress:
    """The run's display; a context manager.

    Call `phase` for what happens before the first image, `start` when the number of images is known, `add`
    for every finished batch.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._console = Console(file=stream or _own_stderr())
        self._pace: Pace | None = None
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._began = time.monotonic()
        self._phase = ""
        self._detail = ""
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> RunProgress:
        if self._console.is_terminal:
            self._bar = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[pace]}"),
                console=self._console,
            )
            # Without a total the bar pulses, which is life while nothing can be counted yet.
            self._task = self._bar.add_task(self._phase, total=None, pace="")
            self._bar.start()
        self._ticker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._ticker.join()
        self._show(log=self._pace is not None)
        if self._bar is not None:
            self._bar.stop()

    def phase(self, text: str) -> None:
        """Say what begins now."""
        with self._lock:
            if text == self._phase:
                return
            self._phase, self._detail = text, ""
        if self._bar is not None:
            self._show(log=False)
        else:
            self._say(text)

    def detail(self, text: str) -> None:
        """What else goes on in this phase, until it is said again; "" for nothing."""
        with self._lock:
            self._detail = text

    def note(self, text: str) -> None:
        """A line that stays."""
        self._say(text)

    def start(self, total: int, done: int) -> None:
        """Begin to count images; `done` of them were there before this run."""
        self._pace = Pace(total, done)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, total=total, completed=done)
        if done:
            self._say(f"going on from {done} of {total} images")

    def add(self, written: int, failed: int) -> None:
        """Count the images of one finished batch."""
        assert self._pace is not None, "start() comes before add()"
        with self._lock:
            self._pace.add(written, failed)
        self._show(log=False)

    def finish(self) -> None:
        """All images are done; what was there before may have been an estimate."""
        if self._pace is not None:
            with self._lock:
                self._pace.done = self._pace.total

    def _tick(self) -> None:
        """Show life while nothing finishes: a second's step on a terminal, a line now and then in a log."""
        while not self._ended.wait(1.0 if self._bar is not None else LOG_EVERY_S):
            self._show(log=True)

    def _show(self, log: bool) -> None:
        with self._lock:
            pace, phase = self._pace, f"{self._phase} ({self._detail})" if self._detail else self._phase
            words = "" if pace is None else pace.describe()
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=phase)
            if pace is not None:
                self._bar.update(self._task, completed=pace.done, pace=words)
        elif log:
            count = "" if pace is None else f" {pace.done}/{pace.total} images"
            self._say(f"{phase}{count}{', ' + words if words else ''}")

    def _say(self, text: str) -> None:
        """One line; in a log each says how long the run has been going."""
        if self._bar is not None:
            self._console.print(text, highlight=False, markup=False)
        else:
            line = f"[{duration(time.monotonic() - self._began)}] {text}"
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)


def _own_stderr() -> TextIO:
    """Stderr under a number of its own, so the bar goes on while a library's output is held back."""
    try:
        return lasting(os.dup(sys.stderr.fileno()), sys.stderr.encoding, closefd=True)
    except (
        OSError,
        ValueError,
        AttributeError,
    ):  # replaced by something without a file, as in a test or notebook
        return sys.stderr


def duration(seconds: float) -> str:
    """Seconds as a person reads them: 8s, 4m 05s, 3h 20m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
