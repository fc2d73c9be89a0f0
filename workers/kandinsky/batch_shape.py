"""One number of rows for every call of a size, where it is compiled for that number: tails are filled up."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from manifests.batch import Bucket
from manifests.call_limit import CallLimit
from manifests.config import RunConfig
from workers.device.device import DeviceKind
from workers.kandinsky.graph_choice import NOTHING, GraphChoice

Item = TypeVar("Item")


@dataclass(frozen=True)
class FullCalls:
    """Rows that calls must have; None where any number will do.

    The CPU runs operators that need no compiling, and there a filled tail would cost as much as a whole batch; but
    graphs are compiled there too.

    A batch goes through prior and decoder as it is: it is what is staged, tried again and taken apart. Pixels mean
    nothing to the prior, and it could take more rows of a large size at a time; but it is a hundredth or two of such an
    image's work, and calls that are filled up to the rows of the smallest size would make several times that of it.

    Attributes:
        limit: of a call.
        always: the device compiles each operator for its shape.
        graphs: what is compiled as graphs.
    """

    limit: CallLimit
    always: bool = False
    graphs: GraphChoice = NOTHING

    @classmethod
    def of(cls, config: RunConfig, kind: DeviceKind, graphs: GraphChoice) -> FullCalls:
        """Those of a run."""
        return cls(config.call_limit, kind == "ascend", graphs)

    def prior(self, bucket: Bucket) -> int | None:
        """Of the prior's calls."""
        return self.limit.of(bucket.height, bucket.width) if self.always or self.graphs.prior else None

    def decoder(self, bucket: Bucket) -> int | None:
        """Of the decoder's calls."""
        return self.limit.of(bucket.height, bucket.width) if self.always or self.graphs.decodes(bucket) else None

    @property
    def clip(self) -> int | None:
        """Of calls of CLIP, which sees images of one size and is never a graph."""
        return self.limit.rows if self.always else None


def filled(items: Iterable[Item], rows: int | None) -> list[Item]:
    """The items, and behind them copies of the last one until there are `rows`.

    A copy has nothing in common with the original: a generator must not be drawn from for two rows.
    """
    result = list(items)
    while rows is not None and len(result) < rows:
        result.append(copy.deepcopy(result[-1]))
    return result
