"""One number of rows for every call of a size, on a device that compiles anew for each number: tails are filled up."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import TypeVar

from manifests.batch import Bucket
from manifests.call_limit import CallLimit
from manifests.config import RunConfig
from workers.device.device import DeviceKind

Item = TypeVar("Item")


def full_calls(config: RunConfig, kind: DeviceKind) -> CallLimit | None:
    """What every call must have; None where any number of rows will do.

    The CPU runs operators that need no compiling, and there a filled tail would cost as much as a whole batch; but
    graphs are compiled there too.
    """
    return config.call_limit if kind == "ascend" or config.graph else None


def rows_of(calls: CallLimit | None, bucket: Bucket) -> int | None:
    """Rows of each call of a bucket, the prior's and the decoder's; None where any number will do.

    A batch goes through both as it is: it is what is staged, tried again and taken apart. Pixels mean nothing to the
    prior, and it could take more rows of a large size at a time; but it is a hundredth or two of such an image's work,
    and calls that are filled up to the rows of the smallest size would make several times that of it.
    """
    return None if calls is None else calls.of(bucket.height, bucket.width)


def filled(items: Iterable[Item], rows: int | None) -> list[Item]:
    """The items, and behind them copies of the last one until there are `rows`.

    A copy has nothing in common with the original: a generator must not be drawn from for two rows.
    """
    result = list(items)
    while rows is not None and len(result) < rows:
        result.append(copy.deepcopy(result[-1]))
    return result
