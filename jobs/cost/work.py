"""What a plan takes of one device, by stage: as an earlier run has measured it, else by the FLOPs of its models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from jobs.cost.estimate import costs_of, total
from jobs.cost.price import Rate, models_of, plan_flops
from jobs.cost.step_times import StepTimes
from manifests.config import RunConfig
from manifests.planning.plan import Plan
from workers.device.device import DeviceKind

#: What an actor with one CPU reaches in the decoder of the demo's size (`achieved` in `_run/run.json`).
CPU_TFLOPS = 0.04


@dataclass(frozen=True)
class DeviceTime:
    """Seconds of one device for a whole plan.

    Attributes:
        source: where that is from.
        loading: stage -> seconds that a device takes to get its models, where that was measured.
    """

    prior: float
    decoder: float
    source: str
    loading: Mapping[str, float] = field(default_factory=dict)

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
    if known is not None and known[1].device == kind and known[1].buckets:
        source, times = known
        cost = total(costs_of(planned.buckets, times, config.call_limit), planned.buckets, times, source)
        return DeviceTime(3600 * cost.prior_hours, 3600 * cost.decoder_hours, source, times.loading)
    models = models_of(config.checkpoint, "inpaint" in planned.tasks)
    if models is None:
        return None
    work = plan_flops(planned.buckets, models, config.call_limit)
    # Which card it is, no actor has told yet. What counts is how the stages compare, and that it is not seconds.
    usual = Rate() if kind == "ascend" else Rate(None, CPU_TFLOPS, 1.0)
    return DeviceTime(usual.seconds(work.prior), usual.seconds(work.decoder), "the FLOPs of its models")
