"""What a run will cost: seconds per batch as a run has measured them, and what follows for the batches of a plan.

A run notes how long its stages worked on every batch (`Stopwatch`) and keeps the medians by bucket in
`_run/times.json` (`StepTimes`). A plan's buckets are looked up there. One that was not measured is scaled from the one
most like it, by the work that its steps are; that is an estimate of an estimate and is marked as such.
"""

from __future__ import annotations

import statistics
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict

from jobs.engine.pools import Pools
from manifests.batch import Bucket
from manifests.commit import Receipt
from manifests.planning.window_summary import BucketTally

#: The stages that hold a device.
PRIOR, DECODER = "prior", "decoder"

#: Batches of one bucket whose times are kept: the median needs no more, and the first may carry a compilation.
KEPT = 101


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
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str
    graph: bool = False
    batch_size: int
    prior_actors: int
    decoder_actors: int
    buckets: tuple[BucketTimes, ...]


@dataclass
class _Measured:
    batches: int = 0
    images: int = 0
    bytes: int = 0
    size: int = 0
    seconds: dict[str, deque[float]] = field(default_factory=lambda: defaultdict(lambda: deque(maxlen=KEPT)))


class Stopwatch:
    """Collects the times of batches as their receipts come in; memory grows with the buckets alone."""

    def __init__(self) -> None:
        self._buckets: dict[Bucket, _Measured] = defaultdict(_Measured)

    def add(self, receipt: Receipt) -> None:
        """Note a finished batch."""
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

    def record(self, device: str, batch_size: int, pools: Pools, graph: bool = False) -> StepTimes:
        """The medians so far."""
        return StepTimes(
            device=device,
            graph=graph,
            batch_size=batch_size,
            prior_actors=max(1, pools.prior.most),
            decoder_actors=max(1, pools.decoder.most),
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
            ),
        )


class BucketCost(BaseModel):
    """What one bucket of a plan will take.

    Attributes:
        measured: this very bucket was measured, at this batch size; else its times are scaled.
        prior_seconds, decoder_seconds: of a batch.
        device_hours: of all its batches, both stages.
        bytes: of its images and records.
    """

    model_config = ConfigDict(frozen=True)

    measured: bool
    prior_seconds: float
    decoder_seconds: float
    device_hours: float
    bytes: int


class Estimate(BaseModel):
    """What a plan will take.

    Attributes:
        source: where the times come from.
        device: kind of device they were measured on; prior_hours, decoder_hours: hours of one such device.
        hours: on pools of `prior_actors` and `decoder_actors`, as those that were measured.
        bytes: of all images and records.
        scaled_buckets: buckets whose times are not measured.
    """

    model_config = ConfigDict(frozen=True)

    source: str
    device: str
    prior_hours: float
    decoder_hours: float
    prior_actors: int
    decoder_actors: int
    hours: float
    bytes: int
    scaled_buckets: int


def cost_of(bucket: Bucket, planned: BucketTally, times: StepTimes, batch_size: int) -> BucketCost:
    """Times of one bucket; `times` has measured one at least."""
    like = _most_alike(bucket, times.buckets)
    # A batch of another size takes about so much more or less; what compiles fills all up
    # (workers/kandinsky/batch_shape.py).
    filled = times.device == "ascend" or times.graph
    size = batch_size / times.batch_size if filled else min(batch_size, planned.made) / like.size
    prior = like.seconds.get(PRIOR, 0.0) * size * _ratio(_prior_work, bucket, like.bucket)
    decoder = like.seconds[DECODER] * size * _ratio(_decoder_work, bucket, like.bucket)
    pixels = bucket.height * bucket.width / (like.bucket.height * like.bucket.width)
    return BucketCost(
        measured=like.bucket == bucket and size == 1,
        prior_seconds=prior,
        decoder_seconds=decoder,
        device_hours=planned.batches * (prior + decoder) / 3600,
        bytes=round(planned.samples * like.bytes_per_image * pixels),
    )


def costs_of(planned: Mapping[Bucket, BucketTally], times: StepTimes, batch_size: int) -> dict[Bucket, BucketCost]:
    """Times of all buckets of a plan; `times` has measured one at least."""
    return {bucket: cost_of(bucket, count, times, batch_size) for bucket, count in planned.items()}


def total(
    costs: Mapping[Bucket, BucketCost], planned: Mapping[Bucket, BucketTally], times: StepTimes, source: str
) -> Estimate:
    """The sum over all buckets of a plan."""
    prior = sum(planned[bucket].batches * cost.prior_seconds for bucket, cost in costs.items()) / 3600
    decoder = sum(planned[bucket].batches * cost.decoder_seconds for bucket, cost in costs.items()) / 3600
    return Estimate(
        source=source,
        device=times.device,
        prior_hours=prior,
        decoder_hours=decoder,
        prior_actors=times.prior_actors,
        decoder_actors=times.decoder_actors,
        # The two pools work side by side, so the slower one sets the pace.
        hours=max(prior / times.prior_actors, decoder / times.decoder_actors),
        bytes=sum(cost.bytes for cost in costs.values()),
        scaled_buckets=sum(not cost.measured for cost in costs.values()),
    )


def prior_share(planned: Mapping[Bucket, BucketTally], times: StepTimes, batch_size: int) -> float | None:
    """What part of the device time of a plan is the prior's; None where nothing says."""
    if not planned or not times.buckets:
        return None
    cost = total(costs_of(planned, times, batch_size), planned, times, "")
    seconds = cost.prior_hours + cost.decoder_hours
    return cost.prior_hours / seconds if seconds else None


def _most_alike(bucket: Bucket, measured: Iterable[BucketTimes]) -> BucketTimes:
    """The same bucket, else one of the same task with about as much work, else one with about as much work."""

    def distance(other: BucketTimes) -> tuple[bool, bool, float]:
        ratio = _ratio(_decoder_work, bucket, other.bucket)
        return other.bucket != bucket, other.bucket.task != bucket.task, max(ratio, 1 / ratio)

    return min(measured, key=distance)


def _decoder_work(bucket: Bucket) -> float:
    steps = int(bucket.steps * bucket.strength) if bucket.strength is not None else bucket.steps
    # Decoding the latents to pixels costs about what two steps do.
    return (steps + 2) * bucket.height * bucket.width


def _prior_work(bucket: Bucket) -> float:
    return bucket.prior_steps * (2 if bucket.has_negative else 1)


def _ratio(work: Callable[[Bucket], float], bucket: Bucket, other: Bucket) -> float:
    return work(bucket) / work(other)
