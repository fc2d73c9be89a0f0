"""How long a run's stages work on a batch, as the run measures it.

A run notes how long its stages worked on every batch (`Stopwatch`) and keeps the medians by bucket in
`_run/times.json` (`StepTimes`), with the course of its images.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from jobs.engine.pools import Pools
from manifests.batch import Bucket
from manifests.call_limit import CallLimit
from manifests.commit import Receipt
from workers.kandinsky.graph_choice import NOTHING, GraphChoice

#: The stages that hold a device.
PRIOR, DECODER = "prior", "decoder"

#: Batches of one bucket whose times are kept: the median needs no more, and the first may carry a compilation.
KEPT = 101

#: Batches at which the course of a run is kept, at most.
MARKS = 200


class BucketTimes(BaseModel):
    """What was measured of one bucket.

    Attributes:
        batches, images: how many were made; images are those that were written.
        size: samples of the largest batch that the device was given.
        seconds: stage -> median seconds of a batch of that size; smaller ones say nothing about full ones.
        bytes_per_image: of image file and record.
        graph: the decoder ran as graphs.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    bucket: Bucket
    batches: int
    images: int
    size: int
    seconds: Mapping[str, float]
    bytes_per_image: float
    graph: bool = False


class GraphTimes(BaseModel):
    """What one compilation took, and what the graph saves (workers/kandinsky/graph.py), in seconds.

    Attributes:
        part: of the models; shape: of the tensor that is worked on.
        compiling: once per shape and process; graph, operators: of a call in either way.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    part: str
    shape: tuple[int, ...]
    compiling: float
    graph: float
    operators: float

    @property
    def saved(self) -> float:
        """Of each call."""
        return self.operators - self.graph


class StepTimes(BaseModel):
    """Content of `_run/times.json`.

    Attributes:
        device: kind of device that the pools ran on.
        graph: whether it was all with graphs, in records of earlier versions; now the buckets say it.
        graphs: what was compiled.
        loading: stage -> median seconds that an actor took to import and to load all its models.
        prior_actors, decoder_actors: most that ran at a time.
        course: (seconds since the start, images written, rows failed) of this start at some of its batches, ascending;
            the last one is at its last batch.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str
    graph: bool = False
    batch_size: int
    batch_pixels: int | None = None
    prior_actors: int
    decoder_actors: int
    buckets: tuple[BucketTimes, ...]
    graphs: tuple[GraphTimes, ...] = ()
    loading: Mapping[str, float] = Field(default_factory=dict)
    course: tuple[tuple[float, int, int], ...] = ()

    def rows_of(self, bucket: Bucket) -> int:
        """Samples that a call of a bucket could have."""
        return CallLimit(self.batch_size, self.batch_pixels).of(bucket.height, bucket.width)


class Measured(NamedTuple):
    """What the actors of a run have told.

    Attributes:
        graphs: what ran as graphs.
        compilations, devices: as the attempts actor (workers/fault_tolerance/attempts.py) has them.
    """

    graphs: GraphChoice
    compilations: Sequence[Mapping[str, Any]] = ()
    devices: Sequence[Mapping[str, Any]] = ()


UNMEASURED = Measured(NOTHING)


def _loading(devices: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    found: defaultdict[str, list[float]] = defaultdict(list)
    for each in devices:
        if "loading_seconds" in each:
            found[each["stage"]].append(each["loading_seconds"])
    return {stage: statistics.median(seconds) for stage, seconds in found.items()}


def _graph_times(compilations: Iterable[Mapping[str, Any]]) -> tuple[GraphTimes, ...]:
    """The medians over all actors."""
    found: defaultdict[tuple[str, tuple[int, ...]], list[Mapping[str, Any]]] = defaultdict(list)
    for each in compilations:
        if each["graph_seconds"] is not None:
            found[each["part"], tuple(each["shape"])].append(each)
    return tuple(
        GraphTimes(
            part=part,
            shape=shape,
            compiling=statistics.median(each["seconds"] for each in same),
            graph=statistics.median(each["graph_seconds"] for each in same),
            operators=statistics.median(each["operator_seconds"] for each in same),
        )
        for (part, shape), same in found.items()
    )


@dataclass
class _Measured:
    batches: int = 0
    images: int = 0
    bytes: int = 0
    size: int = 0
    seconds: dict[str, deque[float]] = field(default_factory=lambda: defaultdict(lambda: deque(maxlen=KEPT)))


class Stopwatch:
    """Collects the times of batches as their receipts come in; memory grows with the buckets alone.

    Args:
        clock: seconds; its course begins now.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._buckets: dict[Bucket, _Measured] = defaultdict(_Measured)
        self._clock, self._began = clock, clock()
        self._course: list[tuple[float, int, int]] = []
        self._last = (0.0, 0, 0)
        self._every = self._batches = 0

    def add(self, receipt: Receipt) -> None:
        """Note a finished batch."""
        self._note_course(receipt)
        if receipt.bucket is None or DECODER not in receipt.seconds or not receipt.successes:
            return
        measured = self._buckets[receipt.bucket]
        measured.batches += 1
        measured.images += receipt.successes
        measured.bytes += receipt.bytes
        if receipt.count > measured.size:
            measured.size = receipt.count
            measured.seconds.clear()
        for stage, seconds in receipt.seconds.items() if receipt.count == measured.size else ():
            measured.seconds[stage].append(seconds)

    def add_prior(self, bucket: Bucket, rows: int, seconds: float) -> None:
        """Note a batch that the prior alone has worked on; the decoder's time comes with its receipt."""
        measured = self._buckets[bucket]
        if rows > measured.size:
            measured.size = rows
            measured.seconds.clear()
        if rows == measured.size:
            measured.seconds[PRIOR].append(seconds)

    def _note_course(self, receipt: Receipt) -> None:
        """Keep every batch, then every second one, every fourth …, so that there are never more than MARKS."""
        _, written, failed = self._last
        seconds = round(self._clock() - self._began, 1)
        self._last = (seconds, written + receipt.successes, failed + receipt.count - receipt.successes)
        if self._batches % 2**self._every == 0:
            self._course.append(self._last)
        self._batches += 1
        if len(self._course) == MARKS:
            del self._course[1::2]
            self._every += 1

    def record(
        self,
        device: str,
        limit: CallLimit,
        pools: Pools,
        by_actors: Measured = UNMEASURED,
    ) -> StepTimes:
        """The medians so far."""
        return StepTimes(
            device=device,
            batch_size=limit.rows,
            batch_pixels=limit.pixels,
            prior_actors=max(1, pools.prior.most),
            decoder_actors=max(1, pools.decoder.most),
            course=tuple(dict.fromkeys([*self._course, self._last])) if self._course else (),
            buckets=tuple(
                BucketTimes(
                    bucket=bucket,
                    batches=measured.batches,
                    images=measured.images,
                    # Copies (--dedupe) make a batch longer than what the device is given.
                    size=min(measured.size, limit.of(bucket.height, bucket.width)),
                    # Of two the lower: the first batch of a bucket carries what is done once.
                    seconds={
                        stage: round(statistics.median_low(times), 6) for stage, times in measured.seconds.items()
                    },
                    bytes_per_image=round(measured.bytes / measured.images, 1),
                    graph=by_actors.graphs.decodes(bucket),
                )
                for bucket, measured in self._buckets.items()
                # What was only embedded yet is nothing that an image could be priced by.
                if DECODER in measured.seconds and measured.images
            ),
            graphs=_graph_times(by_actors.compilations),
            loading=_loading(by_actors.devices),
        )
