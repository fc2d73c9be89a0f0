"""Gathers the facts of a run on the driver, from whoever knows them; `facts` gives them as they are now.

Any thread may call it. Nothing here is worth waiting for: a call costs microseconds.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence

from jobs.monitoring.facts import IMAGES, INVALID, NEWEST, Count, EngineState, PoolFacts, PoolState, RunFacts, Totals
from jobs.monitoring.pace import Pace
from manifests.commit import Receipt, RowFailure


class CallShare:
    """The part of a pool's time that its actors spend in device calls, over the last minutes."""

    WINDOW_S = 300.0
    MIN_SECONDS = 10.0

    def __init__(self) -> None:
        #: When, the call seconds until then, and the seconds of all actors that were up until then.
        self._marks: deque[tuple[float, float, float]] = deque()

    def add(self, now: float, call_seconds: float, up: int) -> None:
        """Note what the engine says now."""
        if self._marks and call_seconds < self._marks[-1][1]:
            # Whoever counts them has begun anew, or a call that was under way has died.
            self._marks.clear()
        up_seconds = self._marks[-1][2] + up * (now - self._marks[-1][0]) if self._marks else 0.0
        self._marks.append((now, call_seconds, up_seconds))
        while len(self._marks) > 2 and now - self._marks[0][0] > self.WINDOW_S:
            self._marks.popleft()

    @property
    def share(self) -> float | None:
        """From 0 to 1; None while too little is known."""
        if not self._marks or self._marks[-1][0] - self._marks[0][0] < self.MIN_SECONDS:
            return None
        calls, up = (self._marks[-1][position] - self._marks[0][position] for position in (1, 2))
        return min(1.0, calls / up) if up > 0 else None


class Tracker:
    """The facts of a run so far.

    Args:
        clock: tells seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self._lock = threading.Lock()
        self._phase = self._detail = ""
        self._totals: Totals = {}
        self._done: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self._pace: Pace | None = None
        self._engine = EngineState(())
        self._shares: dict[str, CallShare] = {}
        self._sealed: set[int] = set()
        self._shards = 0
        self._tflops: dict[str, float] = {}
        self._failures: deque[RowFailure] = deque(maxlen=NEWEST)

    def phase(self, text: str) -> bool:
        """What begins now; True where that is new."""
        with self._lock:
            if text == self._phase:
                return False
            self._phase, self._detail = text, ""
            return True

    def engine(self, state: EngineState) -> None:
        """How the engine is, until it is said again."""
        now, pools = self._clock(), state.pools
        with self._lock:
            self._engine = state
            for pool in pools:
                self._shares.setdefault(pool.name, CallShare()).add(now, pool.call_seconds, pool.up)
            doings = (("loading", sum(p.loading for p in pools)), ("compiling", sum(p.compiling for p in pools)))
            self._detail = ", ".join(f"{count} {doing}" for doing, count in doings if count)

    def start(self, totals: Totals) -> None:
        """Begin to count images: of each task how many there are, and how many were there before."""
        with self._lock:
            self._totals = dict(totals)
            self._done = Counter({name: done for name, (_, done) in totals.items()})
            self._failed = Counter()
            self._pace = Pace(sum(total for total, _ in totals.values()), self._done.total(), self._clock)

    def add(self, written: int, failed: int, name: str = IMAGES) -> None:
        """Count images that just ended."""
        with self._lock:
            assert self._pace is not None, "start() comes before add()"
            name = name if name in self._totals else next(iter(self._totals), IMAGES)
            self._done[name] += written + failed
            self._failed[name] += failed
            self._pace.add(written + failed)

    def received(self, receipt: Receipt) -> None:
        """Count the images of a finished batch, and keep its failures."""
        name = INVALID if receipt.bucket is None else receipt.bucket.task
        self.add(receipt.successes, receipt.count - receipt.successes, name)
        if receipt.failures:
            with self._lock:
                self._failures.extend(receipt.failures)

    def achieved(self, tflops: Mapping[str, float]) -> None:
        """What a device of each pool has done per second of its calls, in TFLOP."""
        with self._lock:
            self._tflops = dict(tflops)

    def plan_shards(self, shards: int, sealed: Sequence[int] | frozenset[int]) -> None:
        """How many shards there are, and which of them are committed."""
        with self._lock:
            self._shards, self._sealed = shards, set(sealed)

    def sealed(self, shard: int) -> None:
        """A shard is committed."""
        with self._lock:
            self._sealed.add(shard)

    def finish(self) -> None:
        """All images are done; what was there before may have been an estimate."""
        with self._lock:
            self._done = Counter({name: total for name, (total, _) in self._totals.items()})
            if self._pace is not None:
                self._pace.done = self._pace.total

    def facts(self) -> RunFacts:
        """How things are."""
        with self._lock:
            pace = self._pace
            return RunFacts(
                phase=self._phase,
                detail=self._detail,
                seconds=self._clock() - self._began,
                counts=tuple(self._count(name, total) for name, (total, _) in self._totals.items()),
                rate=pace.rate if pace else None,
                overall_rate=pace.overall_rate if pace else None,
                left=pace.left if pace else None,
                pools=tuple(self._pool(pool) for pool in self._engine.pools),
                sealed=len(self._sealed),
                shards=self._shards,
                failures=tuple(reversed(self._failures)),
                lost=dict(self._engine.lost),
                batches_again=self._engine.batches_again,
            )

    def _count(self, name: str, total: int) -> Count:
        return Count(name=name, total=total, done=min(self._done[name], total), failed=self._failed[name])

    def _pool(self, pool: PoolState) -> PoolFacts:
        return PoolFacts(
            name=pool.name,
            size=pool.size,
            up=pool.up,
            loading=pool.loading,
            compiling=pool.compiling,
            waiting=pool.waiting,
            in_calls=None if pool.finished else self._shares[pool.name].share,
            tflops=self._tflops.get(pool.name),
            finished=pool.finished,
        )
