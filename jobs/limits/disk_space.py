"""Whether a disk will hold what a run has still to write: the plan's bytes against the free space of a local output.

A run whose own earlier batches say that it cannot fit is refused before it computes anything: it would fill the disk
for everybody. Any other estimate may be wrong by far, and a run that is refused by mistake loses the night that it
would have saved. So it is said in a line, and the run begins: a disk that is full after all ends it without a loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from pydantic import BaseModel, ConfigDict

from jobs.cost.estimate import costs_of
from jobs.cost.step_times import StepTimes
from manifests import storage
from manifests.config import ImageFormat, RunConfig
from manifests.errors import UsageError
from manifests.planning.plan import Plan

#: Bytes of a pixel of a photograph-like image in each format, at the default quality.
PIXEL_BYTES: dict[ImageFormat, float] = {"png": 1.5, "jpg": 0.5, "webp": 0.3}

#: Four numbers of four bytes for 8 x 8 pixels.
LATENT_BYTES = 0.25

#: Of an image's record, caption and row, with what a tar adds to each member.
RECORD_BYTES = 4096

#: A run is refused where the disk holds less than this part of the least that is measured: prompts differ.
SURE = 0.8


class DiskSpace(BaseModel):
    """Free space, and what the images that are left take.

    Attributes:
        free: bytes.
        images_left: of this job's share.
        needed: bytes of them, as the mean of the plan.
        least: bytes, where those that are left are the plan's smallest.
        source: what the sizes are from; `measured` where that is this very run.
    """

    model_config = ConfigDict(frozen=True)

    free: int
    images_left: int
    needed: int
    least: int
    source: str
    measured: bool

    @property
    def is_too_small(self) -> bool:
        """True where the run cannot fit, as far as anybody can know."""
        return self.measured and SURE * self.least > self.free

    @property
    def doubt(self) -> str | None:
        """What a person should know before the start; None where there seems to be room."""
        if self.needed <= self.free:
            return None
        return (
            f"{in_units(self.free)} are free on the disk of the output, and the {self.images_left:,} images that are "
            f"left take about {in_units(self.needed)} ({self.source})"
        )


def look(config: RunConfig, planned: Plan, images_left: int, times: tuple[str, StepTimes] | None) -> DiskSpace | None:
    """Compare the plan with the output's disk; None where there is nothing to compare.

    Args:
        images_left: of this job's share.
        times: where measured times and sizes come from, and these.
    """
    free = storage.free_bytes(config.output)
    if free is None or not images_left or config.stage == "prior":
        return None
    if times is not None and times[1].buckets:
        costs = costs_of(planned.buckets, times[1], config.call_limit)
        sizes = [(costs[bucket].bytes / count.samples, count.samples) for bucket, count in planned.buckets.items()]
        source = f"by the sizes of {times[0]}"
    else:
        pixel = PIXEL_BYTES[config.image_format] + LATENT_BYTES * config.dump_latents
        sizes = [
            (bucket.height * bucket.width * pixel + RECORD_BYTES, count.samples)
            for bucket, count in planned.buckets.items()
        ]
        source = f"a rule of thumb for {config.image_format}; nothing was measured yet"
    least, rest = 0.0, images_left
    for size, count in sorted(sizes):
        least += size * min(count, rest)
        rest -= min(count, rest)
    needed = sum(size * count for size, count in sizes) * images_left / planned.samples
    return DiskSpace(
        free=free,
        images_left=images_left,
        needed=round(needed),
        least=round(least),
        source=source,
        measured=times is not None and bool(times[1].buckets) and config.times_of is None,
    )


def refuse(found: DiskSpace | None) -> None:
    """Make sure that a run may begin.

    Raises:
        UsageError: the disk cannot hold what is left.
    """
    if found is not None and found.is_too_small:
        parts = math.ceil(found.least / max(SURE * found.free, 1))
        cure = f"make a part that fits (--shards 1/{parts})" if parts < 1000 else "use another --output"
        raise UsageError(f"{found.doubt}; free some space, or {cure}. Nothing is lost")


def check(
    config: RunConfig,
    planned: Plan,
    images_left: int,
    times: tuple[str, StepTimes] | None,
    notify: Callable[[str], None],
) -> None:
    """Tell before the start that a disk will not hold the output; arguments as of `look`.

    Args:
        notify: hears where that is likely and not sure.

    Raises:
        UsageError: the disk cannot hold what is left.
    """
    found = look(config, planned, images_left, times)
    refuse(found)
    if found is not None and found.doubt is not None:
        notify(f"{found.doubt}; if it is full, the run ends, and the same command goes on when there is room")


def in_units(count: float) -> str:
    """Bytes as a person reads them."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"
