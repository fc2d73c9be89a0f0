"""What is known of a run at one moment, for whoever shows it: the terminal, the log, and `_run/status.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, Field

from manifests.commit import RowFailure

#: Names of counts that are no task: rows that failed validation, and images where nobody told tasks apart.
INVALID, IMAGES = "invalid", "images"

#: Failures that are kept to be shown.
NEWEST = 5


@dataclass(frozen=True)
class PoolState:
    """What the engine knows of one pool, told every second.

    Attributes:
        name: 'prior' or 'decoder'.
        size: most actors that it may have now.
        up: actors that have loaded their model and live.
        loading, compiling: actors that load their model, or compile a new shape.
        waiting: batches that wait for one of its actors.
        call_seconds: that its actors have spent on batches so far, all of them together.
        finished: it has done all its work, and gave its devices back.
    """

    name: str
    size: int
    up: int
    loading: int
    compiling: int
    waiting: int
    call_seconds: float
    finished: bool = False


@dataclass(frozen=True)
class EngineState:
    """What the engine tells every second.

    Attributes:
        pools: in the order of the pipeline.
        lost: processes that were lost, by cause.
        batches_again: batches that are made again because of it.
    """

    pools: Sequence[PoolState]
    lost: Mapping[str, int] = field(default_factory=dict)
    batches_again: int = 0


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Count(_Facts):
    """Images of one task.

    Attributes:
        name: the task, `INVALID` or `IMAGES`.
        total: planned.
        done: with an image or failed, those of earlier starts too.
        failed: of these, since this start.
    """

    name: str
    total: int
    done: int
    failed: int


class TimeLeft(_Facts):
    """Seconds until the last image: the likeliest, and the ends of its range."""

    likely: float
    low: float
    high: float


class PoolFacts(_Facts):
    """One pool, as `PoolState`.

    Attributes:
        in_calls: part of its actors' time that they spent in device calls lately; None while too little is known.
        tflops: of a device in its calls, TFLOP/s since the start; None where nobody knows.
    """

    name: str
    size: int
    up: int
    loading: int
    compiling: int
    waiting: int
    in_calls: float | None
    tflops: float | None = None
    finished: bool


class RunFacts(_Facts):
    """A run at one moment.

    Attributes:
        phase: what it does.
        detail: what else goes on in this phase, "" for nothing.
        seconds: since its start.
        counts: of each task; empty while nothing can be counted.
        rate: images per second lately; None while too little is known.
        overall_rate: the same since the first batch.
        left: None while too little is known.
        pools: in the order of the pipeline; empty before there are any.
        sealed, shards: of its shards, those that are committed, and all.
        failures: the newest ones, the newest first.
        lost: worker processes that were lost, by cause.
        batches_again: batches that were, or are to be, made again because of it.
    """

    phase: str
    detail: str
    seconds: float
    counts: tuple[Count, ...] = ()
    rate: float | None = None
    overall_rate: float | None = None
    left: TimeLeft | None = None
    pools: tuple[PoolFacts, ...] = ()
    sealed: int = 0
    shards: int = 0
    failures: tuple[RowFailure, ...] = ()
    lost: Mapping[str, int] = Field(default_factory=dict)
    batches_again: int = 0

    @property
    def total(self) -> int:
        """Images of all tasks."""
        return sum(count.total for count in self.counts)

    @property
    def done(self) -> int:
        """Images of all tasks that have ended."""
        return sum(count.done for count in self.counts)

    @property
    def failed(self) -> int:
        """Images of all tasks that have failed since this start."""
        return sum(count.failed for count in self.counts)


#: By name, how many images there are, and how many of them were there before.
Totals = Mapping[str, tuple[int, int]]
