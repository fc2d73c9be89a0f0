"""What a plan will take by measured times, where its calls have other rows than those that were measured."""

from __future__ import annotations

import pytest

from jobs.cost.estimate import cost_of
from jobs.cost.step_times import BucketTimes, StepTimes
from manifests.batch import Bucket
from manifests.call_limit import CallLimit
from manifests.planning.window_summary import BucketTally
from workers.fault_tolerance.guard import PROBE_BUCKET

PIXELS = 4 * 1024 * 1024
PLANNED = BucketTally(samples=64, batches=4, made=64)


def bucket(side: int) -> Bucket:
    return PROBE_BUCKET.model_copy(update={"height": side, "width": side, "steps": 50, "strength": None})


def measured(device: str, side: int, limit: CallLimit) -> StepTimes:
    times = BucketTimes(
        bucket=bucket(side),
        batches=3,
        images=48,
        size=limit.of(side, side),
        seconds={"prior": 1.0, "decoder": 20.0},
        bytes_per_image=1000.0,
    )
    given = {"batch_size": limit.rows, "batch_pixels": limit.pixels}
    return StepTimes(device=device, prior_actors=1, decoder_actors=1, buckets=(times,), **given)


@pytest.mark.parametrize("device", ["cpu", "ascend"])
def test_a_call_of_as_many_pixels_takes_the_decoder_as_long_and_the_prior_by_its_rows(device: str) -> None:
    limit = CallLimit(16, PIXELS)
    cost = cost_of(bucket(1024), PLANNED, measured(device, 512, limit), limit)
    assert (cost.decoder_seconds, cost.prior_seconds, cost.measured) == (20.0, 0.25, False)


@pytest.mark.parametrize("device", ["cpu", "ascend"])
def test_calls_that_were_larger_are_another_measurement(device: str) -> None:
    before = measured(device, 1024, CallLimit(16))
    cost = cost_of(bucket(1024), PLANNED, before, CallLimit(16, PIXELS))
    assert (cost.decoder_seconds, cost.prior_seconds, cost.measured) == (5.0, 0.25, False)
    assert cost_of(bucket(1024), PLANNED, before, CallLimit(16)).measured


def test_times_of_a_version_without_pixels_can_be_read() -> None:
    record = measured("cpu", 512, CallLimit(16)).model_dump()
    del record["batch_pixels"]
    assert StepTimes.model_validate(record).rows_of(bucket(1024)) == 16
