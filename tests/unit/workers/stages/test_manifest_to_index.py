"""From files of a manifest to the index of a sealed shard: other columns arrive as they were, at every start."""

from __future__ import annotations

import datetime
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from manifests.config import RunConfig
from manifests.planning.plan import plan, window_batches
from manifests.storage.finding import OUTPUT
from workers.stages.encode import encode_images
from workers.stages.shards import seal, write_part

TENSOR = Path(__file__).resolve().parents[3] / "data" / "field" / "19-ray-tensor-columns" / "raytensor.parquet"
Y1500 = datetime.datetime(1500, 1, 1)


def write(path: Path, **columns: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sides = {name: [64, 64] for name in ("height", "width")}
    pq.write_table(pa.table({"task": ["text2img"] * 2, "prompt": ["a", "b"], **sides, **columns}), path)


def run(config: RunConfig) -> str:
    """What a run does, but for pixels that mean nothing; returns the plan's fingerprint."""
    planned = plan(config)
    for batch in (batch for window in planned.windows for batch in window_batches(config, window)):
        shape = (batch.bucket.height, batch.bucket.width, 3) if batch.bucket else (0,)
        pixels = {row: np.zeros(shape, np.uint8).tobytes() for row in batch.pending}
        batch = batch.add("pixels", pa.large_binary(), pixels).drop(["image", "mask", "condition_sources"])
        write_part(encode_images(batch, config), config.output)
    for number, shard in enumerate(planned.shards):
        seal(number, shard.batches, config.output, config)
    return planned.fingerprint


def test_what_travels_arrives_and_an_output_below_its_manifest_stays_out_of_it(tmp_path: Path) -> None:
    no_text = pa.Array.from_buffers(pa.string(), 2, pa.array([b"fine", b"\xff\xfe"]).buffers())
    times = pa.array([Y1500, Y1500], pa.timestamp("s"))
    write(tmp_path / "lang=de" / "steps=2" / "a.parquet", note=no_text, number=[2**53 + 1, 1], time=times)
    later = pa.array([1000, 2000], pa.timestamp("ns"))
    write(tmp_path / "lang=en" / "steps=3" / "b.parquet", note=["é", None], number=[1.0, None], time=later)
    (tmp_path / "rays").mkdir()
    shutil.copy(TENSOR, tmp_path / "rays")
    output = tmp_path / "images"
    config = RunConfig(manifest=(str(tmp_path),), output=str(output), height=64, width=64)
    fingerprint = run(config)

    rows = sorted(pq.read_table(output / "00000.parquet").to_pylist(), key=lambda row: row["manifest_row"])
    assert {row["status"] for row in rows} == {"success"}
    assert [row["steps"] for row in rows] == [2, 2, 3, 3, 100, 100]
    assert [row["lang"] for row in rows] == ["de", "de", "en", "en", None, None]
    assert [row["note"] for row in rows] == [b"fine", b"\xff\xfe", "é".encode(), None, None, None]
    assert [row["number"] for row in rows] == [2**53 + 1, 1, 1, None, None, None]
    assert [row["time"] for row in rows[:3]] == [Y1500, Y1500, datetime.datetime(1970, 1, 1, microsecond=1)]
    assert [row["feat"] for row in rows] == [None] * 4 + [[1.0] * 12] * 2
    with tarfile.open(output / "00000.tar") as tar:
        members = [json.loads(tar.extractfile(f"{row['key']}.json").read()) for row in rows]  # type: ignore[union-attr]
    assert [member["feat"] for member in members] == ["null"] * 4 + [json.dumps([1.0] * 12)] * 2

    again = plan(config)
    assert (output / "_run").is_dir()
    assert again.fingerprint == fingerprint
    assert [left.reason for left in again.sources.left_out] == [OUTPUT]
