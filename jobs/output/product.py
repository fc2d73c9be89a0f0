"""Whether the rows of a manifest are a product, such as prompts x styles x seeds, told from the rows themselves.

In the rows of a product every factor is like a digit of the row's number: its value stays for a stride of rows, and
comes again after a period. So the factors are found from the one that turns fastest: the first column whose value
comes again every n rows, then one that stays for n rows, and so on, up to one whose values never come again. No name
decides anything, and a program of one's own that made the rows is as good as `make_manifest.py --product`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from manifests import storage
from manifests.commit import index_name
from manifests.errors import REJECTED
from manifests.records import RECORD_NAMES
from manifests.requests.schema import SETTINGS

#: Rows from the manifest's beginning that are looked at; those behind them go on as these do.
LOOKED = 20_000

#: Columns of the index that may be a factor; of those that only travel, texts and numbers may be one.
FACTORS = ("prompt", "negative_prompt", "seed", *SETTINGS, "image_path", "mask_path")

#: Columns that no manifest has.
_SHARD, _POSITION = "\0shard", "\0position"

Codes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Factor:
    """One factor of a product.

    Attributes:
        name: its column.
        values: in their order, at most those of the rows that were looked at.
        count: of its values in the whole manifest.
        stride: rows for which a value stays.
    """

    name: str
    values: Sequence[Any]
    count: int
    stride: int


@dataclass(frozen=True)
class Product:
    """A manifest that is a product.

    Attributes:
        factors: the one that turns slowest first; two or more.
        places: by row of the manifest, shard and position in its index of the first image that was made of it.
    """

    factors: Sequence[Factor]
    places: Mapping[int, tuple[int, int]]


class ProductFinder:
    """Collects the first rows of a manifest from the indexes of its output.

    Args:
        output: its location.
        requests: rows of the whole manifest, valid or not.
    """

    def __init__(self, output: str, requests: int) -> None:
        self._output = output
        self._requests = requests
        self._tables: list[pa.Table] = []

    def add(self, shard: int, records: pa.Table) -> None:
        """Keep what a shard has of the first rows.

        Args:
            records: RECORD_FIELDS of its index.
        """
        is_first = pc.and_(
            pc.and_(pc.less(records["manifest_row"], LOOKED), pc.equal(records["image_index"], 0)),
            # What was refused has lost its values, and says nothing for or against.
            pc.not_equal(records["status"], REJECTED),
        )
        positions = np.flatnonzero(is_first.to_numpy())
        if not len(positions):
            return
        table = records.select(["manifest_row", *FACTORS]).take(pa.array(positions))
        for name, column in self._travelling(shard):
            table = table.append_column(name, column.take(pa.array(positions)))
        table = table.append_column(_SHARD, pa.repeat(shard, len(positions)))
        self._tables.append(table.append_column(_POSITION, pa.array(positions)))

    def _travelling(self, shard: int) -> Iterator[tuple[str, pa.ChunkedArray]]:
        """The columns that the manifest has beside its requests', as far as they are plain values."""
        with storage.open_arrow(storage.join(self._output, index_name(shard))) as source:
            file = pq.ParquetFile(source)
            names = [
                one.name
                for one in file.schema_arrow
                if one.name not in RECORD_NAMES
                and any(test(one.type) for test in (pa.types.is_string, pa.types.is_integer, pa.types.is_floating))
            ]
            table = file.read(columns=names) if names else None
        if table is not None:
            yield from zip(names, table.columns, strict=True)

    def product(self) -> Product | None:
        """What they are a product of; None where they are none."""
        if not self._tables:
            return None
        table = pa.concat_tables(self._tables, promote_options="default")
        table = table.take(pc.sort_indices(table, [("manifest_row", "ascending")]))
        rows: Codes = table["manifest_row"].to_numpy()
        columns = [name for name in table.column_names if name not in ("manifest_row", _SHARD, _POSITION)]
        codes = {name: pd.factorize(table[name].to_pandas(), use_na_sentinel=False)[0] for name in columns}
        digits = _digits(codes, rows, self._requests)
        if digits is None:
            return None
        places = zip(table[_SHARD].to_pylist(), table[_POSITION].to_pylist(), strict=True)
        factors = [
            Factor(name, _values(table[name], rows // stride % count), count, stride) for name, count, stride in digits
        ]
        return Product(factors[::-1], dict(zip(rows.tolist(), places, strict=True)))


def _digits(codes: Mapping[str, Codes], rows: Codes, requests: int) -> list[tuple[str, int, int]] | None:
    """Name, count and stride of the factors, the one that turns fastest first; None where rows are no product."""
    left = {name: code for name, code in codes.items() if code.any()}
    found: list[tuple[str, int, int]] = []
    stride = 1
    while True:
        last = None
        for name, code in left.items():
            blocks, values = _blocks(code, rows, stride)
            if values is None:
                continue
            period = _period(blocks, values)
            if period is None:
                last = last or name
            elif _turns(blocks, values, period) and requests % (stride * period) == 0:
                found.append((name, period, stride))
                break
        else:
            # Only the slowest one's values never come again, and there is no other one behind it.
            if last is None or not found or requests % stride:
                return None
            return [*found, (last, requests // stride, stride)]
        del left[found[-1][0]]
        stride *= found[-1][1]


def _blocks(code: Codes, rows: Codes, stride: int) -> tuple[Codes, Codes | None]:
    """Numbers of the blocks of `stride` rows, and the one value of each; None where one has several values."""
    blocks, first = np.unique(rows // stride, return_index=True)
    values = code[first]
    sizes = np.diff(np.append(first, len(rows)))
    return blocks, values if np.array_equal(np.repeat(values, sizes), code) else None


def _period(blocks: Codes, values: Codes) -> int | None:
    """Blocks until a value comes again, at the least; None where none does."""
    order = np.lexsort((blocks, values))
    again = values[order][1:] == values[order][:-1]
    gaps = np.diff(blocks[order])[again]
    return int(gaps.min()) if len(gaps) else None


def _turns(blocks: Codes, values: Codes, period: int) -> bool:
    """True where a block's place in its period decides its value, each place another one."""
    if period < 2:
        return False
    pairs = len(np.unique(np.stack([blocks % period, values]), axis=1).T)
    return pairs == len(np.unique(values)) == len(np.unique(blocks % period)) == period


def _values(column: pa.ChunkedArray, digits: Codes) -> list[Any]:
    """The values in the order of their digits, as far as they are known."""
    known, first = np.unique(digits, return_index=True)
    values = dict(zip(known.tolist(), column.take(pa.array(first)).to_pylist(), strict=True))
    return [values.get(digit) for digit in range(max(values) + 1)]
