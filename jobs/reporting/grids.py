"""The images of a manifest that is a product as grids: the two factors that turn fastest are rows and columns."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jobs.output.catalog import read_rows
from jobs.output.product import Factor, Product

#: Columns and rows of a grid that are shown, and images of all grids.
COLUMNS, ROWS, CELLS = 8, 12, 144

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Grid:
    """One grid.

    Attributes:
        title: what all of its images have, by the other factors; "" where there are none.
        columns, rows: headers.
        cells: by row and column the record of an image or of a failed row; None where there is none yet.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[str]
    cells: Sequence[Sequence[Row | None]]


@dataclass(frozen=True)
class Grids:
    """The grids of an output.

    Attributes:
        factors: their names and how many values each has, the one that turns slowest first.
        across, down: names of the factors of columns and rows.
        grids: the first ones.
        count: of all grids.
    """

    factors: Sequence[tuple[str, int]]
    across: str
    down: str
    grids: Sequence[Grid]
    count: int

    @property
    def records(self) -> list[dict[str, Any]]:
        """Of all that is shown."""
        return [dict(one) for grid in self.grids for line in grid.cells for one in line if one is not None]

    @property
    def is_whole(self) -> bool:
        """True where nothing is left out."""
        shown = [self.count == len(self.grids), *((len(grid.rows), len(grid.columns)) for grid in self.grids[:1])]
        return shown == [True, (self.factors[-2][1], self.factors[-1][1])]


def lay_out(output: str, product: Product) -> Grids:
    """Lay the first images of a product out.

    Raises:
        StorageError: an index cannot be read.
    """
    *others, down, across = product.factors
    columns, rows = (range(min(len(one.values), most)) for one, most in ((across, COLUMNS), (down, ROWS)))
    if not others:
        rows = range(min(len(down.values), CELLS // len(columns)))
    most = max(1, CELLS // (len(columns) * len(rows)))
    places = list(itertools.islice(itertools.product(*(range(len(one.values)) for one in others)), most))
    wanted = [
        [[base + row * down.stride + column * across.stride for column in columns] for row in rows]
        for base in (sum(digit * one.stride for digit, one in zip(place, others, strict=True)) for place in places)
    ]
    records = _records(output, product, [row for grid in wanted for line in grid for row in line])
    grids = [
        Grid(
            title=", ".join(f"{one.name}: {_word(one, digit)}" for one, digit in zip(others, place, strict=True)),
            columns=[_word(across, column) for column in columns],
            rows=[_word(down, row) for row in rows],
            cells=[[records.get(row) for row in line] for line in grid],
        )
        for place, grid in zip(places, wanted, strict=True)
    ]
    count = int(np.prod([one.count for one in others], dtype=np.int64))
    return Grids([(one.name, one.count) for one in product.factors], across.name, down.name, grids, count)


def _word(factor: Factor, digit: int) -> str:
    value = factor.values[digit]
    return "–" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _records(output: str, product: Product, rows: Sequence[int]) -> dict[int, Row]:
    """The records of some rows of the manifest, as far as they are in a sealed shard."""
    by_shard: dict[int, dict[int, int]] = defaultdict(dict)
    for row in rows:
        if row in product.places:
            shard, position = product.places[row]
            by_shard[shard][position] = row
    return {
        by_shard[shard][position]: {**record, "shard": shard}
        for shard, positions in by_shard.items()
        for position, record in zip(
            sorted(positions), read_rows(output, shard, np.array(sorted(positions))), strict=True
        )
    }
