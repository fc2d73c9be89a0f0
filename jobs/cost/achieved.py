"""What a run's devices have done per second of their calls: TFLOP/s by stage, and the share of their chip's peak."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache

from pydantic import BaseModel, ConfigDict

from jobs.cost.price import CHIPS, Flops, Models
from jobs.cost.step_times import DECODER, PRIOR
from manifests.batch import Bucket
from manifests.call_limit import CallLimit
from manifests.commit import Receipt


class StageRate(BaseModel):
    """Of one stage.

    Attributes:
        tflop: that its images take; padding is not counted.
        seconds: in calls, of all its actors.
        tflops: the one by the other: per second and device.
        of_peak: of the chip's peak (jobs/cost/price.py); None where that is not known, or the chips differ.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tflop: float
    seconds: float
    tflops: float
    of_peak: float | None


class Achieved:
    """Adds up what came.

    Args:
        models: the checkpoint's configs; None where they cannot be read, and then nothing is known.
        hear: hears of the TFLOP of a stage that were added.
    """

    def __init__(self, models: Models | None, hear: Callable[[str, float], None] = lambda stage, tflop: None) -> None:
        self._hear = hear
        self._flops: defaultdict[str, float] = defaultdict(float)
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._image = None if models is None else lru_cache(models.image)

    def add(self, receipt: Receipt, limit: CallLimit) -> None:
        """Count a finished batch; copies (`--dedupe`), which make it longer than the limit, cost nothing."""
        if receipt.bucket is None or not receipt.successes:
            return
        self._count(receipt.bucket, PRIOR, receipt.embedded, receipt.seconds)
        rows = min(receipt.count, limit.of(receipt.bucket.height, receipt.bucket.width))
        self._count(receipt.bucket, DECODER, rows, receipt.seconds)

    def add_prior(self, bucket: Bucket, rows: int, seconds: float) -> None:
        """Count rows that the prior has embedded in a phase of its own."""
        self._count(bucket, PRIOR, rows, {PRIOR: seconds})

    def _count(self, bucket: Bucket, stage: str, rows: int, seconds: Mapping[str, float]) -> None:
        if self._image is not None and rows and seconds.get(stage):
            work: Flops = self._image(bucket)
            flops = rows * (work.prior if stage == PRIOR else work.decoder)
            self._flops[stage] += flops
            self._seconds[stage] += seconds[stage]
            self._hear(stage, flops / 1e12)

    @property
    def tflops(self) -> dict[str, float]:
        """By stage, what a device has done per second of its calls so far."""
        return {stage: self._flops[stage] / 1e12 / seconds for stage, seconds in self._seconds.items()}

    def rates(self, chips: Collection[str | None]) -> dict[str, StageRate]:
        """By stage.

        Args:
            chips: names of those that the devices have.
        """
        names = set(chips)
        chip = CHIPS.get(names.pop() or "") if len(names) == 1 else None
        found = {}
        for stage, seconds in self._seconds.items():
            tflop = self._flops[stage] / 1e12
            of_peak = None if chip is None else round(tflop / seconds / chip.peak, 4)
            found[stage] = StageRate(
                tflop=round(tflop, 6), seconds=round(seconds, 3), tflops=round(tflop / seconds, 6), of_peak=of_peak
            )
        return found
