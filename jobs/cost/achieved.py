"""What a run's devices have done per second of their calls: TFLOP/s by stage, and the share of their chip's peak."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from functools import lru_cache

from pydantic import BaseModel, ConfigDict

from jobs.cost.price import CHIPS, Flops, Models
from jobs.cost.step_times import DECODER, PRIOR
from manifests.batch import Bucket
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
    """

    def __init__(self, models: Models | None) -> None:
        self._flops: defaultdict[str, float] = defaultdict(float)
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._image = None if models is None else lru_cache(models.image)

    def add(self, receipt: Receipt, batch_size: int) -> None:
        """Count a finished batch; copies (`--dedupe`), which make it longer than `batch_size`, cost nothing."""
        if receipt.bucket is None or not receipt.successes:
            return
        self._count(receipt.bucket, PRIOR, receipt.embedded, receipt.seconds)
        self._count(receipt.bucket, DECODER, min(receipt.count, batch_size), receipt.seconds)

    def add_prior(self, bucket: Bucket, rows: int, seconds: float) -> None:
        """Count rows that the prior has embedded in a phase of its own."""
        self._count(bucket, PRIOR, rows, {PRIOR: seconds})

    def _count(self, bucket: Bucket, stage: str, rows: int, seconds: Mapping[str, float]) -> None:
        if self._image is not None and rows and seconds.get(stage):
            work: Flops = self._image(bucket)
            self._flops[stage] += rows * (work.prior if stage == PRIOR else work.decoder)
            self._seconds[stage] += seconds[stage]

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
