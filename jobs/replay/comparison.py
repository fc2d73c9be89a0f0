"""Whether an image that was made again is the stored one, and what may be why it is not."""

from __future__ import annotations

import platform
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from manifests.config import RunConfig
from workers.device import device
from workers.device.device import DeviceKind
from workers.stages.pixels import decode, to_rgb


@dataclass(frozen=True)
class Comparison:
    """Two images of one size, value by value.

    Attributes:
        values: of each, height * width * 3.
        different: values that differ.
        largest: the largest difference, in levels of 0 to 255.
    """

    values: int
    different: int
    largest: int

    @property
    def in_words(self) -> str:
        """For a person."""
        if not self.different:
            return "identical: its pixels are those of the stored image"
        share = f"{self.different:,} of {self.values:,} values differ"
        if self.largest == 1:
            return f"within one level: {share}, none by more than 1 of 255"
        return f"not identical: {share}, the worst by {self.largest} of 255"


def compare(stored: bytes, made: bytes) -> Comparison:
    """Compare two image files of the same format; of one that loses something, what is left of both is compared."""
    one, other = (np.asarray(to_rgb(decode(data))).astype(np.int16) for data in (stored, made))
    if one.shape != other.shape:
        return Comparison(one.size, one.size, 255)
    apart = np.abs(one - other)
    return Comparison(one.size, int((apart > 0).sum()), int(apart.max(initial=0)))


def reasons(report: Mapping[str, Any], config: RunConfig, kind: DeviceKind, rows: tuple[int, int]) -> list[str]:
    """What is not as it was in the run, and may have changed pixels: only what really differs.

    Args:
        report: `_run/run.json`, which tells of the last start that made something.
        config: of the run.
        kind: what the image was made on now.
        rows: of the device's call, in the run and now; equal where calls are filled up.
    """
    if not report.get("versions"):
        unknown = "the run has left no record of its devices and versions, so nothing can be held against them"
        return [unknown, *_rows(*rows)]
    return [*_devices(report, config, kind), *_rows(*rows), *_versions(report["versions"])] or [
        "device, versions and batch are those of the run's last start; an earlier start may have made it, or an input "
        "has changed"
    ]


def _devices(report: Mapping[str, Any], config: RunConfig, kind: DeviceKind) -> Iterator[str]:
    was = report.get("device")
    devices = report.get("devices", ())
    if was and was != kind:
        dtypes = [device.number_type(one) for one in (was, kind)]
        yield f"another device: it was made on {was} in {dtypes[0]}, now on {kind} in {dtypes[1]}"
    elif was:
        yield from _other("machine", {one["host"] for one in devices}, socket.gethostname())
        chips = {one["chip"] for one in devices if one.get("chip")}
        yield from _other("chip", chips, str(device.report()["chip"]) if chips else "")
    if kind == "ascend" and not config.deterministic:
        yield "Ascend's kernels may give other bits in every run, as it was made without --deterministic"


def _rows(then: int, now: int) -> Iterator[str]:
    if then != now:
        yield f"another batch: the run made {then} images in one call, and now it is {now}"


def _other(what: str, then: set[str], now: str) -> Iterator[str]:
    if then and now not in then:
        yield f"another {what}: it was made on {' or '.join(sorted(then))}, now on {now}"


def _versions(then: Mapping[str, str]) -> Iterator[str]:
    for package, number in then.items():
        now = _version(package)
        if now != number:
            yield f"another version of {package}: it was {number}, now it is {now or 'not installed'}"


def _version(package: str) -> str | None:
    if package == "python":
        return platform.python_version()
    try:
        return version(package)
    except PackageNotFoundError:
        return None
