"""One shard gets its scores: computed batch by batch, then sealed anew with their columns in index and records."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from jobs.output.catalog import open_index
from jobs.scoring.batches import made_batches
from jobs.scoring.work import Work
from jobs.verification.output import OfShards
from manifests import storage
from manifests.batch import Batch
from manifests.commit import read_stats
from manifests.config import RunConfig
from manifests.embeddings import kept_clip
from manifests.embeddings.keys import vectors
from manifests.planning.plan import Window, batches_of
from manifests.rankings import fields_at
from manifests.scores import COLUMNS, needs_clip
from workers.scoring.columns import Columns, hashes, numbers_only
from workers.scoring.scorer import Scorer
from workers.stages.reseal import CONTENTS, reseal_rows, sealed_rows

#: Key of a sample -> score, or kept_clip.COLUMN -> value.
Scores = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Lacking:
    """What a shard has not that it is to have.

    Attributes:
        names: scores without a column.
        clip: embeddings are not kept, or not as the commit record says.
    """

    names: tuple[str, ...]
    clip: bool

    @property
    def asks_clip(self) -> bool:
        """Its images go through the checkpoint's CLIP."""
        return self.clip or needs_clip(self.names)


def lacking(config: RunConfig, shard: int, columns: Columns, look: bool) -> Lacking | None:
    """What a shard lacks; None where it has all.

    Args:
        look: embeddings that are kept are compared with the commit record.
    """
    with open_index(config.output, shard) as file:
        there = [name for name in file.schema_arrow.names if name in COLUMNS]
    clip = config.keep_clip and not _keeps_clip(config.output, shard, look)
    if there == [field.name for field in columns.values()] and not clip:
        return None
    return Lacking(tuple(name for name, field in columns.items() if field.name not in there), clip)


def _keeps_clip(output: str, shard: int, look: bool) -> bool:
    files = read_stats(output, shard).clip
    if files is None or not look:
        return files is not None
    try:
        contents = [storage.read_bytes(storage.join(output, file.name)) for file in files]
    except FileNotFoundError:
        return False
    return [hashlib.sha256(data).hexdigest() for data in contents] == [file.sha256 for file in files]


def clip_scores(batches: Iterable[Batch], scorer: Scorer) -> dict[str, dict[str, Any]]:
    """What CLIP says of the images of a shard, as far as the scorer asks."""
    found: dict[str, dict[str, Any]] = {}
    for batch in batches:
        if batch.bucket is None or not batch.pending:
            continue
        scored = scorer(batch).samples
        names = [name for name in scorer.names if name in scored.column_names]
        for row in scored.select(["key", *names]).to_pylist():
            found[row["key"]] = {name: row[name] for name in names}
        if kept_clip.COLUMN in scored.column_names:
            kept = scored.filter(scored[kept_clip.COLUMN].is_valid())
            for key, vector in zip(kept["key"].to_pylist(), vectors(kept[kept_clip.COLUMN]), strict=True):
                found[key][kept_clip.COLUMN] = vector
    return found


def score_shard(shard: int, windows: Sequence[Window], lack: Lacking, work: Work) -> Counter[str]:
    """Score a shard and seal it anew; how many images have each score.

    Args:
        windows: those of the plan that the shard is of.
    """
    found: Scores = {}
    if lack.asks_clip:
        planned = batches_of(work.config, windows, OfShards(frozenset([shard])))
        made = made_batches(shard, planned, work.memory, work.condition_size, work.config)
        found = clip_scores(made, work.scorer(lack.names, lack.clip))
    return seal_with(shard, lack, found, work.columns, work.config)


def seal_with(shard: int, lack: Lacking, found: Scores, columns: Columns, config: RunConfig) -> Counter[str]:
    """Seal a shard anew with the columns of scores behind all others; returns how many images have each.

    Args:
        lack: what is new; the rest is kept as it is.
        found: of `clip_scores`.
    """
    counts: Counter[str] = Counter(dict.fromkeys(columns, 0))
    reseal_rows(shard, _with(shard, lack, found, columns, config, counts), config.output, config)
    return counts


def _with(
    shard: int, lack: Lacking, found: Scores, columns: Columns, config: RunConfig, counts: Counter[str]
) -> Iterator[pa.Table]:
    rankings = [field.name for field in fields_at(config.output)]
    for rows in sealed_rows(shard, config.output, config, clip=not lack.clip):
        # Behind the scores: rankings, then what is not the index's.
        contents = rows.select([name for name in (*rankings, *CONTENTS) if name in rows.column_names])
        records = rows.drop_columns([name for name in rows.column_names if name in {*COLUMNS, *contents.column_names}])
        keys, files = rows["key"].to_pylist(), rows["encoded"].to_pylist()
        for name, field in columns.items():
            if name not in lack.names:
                values = rows[field.name].to_pylist()
            elif name == "image_phash":
                values = hashes(files)
            else:
                values = [found.get(key, {}).get(name) for key in keys]
            column = numbers_only(values, field)
            counts[name] += len(column) - column.null_count
            records = records.append_column(field, column)
        for name in contents.column_names:
            records = records.append_column(contents.schema.field(name), contents[name])
        if lack.clip:
            new = {i: found.get(key, {}).get(kept_clip.COLUMN) for i, key in enumerate(keys)}
            embeds = kept_clip.column_of(new, len(keys))
            records = records if embeds is None else records.append_column(kept_clip.COLUMN, embeds)
        # Parquet adds to what fields say, and every piece must have one schema.
        yield records
