"""What a plan takes of one device, by stage: as an earlier run has measured it."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.cost.estimate import costs_of, total
from jobs.cost.step_times import StepTimes
from manifests.planning.plan import Plan


@dataclass(frozen=True)
class DeviceTime:
    """Seconds of one device for a whole plan.

    Attributes:
        source: where that is from.
    """

    prior: float
    decoder: float
    source: str

    @property
    def total(self) -> float:
        """Both stages."""
        return self.prior + self.decoder

    @property
    def prior_share(self) -> float:
        """The prior's part, from 0 to 1."""
        return self.prior / self.total if self.total else 0.0


def device_time(planned: Plan, batch_size: int, kind: str, known: tuple[str, StepTimes] | None) -> DeviceTime | None:
    """What the plan takes.

    Args:
        kind: of the device.
        known: step times of an earlier run, and where they stand (`jobs.run.run_folder.known_times`).

    Returns:
        None where nothing says.
    """
    if known is None or known[1].device != kind or not planned.buckets or not known[1].buckets:
        return None
    cost = total(costs_of(planned.buckets, known[1], batch_size), planned.buckets, known[1], known[0])
    return DeviceTime(3600 * cost.prior_hours, 3600 * cost.decoder_hours, known[0])
