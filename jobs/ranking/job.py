"""Rank the images of a finished output: read what is compared, find groups and places, seal shards with the columns.

All of it is found anew by every start, and only shards whose columns are not so yet are sealed: the same command goes
on where an earlier one was ended.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from jobs.leases.lease import Lease
from jobs.output.catalog import open_index
from jobs.ranking import hashes, vectors
from jobs.ranking.groups import Groups, places_within
from jobs.ranking.images import Images, KeptVectors, read_images
from jobs.ranking.rules import Rules
from jobs.run import run_folder
from manifests import storage
from manifests.config import RunConfig
from manifests.errors import UsageError
from manifests.rankings import (
    DUPLICATE_GROUP,
    DUPLICATE_RANK,
    RANK_IN_REQUEST,
    RANKINGS,
    RULES_FILE,
    fields_at,
    read_rules,
)
from workers.stages.reseal import finish_reseals, reseal_rows, sealed_rows

Flags = npt.NDArray[np.bool_]

#: Column -> its values by row of the output, and which of them there are; groups as the row of their smallest key.
Found = Mapping[str, tuple[npt.NDArray[Any], Flags]]


@dataclass(frozen=True)
class Ranked:
    """What came of it.

    Attributes:
        shards: that this start has sealed anew; `before` had these columns.
        images: of the output; `groups` of near duplicates with two of them or more, with `duplicates` in all, the ones
            to keep not counted; `not_compared` lack a hash or an embedding.
    """

    shards: int
    before: int
    images: int
    groups: int
    duplicates: int
    not_compared: int


def rank(config: RunConfig, rules: Rules, tell: Callable[[str], None]) -> Ranked:
    """Add the columns that rules ask for to the shards of a share.

    Args:
        config: `output` and `shards` are used.

    Raises:
        UsageError: there is no finished run, a column or an embedding is missing, or what compares them is.
        StorageError: something cannot be read or written; the same command goes on.
    """
    _, planned = run_folder.begun(config.output)
    if not run_folder.is_finished(config.output):
        raise UsageError(f"{config.output} is not finished; start the job again until it is, and then rank its images")
    if not planned["shards"]:
        raise UsageError(f"{config.output} has no rows to rank")
    index, count = config.share
    numbers = range(index, int(planned["shards"]), count)
    with Lease(config.output, config.share, tell) as lease, storage.fenced(lease.fence.check):
        finish_reseals(config.output, numbers)
        _refuse_others(config.output, rules)
        scores = {name for name in (rules.best_by, rules.best_of_request) if name is not None}
        images = read_images(config.output, int(planned["shards"]), rules.bits is not None, scores)
        found = _ranked(images, rules, config.output, tell)
        _keep_rules(config.output, rules)
        sealed = 0
        for number in numbers:
            lease.fence.check()
            sealed += _seal(number, images, found, config)
            tell(f"{number // count + 1:,} of {len(numbers):,} shards")
    return _summary(images, found, sealed, len(numbers) - sealed)


def _ranked(images: Images, rules: Rules, output: str, tell: Callable[[str], None]) -> Found:
    found: dict[str, tuple[npt.NDArray[Any], Flags]] = {}
    if rules.compares:
        tell(f"comparing {int(images.made.sum()):,} images")
        groups, compared = _grouped(images, rules, output)
        best = images.scores[rules.best_by] if rules.best_by is not None else np.full(len(groups), np.nan)
        found[DUPLICATE_GROUP] = groups, compared
        found[DUPLICATE_RANK] = _places(groups, best, compared), compared
    if rules.best_of_request is not None:
        scores = images.scores[rules.best_of_request]
        there = images.made & ~np.isnan(scores)
        found[RANK_IN_REQUEST] = _places(images.requests, scores, there), there
    return found


def _grouped(images: Images, rules: Rules, output: str) -> tuple[npt.NDArray[np.int64], Flags]:
    """Of each row the smallest one that it belongs with, and which rows could be compared."""
    groups, compared = Groups(len(images.made)), np.zeros(len(images.made), bool)
    if rules.bits is not None:
        rows = np.flatnonzero(images.made & images.hashed)
        compared[rows] = True
        # Equal ones once: a thousand empty pictures are a thousand pairs then, and not half a million.
        different, first, which = np.unique(images.hashes[rows], return_index=True, return_inverse=True)
        groups.join(rows, rows[first][which])
        for one, other in hashes.near_pairs(different, rules.bits):
            groups.join(rows[first[one]], rows[first[other]])
    if rules.cosine is not None:
        kept = KeptVectors(output, images)
        compared[kept.rows] = True
        for one, other in vectors.near_pairs(kept.pieces, len(kept.rows), kept.width, rules.cosine):
            groups.join(kept.rows[one], kept.rows[other])
    return groups.smallest(), compared


def _places(groups: npt.NDArray[np.int64], scores: npt.NDArray[np.float64], there: Flags) -> npt.NDArray[np.int32]:
    places = np.zeros(len(groups), np.int32)
    places[there] = places_within(groups[there], scores[there])
    return places


def _seal(shard: int, images: Images, found: Found, config: RunConfig) -> int:
    """Seal a shard with its columns; 0 where it has them as they are."""
    rows = images.rows(shard)
    columns = {name: _column(name, values[rows], there[rows], images) for name, (values, there) in found.items()}
    with open_index(config.output, shard) as file:
        names = file.schema_arrow.names
        before = file.read(columns=[name for name in columns if name in names])
    if set(before.column_names) == set(columns) and all(
        before[name].equals(pa.chunked_array([column])) for name, column in columns.items()
    ):
        return 0
    reseal_rows(shard, _with(shard, names, columns, config), config.output, config)
    return 1


def _column(name: str, values: npt.NDArray[Any], there: Flags, images: Images) -> pa.Array:
    if name != DUPLICATE_GROUP:
        return pa.array(values, RANKINGS[name].type, mask=~there)
    return images.keys.take(pa.array(values, mask=~there)).combine_chunks()


def _with(shard: int, names: list[str], columns: Mapping[str, pa.Array], config: RunConfig) -> Iterator[pa.Table]:
    """The rows of a shard with columns behind all others of the index, in their order."""
    first = 0
    for rows in sealed_rows(shard, config.output, config):
        records = rows.select([name for name in names if name not in RANKINGS])
        for name, field in RANKINGS.items():
            if name in columns:
                records = records.append_column(field, columns[name].slice(first, rows.num_rows))
            elif name in names:
                records = records.append_column(field, rows[name])
        for content in rows.schema:
            if content.name not in names:
                records = records.append_column(content, rows[content.name])
        first += rows.num_rows
        yield records


def _refuse_others(output: str, rules: Rules) -> None:
    """Columns of the manifest that have these names are somebody's data."""
    known = {field.name for field in fields_at(output)}
    with open_index(output, 0) as file:
        taken = [name for name in rules.columns if name in file.schema_arrow.names and name not in known]
    if taken:
        raise UsageError(
            f"the manifest has a column {taken[0]!r}, which is also what this would be called; make the output of a "
            "manifest where it has another name"
        )


def _keep_rules(output: str, rules: Rules) -> None:
    """Before the first shard: a start that is killed leaves some with and some without."""
    known = read_rules(output)
    names = [name for name in RANKINGS if name in (*known.get("columns", ()), *rules.columns)]
    data = json.dumps({**known, **rules.told(), "columns": names}, indent=2).encode() + b"\n"
    storage.write_atomic(storage.join(output, RULES_FILE), data)


def _summary(images: Images, found: Found, sealed: int, before: int) -> Ranked:
    groups = duplicates = not_compared = 0
    if DUPLICATE_GROUP in found:
        values, there = found[DUPLICATE_GROUP]
        sizes = np.unique(values[there], return_counts=True)[1]
        groups, duplicates = int((sizes > 1).sum()), int((sizes - 1).sum())
        not_compared = int((images.made & ~there).sum())
    return Ranked(sealed, before, int(images.made.sum()), groups, duplicates, not_compared)
