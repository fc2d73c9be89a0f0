"""How the scores of an output lie: counted by task in fine bins, with the rows at both ends.

Indexes are added one at a time, so memory holds the counts and a few rows, however many images there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from manifests.scores import AESTHETIC, COLUMNS

#: Bins of a score, and the values between which they lie; what is beyond is counted in the first or the last.
BINS = 400
COSINE, LIKING = (-1.0, 1.0), (0.0, 10.0)

#: Rows that are kept at each end.
ENDS = 8

Row = dict[str, Any]


@dataclass
class Spread:
    """The values of one task: how many lie in each bin, and their mean."""

    bins: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    count: int = 0
    total: float = 0.0

    @property
    def mean(self) -> float:
        """Of all values, of which there is one at least."""
        return self.total / self.count


@dataclass
class Tally:
    """One score of an output.

    Attributes:
        column: its name in the index; `meaning`, what the index says of it.
        between: the values that the bins lie between.
        tasks: task -> how its values lie.
        best, worst: records with their `shard`, the furthest first.
    """

    column: str
    meaning: str
    between: tuple[float, float]
    tasks: dict[str, Spread] = field(default_factory=dict)
    best: list[Row] = field(default_factory=list)
    worst: list[Row] = field(default_factory=list)

    def add(self, shard: int, made: pa.Table) -> None:
        """Count a shard.

        Args:
            made: the records of its images.
        """
        made = made.filter(made[self.column].is_valid())
        if not made.num_rows:
            return
        tasks, values = np.array(made["task"].to_pylist(), object), made[self.column].to_numpy().astype(np.float64)
        low, high = self.between
        places = np.clip(((values - low) / (high - low) * BINS).astype(np.int64), 0, BINS - 1)
        for task in sorted(set(tasks)):
            spread, mine = self.tasks.setdefault(str(task), Spread()), tasks == task
            spread.bins += np.bincount(places[mine], minlength=BINS)
            spread.count += int(mine.sum())
            spread.total += float(values[mine].sum())
        self.best = self._furthest(self.best, shard, made, "descending")
        self.worst = self._furthest(self.worst, shard, made, "ascending")

    def _furthest(self, known: Sequence[Row], shard: int, made: pa.Table, order: str) -> list[Row]:
        chosen = pc.select_k_unstable(made, min(ENDS, made.num_rows), [(self.column, order), ("key", "ascending")])
        rows = [*known, *({**row, "shard": shard} for row in made.take(chosen).to_pylist())]
        sign = -1 if order == "descending" else 1
        return sorted(rows, key=lambda row: (sign * row[self.column], row["key"]))[:ENDS]


class Tallies:
    """The scores of an output, from the indexes of its shards."""

    def __init__(self) -> None:
        self._found: dict[str, Tally] = {}

    def add(self, shard: int, made: pa.Table) -> None:
        """Count the images of a shard; arguments as of `Tally.add`."""
        for column in made.schema:
            if column.name in COLUMNS and pa.types.is_floating(column.type):
                meaning = (column.metadata or {}).get(b"description", b"").decode()
                between = LIKING if column.name.startswith(AESTHETIC) else COSINE
                self._found.setdefault(column.name, Tally(column.name, meaning, between)).add(shard, made)

    def product(self) -> list[Tally]:
        """Those that some image has."""
        return [tally for tally in self._found.values() if tally.tasks]
