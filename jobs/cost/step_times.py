"""How long a run's stages work on a batch, as the run measures it.

A run notes how long its stages worked on every batch (`Stopwatch`) and keeps the medians by bucket in
`_run/times.json` (`StepTimes`), with the course of its images.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict

from jobs.engine.pools import Pools
from manifests.batch import Bucket
from manifests.commit import Receipt

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
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    bucket: Bucket
    batches: int
    images: int
    size: int
    seconds: Mapping[str, float]
    bytes_per_image: float


class StepTimes(BaseModel):
    """Content of `_run/times.json`.

    Attributes:
        device: kind of device that the pools ran on.
        graph: whether it was with `--graph`.
        prior_actors, decoder_actors: most that ran at a time.
        course: (seconds since the start, images written, rows failed) of this start at some of its batches, ascending;
            the last one is at its last batch.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str
    graph: bool = False
    batch_size: int
    prior_actors: int
    decoder_actors: int
    buckets: tuple[BucketTimes, ...]
    course: tuple[tuple[float, int, int], ...] = ()


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

    def record(self, device: str, batch_size: int, pools: Pools, graph: bool = False) -> StepTimes:
        """The medians so far."""
        return StepTimes(
            device=device,
            graph=graph,
            batch_size=batch_size,
            prior_actors=max(1, pools.prior.most),
            decoder_actors=max(1, pools.decoder.most),
            course=tuple(dict.fromkeys([*self._course, self._last])) if self._course else (),
            buckets=tuple(
                BucketTimes(
                    bucket=bucket,
                    batches=measured.batches,
                    images=measured.images,
                    # Copies (--dedupe) make a batch longer than what the device is given.
                    size=min(measured.size, batch_size),
                    # Of two the lower: the first batch of a bucket carries what is done once.
                    seconds={
                        stage: round(statistics.median_low(times), 6) for stage, times in measured.seconds.items()
                    },
                    bytes_per_image=round(measured.bytes / measured.images, 1),
                )
                for bucket, measured in self._buckets.items()
                # What was only embedded yet is nothing that an image could be priced by.
                if DECODER in measured.seconds and measured.images
            ),
        )
