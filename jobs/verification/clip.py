"""Checks of the embeddings that were kept of a shard's images: whole as its stats say, and of the images it has."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.verification.checksums import HashingReader, compare_file
from jobs.verification.findings import Finding, ShardReport
from manifests import storage
from manifests.commit import ShardStats
from manifests.embeddings import kept_clip
from manifests.errors import SUCCESS, StorageError, first_line

#: How far the length of a float16 vector may be from 1.
_LENGTH = 0.01

_FILE = re.compile(r"^(?:img_emb|metadata)_(\d{5,})\.(?:npy|parquet)$")


def check_clip(output: str, stats: ShardStats, keep_clip: bool, report: ShardReport) -> None:
    """Check them; a shard that was sealed without says nothing of files that lie there.

    Args:
        keep_clip: the output keeps them.
    """
    if stats.clip is None:
        if keep_clip and stats.successes:
            report.add("embeddings", f"shard {stats.shard:05d}", "has none; jobs/score.py --keep-clip adds them")
        return
    for claimed in stats.clip:
        try:
            with storage.open_read(storage.join(output, claimed.name)) as file:
                compare_file(claimed, HashingReader(file).finish(), report)
        except FileNotFoundError:
            report.add("embeddings", claimed.name, "is missing; jobs/score.py --keep-clip makes it again")
            return
        except (StorageError, OSError) as error:
            report.add("embeddings", claimed.name, f"cannot be read: {first_line(error)}")
            return
    if not stats.clip:
        return
    name = stats.clip[0].name
    try:
        metadata, vectors = kept_clip.read(output, stats.shard)
        with storage.open_arrow(storage.join(output, stats.parquet.name)) as source:
            index = pq.ParquetFile(source).read(columns=["key", "status", "sha256"])
    except (StorageError, OSError, pa.ArrowException) as error:
        report.add("embeddings", name, f"cannot be read: {first_line(error)}")
        return
    images = index.filter(pc.equal(index["status"], SUCCESS))
    right = dict(zip(images["key"].to_pylist(), images["sha256"].to_pylist(), strict=True))
    keys = metadata["key"].to_pylist()
    for key, digest in zip(keys, metadata["sha256"].to_pylist(), strict=True):
        if right.get(key) != digest:
            report.add("embeddings", name, f"that of {key} is not of the image in the index")
    if keys != sorted(set(keys)):
        report.add("embeddings", name, "its rows are not in the index's order, each once")
    for row in np.flatnonzero(~(np.abs(np.linalg.norm(vectors.astype(np.float32), axis=1) - 1) < _LENGTH)):
        report.add("embeddings", name, f"that of {keys[row]} has not the length 1")


def check_others(output: str, shards: int) -> Iterator[Finding]:
    """Files of embeddings that belong to no planned shard.

    Args:
        shards: of the plan.
    """
    for folder in ("img_emb", "metadata"):
        for name in storage.list_names(storage.join(output, kept_clip.FOLDER, folder)):
            match = _FILE.match(name)
            if match is None or int(match[1]) >= shards:
                yield Finding("embeddings", f"{kept_clip.FOLDER}/{folder}/{name}", "belongs to no planned shard")
