"""A finished run without a model: real plan, parts, seals and run files; only the pixels are made up."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs.run import run_folder
from manifests.batch import Batch
from manifests.config import RunConfig
from manifests.embeddings import kept_clip
from manifests.errors import RowError
from manifests.planning.plan import Plan, batches_of, plan
from manifests.scores import BY_CLIP
from workers.scoring.columns import columns_of, with_scores
from workers.stages.encode import encode_images
from workers.stages.shards import seal, write_part

#: Rows of the manifest that `write_manifest` makes by default: the last but one cannot be made.
ROWS: tuple[dict[str, Any], ...] = (
    *({"id": f"r{i}", "task": "text2img", "prompt": f"prompt {i}", "num_images": 1 + i % 2} for i in range(6)),
    {"id": "wrong", "task": "text2img", "prompt": "odd size", "width": 65, "num_images": 1},
    {"id": "last", "task": "text2img", "prompt": "the end", "num_images": 1},
)


def write_manifest(path: Path, rows: Sequence[dict[str, Any]] = ROWS) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in names}), path)
    return str(path)


def make_config(folder: Path, rows: Sequence[dict[str, Any]] = ROWS, **settings: Any) -> RunConfig:
    given = {"batch_size": 2, "shard_size": 4, "height": 64, "width": 64, **settings}
    output = given.pop("output", str(folder / "out"))
    return RunConfig(manifest=(write_manifest(folder / "m.parquet", rows),), output=output, **given)


def made(batch: Batch, config: RunConfig, broken: Sequence[str] = ()) -> Batch:
    """The batch as it leaves the encode stage; ids in `broken` fail while they are generated."""
    ids = batch.values("id", range(batch.samples.num_rows))
    lost = {i: RowError("failed_to_generate", "not finite") for i in batch.pending if ids[i] in broken}
    batch = batch.fail(lost)
    pixels = {}
    for i in batch.pending:
        key = f"{ids[i]}/{batch.values('image_index', [i])[0]}"
        rng = np.random.default_rng(list(hashlib.sha256(key.encode()).digest()))
        assert batch.bucket is not None
        pixels[i] = rng.integers(0, 256, (batch.bucket.height, batch.bucket.width, 3), dtype=np.uint8).tobytes()
    if config.dump_latents:
        batch = batch.add("latents", pa.large_binary(), {i: b"latents of " + p[:8] for i, p in pixels.items()})
    batch = batch.add("prompt_truncated", pa.bool_(), dict.fromkeys(batch.pending, False))
    batch = batch.add("pixels", pa.large_binary(), pixels).drop(["image", "mask", "condition_sources"])
    # As CLIP's would be: decided by the image alone.
    for name in (name for name in config.score_names if name in BY_CLIP):
        values = {i: float(np.frombuffer(data[:3000], np.uint8).mean() / 300) for i, data in pixels.items()}
        batch = batch.add(name, pa.float32(), values)
    if config.keep_clip and pixels:
        vectors = {i: kept_clip.unit(np.frombuffer(data[:16], np.uint8)) for i, data in pixels.items()}
        column = kept_clip.column_of(vectors, batch.samples.num_rows)
        batch = replace(batch, samples=batch.samples.append_column(kept_clip.COLUMN, column))
    return with_scores(encode_images(batch, config), columns_of(config.score_names, config.checkpoint))


def run(config: RunConfig, broken: Sequence[str] = ()) -> Plan:
    """Do the whole run, as the job would."""
    planned = plan(config)
    run_folder.begin(config, planned)
    for batch in batches_of(config, planned.windows):
        write_part(made(batch, config, broken), config.output)
    for number, shard in enumerate(planned.shards):
        seal(number, shard.batches, config.output, config)
    run_folder.finish(config, {}, anew=True)
    return planned
