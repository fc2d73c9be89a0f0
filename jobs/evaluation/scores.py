"""Mean and percentiles of the scores of an output, over all of it, by task and by bucket.

Memory holds four bytes for each score and image that is looked at.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from jobs.exporting.selection import Selection
from jobs.output.catalog import read_table
from jobs.output.sample import BUCKET_COLUMNS, BucketSample
from jobs.ranking.images import column_of
from manifests.scores import COLUMNS

PERCENTILES = (5, 25, 50, 75, 95)

#: What all images are called.
ALL = "all"

Values = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Line:
    """One score of some images.

    Attributes:
        of: ALL, a task, or a bucket in words.
        score: name of the column.
        images: that have it.
        mean, percentiles: of them; the latter for PERCENTILES.
    """

    of: str
    score: str
    images: int
    mean: float
    percentiles: tuple[float, ...]


def score_lines(output: str, chosen: Selection, names: Sequence[str]) -> list[Line]:
    """Lines for all images, each task and each bucket; a score that no image of them has gets none.

    Args:
        chosen: the images.
        names: of columns of numbers; none of them: all scores that there are.

    Raises:
        UsageError: an index has no such column, or no numbers in it.
        StorageError: an index cannot be read.
    """
    values: dict[tuple[str, str], list[Values]] = defaultdict(list)
    for shard in np.unique(chosen.shards).tolist():
        table = read_table(output, shard, np.sort(chosen.rows[chosen.shards == shard]).astype(np.int64))
        found = [column_of(table.schema, name) for name in names] or _scores(table.schema)
        kinds = table.select(list(BUCKET_COLUMNS)).to_pylist()
        buckets = np.array([BucketSample(tuple(kind.values())).name for kind in kinds], object)
        tasks = np.array([kind["task"] for kind in kinds], object)
        for name in found:
            column = table[name].cast(pa.float32()).to_numpy()
            values[ALL, name].append(column)
            for parts in (tasks, buckets):
                for part in dict.fromkeys(parts.tolist()):
                    values[part, name].append(column[parts == part])
    order = sorted(values, key=lambda place: (place[0] != ALL, place[0], place[1]))
    lines = (_line(of, name, np.concatenate(values[of, name])) for of, name in order)
    return [line for line in lines if line.images]


def _scores(schema: pa.Schema) -> list[str]:
    return [one.name for one in schema if one.name in COLUMNS and pa.types.is_floating(one.type)]


def _line(of: str, score: str, values: Values) -> Line:
    values = values[np.isfinite(values)].astype(np.float64)
    if not len(values):
        return Line(of, score, 0, np.nan, ())
    percentiles: Any = np.percentile(values, PERCENTILES).tolist()
    return Line(of, score, len(values), float(values.mean()), tuple(percentiles))
