"""Which images of an output an export has, and in which order.

`--where` is an expression of SQL, which DuckDB reads and evaluates (infra/adr/0019-export.md). It sees one index at a
time, of that the columns whose names are in the text, and no file. What stays in memory are eight bytes for each row
that is taken.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.output.catalog import open_index
from manifests.commit import ShardStats
from manifests.errors import SUCCESS, UsageError, first_line
from manifests.rankings import HINT, RANKINGS

#: Of the rows in an index, for the engine; no manifest's column has such a name by accident.
_POSITION = "__position_in_the_index"

Numbers = npt.NDArray[np.int32]
Filter = Callable[[pa.Table], npt.NDArray[np.int64]]


@dataclass(frozen=True)
class Choice:
    """What a person asks for.

    Attributes:
        where: an expression that is true for rows to take; None takes all.
        limit: images at most, the first ones in the order of the export; None for all.
        shuffle: seed of a random order; None keeps the output's.
    """

    where: str | None = None
    limit: int | None = None
    shuffle: int | None = None


@dataclass(frozen=True)
class Selection:
    """Rows with an image, in the order of the export.

    Attributes:
        shards, rows: of each, which index and which row of it, both from 0.
        without_image: rows that were asked for and have no image.
    """

    shards: Numbers
    rows: Numbers
    without_image: int

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, first: int, last: int) -> Selection:
        """The images from one place to before another."""
        return Selection(self.shards[first:last], self.rows[first:last], 0)

    def digest(self) -> str:
        """A hash that another choice, order or expression by chance would change."""
        return hashlib.sha256(self.shards.tobytes() + self.rows.tobytes()).hexdigest()


def select(output: str, stats: Sequence[ShardStats], choice: Choice) -> Selection:
    """Read the indexes, and choose.

    Args:
        stats: of the sealed shards.

    Raises:
        UsageError: the expression cannot be evaluated, or takes no image.
        StorageError: an index cannot be read.
    """
    shards: list[Numbers] = []
    rows: list[Numbers] = []
    found = without_image = 0
    filtered = None if choice.where is None else _Where(choice.where)
    for one in stats:
        with open_index(output, one.shard) as file:
            taken, failed = _taken(file, filtered)
        shards.append(np.full(len(taken), one.shard, np.int32))
        rows.append(taken)
        found, without_image = found + len(taken), without_image + failed
        if choice.shuffle is None and choice.limit is not None and found >= choice.limit:
            break
    if not found:
        raise UsageError(_nothing(output, stats, choice, without_image))
    order = np.random.default_rng(choice.shuffle).permutation(found) if choice.shuffle is not None else np.arange(found)
    order = order[: choice.limit]
    return Selection(np.concatenate(shards)[order], np.concatenate(rows)[order], without_image)


def _taken(file: pq.ParquetFile, where: _Where | None) -> tuple[Numbers, int]:
    """Rows of an index that have an image and are asked for, ascending, and how many were asked for without one."""
    names = ["status"] if where is None else where.columns(file.schema_arrow)
    table = file.read(columns=names)
    wanted = np.arange(table.num_rows) if where is None else where.rows(table)
    has_image = pc.equal(table["status"], SUCCESS).to_numpy()[wanted]
    return wanted[has_image].astype(np.int32), int((~has_image).sum()) if where is not None else 0


class _Where:
    """An expression of SQL over the rows of a table.

    Raises:
        UsageError: DuckDB is not installed.
    """

    def __init__(self, text: str) -> None:
        try:
            import duckdb
        except ImportError as error:
            raise UsageError(
                "option --where: needs DuckDB, which is not installed here: pip install '.[export]'"
            ) from error
        self._text, self._error, self._names = text, duckdb.Error, list[str]()
        self._connection: Any = duckdb.connect(config={"threads": 1})
        # An expression is about the rows it is given: no files, no network, no variables of this program.
        for setting in ("enable_external_access = false", "python_enable_replacements = false"):
            self._connection.execute(f"SET {setting}")
        self._connection.execute("SET lock_configuration = true")

    def columns(self, schema: pa.Schema) -> list[str]:
        """Those whose names are in the text, whatever else they mean there; and `status`."""
        self._names, text = schema.names, self._text.lower()
        return [name for name in schema.names if name == "status" or name.lower() in text]

    def rows(self, table: pa.Table) -> npt.NDArray[np.int64]:
        """Positions of the rows that it is true for, ascending."""
        places = table.append_column(_POSITION, pa.array(np.arange(table.num_rows), pa.int64()))
        try:
            found = self._connection.from_arrow(places).filter(self._text).project(_POSITION).fetchnumpy()
        except self._error as error:
            raise UsageError(f"option --where: {self._in_words(error)}") from error
        return np.sort(np.asarray(found[_POSITION], np.int64))

    def _in_words(self, error: Exception) -> str:
        unknown = re.search(r'Referenced column "(.+?)" not found', str(error))
        if unknown is None:
            return f"{self._text!r} is no condition that can be asked of a row ({first_line(error)})"
        if unknown[1] in RANKINGS:
            return f"an index has no column {unknown[1]!r}; {HINT}"
        near = difflib.get_close_matches(unknown[1], self._names, n=1, cutoff=0.5)
        if f'"{unknown[1]}"' in self._text:
            hint = f"if it is meant as text, write '{unknown[1]}'"
        else:
            hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(self._names)}"
        return f"the index has no column {unknown[1]!r}; {hint}"


def _nothing(output: str, stats: Sequence[ShardStats], choice: Choice, without_image: int) -> str:
    images = sum(one.successes for one in stats)
    if not images:
        return f"{output} has no image yet; start again when some shards are committed"
    failed = f" but {without_image:,} that failed" if without_image else ""
    return f"option --where: {choice.where!r} takes none of the {images:,} images{failed}; nothing was exported"
