"""What a plan will cost: seconds per batch as an earlier run has measured them, and what follows for its batches.

A plan's buckets are looked up in the measured `StepTimes`. One that was not measured is scaled from the one most
like it, by the work that its steps are; that is an estimate of an estimate and is marked as such.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from pydantic import BaseModel, ConfigDict

from jobs.cost.step_times import DECODER, PRIOR, BucketTimes, StepTimes
from manifests.batch import Bucket
from manifests.call_limit import CallLimit
from manifests.planning.window_summary import BucketTally


class BucketCost(BaseModel):
    """What one bucket of a plan will take.

    Attributes:
        measured: this very bucket was measured, in calls of this size; else its times are scaled.
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


def cost_of(bucket: Bucket, planned: BucketTally, times: StepTimes, limit: CallLimit) -> BucketCost:
    """Times of one bucket; `times` has measured one at least."""
    like = _most_alike(bucket, times.buckets)
    # A batch of another size takes about so much more or less; what compiles fills all up
    # (workers/kandinsky/batch_shape.py).
    filled = times.device == "ascend" or times.graph or like.graph
    rows = limit.of(bucket.height, bucket.width)
    size = rows / times.rows_of(like.bucket) if filled else min(rows, planned.made) / like.size
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


def costs_of(planned: Mapping[Bucket, BucketTally], times: StepTimes, limit: CallLimit) -> dict[Bucket, BucketCost]:
    """Times of all buckets of a plan; `times` has measured one at least."""
    return {bucket: cost_of(bucket, count, times, limit) for bucket, count in planned.items()}


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
