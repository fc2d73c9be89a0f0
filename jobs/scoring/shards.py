"""One shard gets its scores: computed batch by batch, then sealed anew with their columns in index and records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa

from jobs.output.catalog import open_index
from manifests.batch import Batch
from manifests.config import RunConfig
from manifests.scores import COLUMNS
from workers.scoring.columns import Columns, hashes, numbers_only
from workers.scoring.scorer import Scorer
from workers.stages.reseal import reseal_rows, sealed_rows

#: Key of a sample -> score -> value.
Scores = Mapping[str, Mapping[str, Any]]


def has_columns(output: str, shard: int, columns: Columns) -> bool:
    """True where the index of a shard has these columns and no other score's."""
    with open_index(output, shard) as file:
        there = [name for name in file.schema_arrow.names if name in COLUMNS]
    return there == [field.name for field in columns.values()]


def clip_scores(batches: Iterable[Batch], scorer: Scorer, columns: Columns) -> dict[str, dict[str, Any]]:
    """What CLIP says of the images of a shard."""
    found: dict[str, dict[str, Any]] = {}
    for batch in batches:
        if batch.bucket is None or not batch.pending:
            continue
        scored = scorer(batch).samples
        names = [name for name in columns if name in scored.column_names]
        for row in scored.select(["key", *names]).to_pylist():
            found[row["key"]] = {name: row[name] for name in names}
    return found


def seal_with(shard: int, found: Scores, columns: Columns, config: RunConfig) -> Counter[str]:
    """Seal a shard anew with the columns of scores behind all others; returns how many images have each.

    Args:
        found: of `clip_scores`; scores that the shard has and nobody computed again are kept.
    """
    counts: Counter[str] = Counter(dict.fromkeys(columns, 0))
    reseal_rows(shard, _with(shard, found, columns, config, counts), config.output, config)
    return counts


def _with(shard: int, found: Scores, columns: Columns, config: RunConfig, counts: Counter[str]) -> Iterator[pa.Table]:
    for rows in sealed_rows(shard, config.output, config):
        contents = rows.select([name for name in ("encoded", "latents") if name in rows.column_names])
        records = rows.drop_columns([name for name in rows.column_names if name in {*COLUMNS, *contents.column_names}])
        keys, files = rows["key"].to_pylist(), rows["encoded"].to_pylist()
        for name, field in columns.items():
            if name == "image_phash":
                values = hashes(files)
            elif any(name in one for one in found.values()):
                values = [found.get(key, {}).get(name) for key in keys]
            else:
                values = rows[field.name].to_pylist() if field.name in rows.column_names else [None] * len(keys)
            column = numbers_only(values, field)
            counts[name] += len(column) - column.null_count
            records = records.append_column(field, column)
        for name in contents.column_names:
            records = records.append_column(contents.schema.field(name), contents[name])
        # Parquet adds to what fields say, and every piece must have one schema.
        yield records
