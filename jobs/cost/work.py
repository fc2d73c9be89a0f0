"""What a plan takes of one device, by stage: as an earlier run has measured it, else by the FLOPs of its models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

from jobs.cost.estimate import costs_of, total
from jobs.cost.price import Models, Rate, models_of, plan_flops
from jobs.cost.step_times import StepTimes
from manifests.config import RunConfig
from manifests.planning.plan import Plan
from workers.checkpoints.locations import FLOAT32
from workers.device.device import DeviceKind

#: What an actor with one CPU reaches in the decoder of the demo's size (`achieved` in `_run/run.json`).
CPU_TFLOPS = 0.04

#: How many feature maps of either width that MoVQ has at the image's size a call holds at once: 4.0 to 4.8 in calls of
#: 0.1 to 2.4 million pixels of the demo checkpoint (widths of 32 and 32), 3.5 to 3.8 with widths of 64 and 128.
MAPS = 4.5


@dataclass(frozen=True)
class DeviceTime:
    """What a whole plan asks of one device.

    Attributes:
        prior, decoder: seconds.
        source: where they are from.
        loading: stage -> seconds that a device takes to get its models, where that was measured.
        call_bytes: what a decoder on the CPU computes with in the largest call, beside its weights.
    """

    prior: float
    decoder: float
    source: str
    loading: Mapping[str, float] = field(default_factory=dict)
    call_bytes: int = 0

    @property
    def total(self) -> float:
        """Both stages."""
        return self.prior + self.decoder

    @property
    def prior_share(self) -> float:
        """The prior's part, from 0 to 1."""
        return self.prior / self.total if self.total else 0.0


def device_time(
    config: RunConfig, planned: Plan, kind: DeviceKind, known: tuple[str, StepTimes] | None
) -> DeviceTime | None:
    """What the plan takes.

    Args:
        kind: of the device.
        known: step times of an earlier run, and where they stand (`jobs.run.run_folder.known_times`).

    Returns:
        None where nothing says.
    """
    if not planned.buckets:
        return None
    read = partial(models_of, config.checkpoint, "inpaint" in planned.tasks)
    if known is not None and known[1].device == kind and known[1].buckets:
        source, times = known
        cost = total(costs_of(planned.buckets, times, config.call_limit), planned.buckets, times, source)
        # Only actors on CPUs share a memory, and the checkpoint's files may be far away.
        models = read() if kind == "cpu" else None
        held = _call_bytes(config, planned, models) if models is not None else 0
        return DeviceTime(3600 * cost.prior_hours, 3600 * cost.decoder_hours, source, times.loading, held)
    models = read()
    if models is None:
        return None
    work = plan_flops(planned.buckets, models, config.call_limit)
    # Which card it is, no actor has told yet. What counts is how the stages compare, and that it is not seconds.
    usual = Rate() if kind == "ascend" else Rate(None, CPU_TFLOPS, 1.0)
    seconds = usual.seconds(work.prior), usual.seconds(work.decoder)
    return DeviceTime(*seconds, "the FLOPs of its models", call_bytes=_call_bytes(config, planned, models))


def _call_bytes(config: RunConfig, planned: Plan, models: Models) -> int:
    most = config.call_limit.of
    pixels = max(
        min(most(bucket.height, bucket.width), tally.samples) * bucket.height * bucket.width
        for bucket, tally in planned.buckets.items()
    )
    # MoVQ's last block takes most: it works at the image's size, from the second of these widths to the first.
    widths: list[int] = models.movq["block_out_channels"]
    return int(MAPS * FLOAT32 * sum(widths[:2]) * pixels)
