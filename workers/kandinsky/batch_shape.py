"""One number of rows for every call of a device that compiles anew for each number: tails are filled up."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import TypeVar

from manifests.config import RunConfig
from workers.device.device import DeviceKind

Item = TypeVar("Item")


def rows_per_call(config: RunConfig, kind: DeviceKind) -> int | None:
    """Rows that every call must have; None where any number will do.

    The CPU runs operators that need no compiling, and there a filled tail would cost as much as a whole batch; but
    graphs are compiled there too.
    """
    return config.batch_size if kind == "ascend" or config.graph else None


def filled(items: Iterable[Item], rows: int | None) -> list[Item]:
    """The items, and behind them copies of the last one until there are `rows`.

    A copy has nothing in common with the original: a generator must not be drawn from for two rows.
    """
    result = list(items)
    while rows is not None and len(result) < rows:
        result.append(copy.deepcopy(result[-1]))
    return result
