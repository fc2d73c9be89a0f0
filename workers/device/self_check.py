"""A way of computing that exists on some devices only is tried on the device itself, against the plain way.

An option `auto|plain|OTHER` decides so, where its module makes a `Trial` of each small case that stands for the work.
The other way is taken where it runs and agrees; what was decided, and by how much the two differ, belongs to the run's
record of the device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from manifests.errors import DeviceError, UsageError

Array = np.ndarray[Any, Any]

PLAIN: Literal["plain"] = "plain"


@dataclass(frozen=True)
class Trial:
    """One small case, in both ways.

    Attributes:
        switch: name of the option without its dashes.
        other: the option's value for the way that is not the plain one.
        of: what the case stands for, in words.
        plainly, otherwise: compute it in the two ways; arrays of one shape, compared along their last axis.
        tolerance: largest `difference` at which the two agree.
    """

    switch: str
    other: str
    of: str
    plainly: Callable[[], Array]
    otherwise: Callable[[], Array]
    tolerance: float


@dataclass(frozen=True)
class Decision:
    """What a switch came to, for the run's record.

    Attributes:
        switch, of: as of `Trial`.
        chosen: the way that is taken.
        fell_back: the other way was tried and is not taken.
        difference: of the two ways; None where they were not compared.
        tolerance: that it was held against; None where nothing was tried.
        why: the reason for the plain way, in words; None for the other one.
    """

    switch: str
    of: str
    chosen: str
    fell_back: bool = False
    difference: float | None = None
    tolerance: float | None = None
    why: str | None = None


def decide(trial: Trial, wanted: str) -> Decision:
    """Try the other way.

    Args:
        wanted: "auto" falls back to the plain way; `trial.other` does not.

    Raises:
        UsageError: the other way is wanted, and fails or differs.
        DeviceError: the device cannot do the plain way any more after it has failed at the other one.
    """
    difference, why = _tried(trial)
    if why is None:
        return Decision(trial.switch, trial.of, trial.other, difference=difference, tolerance=trial.tolerance)
    if wanted == trial.other:
        raise UsageError(
            f"--{trial.switch} {trial.other} fails its check on this device, for {trial.of}: {why}; pass "
            f"--{trial.switch} auto or --{trial.switch} {PLAIN}"
        )
    return Decision(trial.switch, trial.of, PLAIN, True, difference, trial.tolerance, why)


def _tried(trial: Trial) -> tuple[float | None, str | None]:
    """How far the ways are apart, and why the other one must not be taken."""
    plain = trial.plainly()
    try:
        other = trial.otherwise()
    except Exception as error:  # whatever a library raises where it lacks an operator
        why = f"it does not run ({type(error).__name__}: {(str(error).strip().splitlines() or ['no message'])[0]})"
        _check_alive(trial, why)
        return None, why
    if other.shape != plain.shape:
        return None, f"its result has the shape {other.shape}, not {plain.shape}"
    apart = difference(plain, other)
    if apart <= trial.tolerance:  # never true of NaN
        return apart, None
    if not np.isfinite(apart):
        return None, "its result is not finite"
    return apart, f"its result differs by {apart:.2g}, more than {trial.tolerance:g}"


def _check_alive(trial: Trial, why: str) -> None:
    """An operator that fails while it runs may leave a device that fails at everything that comes after."""
    try:
        trial.plainly()
    except Exception as error:
        raise DeviceError(
            f"the device cannot be used any more after --{trial.switch} {trial.other} was tried for {trial.of}: {why}; "
            f"pass --{trial.switch} {PLAIN}"
        ) from error


def difference(plain: Array, other: Array) -> float:
    """The worst relative distance (L2) of two arrays, along their last axis; NaN where one is not finite."""
    one, two = plain.astype(np.float64), other.astype(np.float64)
    if not (np.isfinite(one).all() and np.isfinite(two).all()):
        return float("nan")
    size = np.linalg.norm(one, axis=-1)
    apart = np.linalg.norm(one - two, axis=-1)
    return float((apart / np.maximum(size, np.finfo(np.float32).tiny)).max(initial=0.0))
