"""How fast images come, and how long the rest will take: arithmetic over finished batches, and nothing else."""

from __future__ import annotations

import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Sequence

from jobs.monitoring.facts import TimeLeft

#: When a batch ended, and how many images there were then.
Mark = tuple[float, int]


class Pace:
    """Images done over the last while, from which rate and time left follow.

    The first finished images carry the start of the pools in their time, so the measure begins with them and
    says nothing until a few more have come. Images of an earlier run count as done, never towards the rate.
    """

    #: What `rate` looks back: a minute or two, but some batches where they take long.
    LATELY_S = 120.0
    LATELY_STEPS = 8
    #: What `left` looks back: old enough to smooth over buckets of different cost, young enough to follow a pool.
    WINDOW_S = 600.0
    MIN_STEPS = 3
    MIN_SECONDS = 3.0
    #: The window is cut into so many pieces; how much they differ is how wide the range of the time left is.
    PIECES = 8

    def __init__(self, total: int, done: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self.total = total
        self.done = done
        self._clock = clock
        self._first: Mark | None = None
        self._marks: deque[Mark] = deque()

    def add(self, images: int) -> None:
        """Count images that just ended, one way or the other."""
        now = self._clock()
        self.done = min(self.done + images, self.total)
        self._marks.append((now, self.done))
        self._first = self._first or self._marks[0]
        while len(self._marks) > self.LATELY_STEPS + 1 and now - self._marks[1][0] > self.WINDOW_S:
            self._marks.popleft()

    @property
    def rate(self) -> float | None:
        """Images per second lately, or None while too little is known."""
        if not self._known:
            return None
        marks, last = list(self._marks), self._marks[-1]
        lately = [mark for mark in marks if last[0] - mark[0] <= self.LATELY_S]
        return _rate((lately if len(lately) > self.LATELY_STEPS else marks[-self.LATELY_STEPS - 1 :])[0], last)

    @property
    def overall_rate(self) -> float | None:
        """Images per second since the first batch, or None while too little is known."""
        return _rate(self._first, self._marks[-1]) if self._first is not None and self._known else None

    @property
    def left(self) -> TimeLeft | None:
        """Until the last image, or None while too little is known; counts down between two batches.

        The likeliest is by the rate of the last ten minutes. The range holds what follows from the rate lately and from
        that since the first batch, and twice the standard error of the seconds per image.
        """
        if not self._known or self.done >= self.total:
            return None
        marks = list(self._marks)
        rates = (_rate(marks[0], marks[-1]), self.rate, self.overall_rate)
        per_image = [1 / rate for rate in rates if rate]
        if not per_image:
            return None
        error = 2 * self._standard_error(marks)
        likely = per_image[0]
        idle = self._clock() - marks[-1][0]

        def seconds(each: float) -> float:
            # A batch that takes long must not count the rest down to nothing: what is left stays left.
            whole = (self.total - self.done) * each
            return max(whole - idle, whole / 2)

        low = min(*per_image, max(likely - error, likely / 2))
        return TimeLeft(likely=seconds(likely), low=seconds(low), high=seconds(max(*per_image, likely + error)))

    @property
    def _known(self) -> bool:
        return len(self._marks) > self.MIN_STEPS and self._marks[-1][0] - self._marks[0][0] >= self.MIN_SECONDS

    def _standard_error(self, marks: Sequence[Mark]) -> float:
        """Of the seconds per image, from how they differ between pieces of the window with as many batches each."""
        pieces = min(self.PIECES, len(marks) - 1)
        ends = [marks[round(piece * (len(marks) - 1) / pieces)] for piece in range(pieces + 1)]
        rates = [_rate(*pair) for pair in itertools.pairwise(ends)]
        per_image = [1 / rate for rate in rates if rate]
        mean = sum(per_image) / max(1, len(per_image))
        squares = sum((each - mean) ** 2 for each in per_image)
        return math.sqrt(squares / max(1, len(per_image) - 1) / max(1, len(per_image)))


def _rate(first: Mark, last: Mark) -> float | None:
    """Images per second between two marks; None where they were made at the same moment."""
    return (last[1] - first[1]) / (last[0] - first[0]) if last[0] > first[0] else None


def duration(seconds: float) -> str:
    """Seconds as a person reads them: 8s, 4m 05s, 3h 20m."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
