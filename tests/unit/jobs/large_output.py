"""A finished output of many rows, made in seconds: real indexes, tars and stats of rows that no manifest had.

Of most shards only index and stats are there. Every image is the same file but for its colour.
"""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from manifests import commit
from manifests.commit import FileStats, ShardStats
from manifests.planning.layout import key_of
from manifests.records import RECORD_FIELDS
from tests.unit import finished_run
from workers.stages.shards import build_shard

#: Every so many rows fails.
FAILS = 500


def picture(row: int) -> bytes:
    """An image whose colour says its row."""
    sink = io.BytesIO()
    Image.new("RGB", (16, 16), (row >> 16 & 255, row >> 8 & 255, row & 255)).save(sink, "PNG")
    return sink.getvalue()


def records(shard: int, size: int) -> pa.Table:
    """The index's rows of a shard, with their images in `encoded`."""
    rows = range(shard * size, (shard + 1) * size)
    failed = [row % FAILS == FAILS - 1 for row in rows]
    columns = {
        "key": [key_of(shard, row - shard * size, size) for row in rows],
        "id": [f"request-{row}" for row in rows],
        "image_index": [0] * size,
        "task": ["text2img"] * size,
        "status": ["failed_to_generate" if lost else "success" for lost in failed],
        "error_message": ["not finite" if lost else None for lost in failed],
        "manifest_row": list(rows),
        "seed": list(rows),
        "caption": [f"a picture of thing {row}" for row in rows],
        "prompt": [f"a picture of thing {row}" for row in rows],
        **{name: [value] * size for name, value in (("height", 16), ("width", 16), ("steps", 4), ("prior_steps", 2))},
        **{name: [4.0] * size for name in ("guidance_scale", "prior_guidance_scale")},
        "checkpoint": ["demo"] * size,
    }
    arrays = [pa.array(columns.get(one.name, [None] * size), one.type) for one in RECORD_FIELDS]
    table = pa.table(arrays, schema=pa.schema(list(RECORD_FIELDS)))
    images = [None if lost else b"" for lost in failed]
    return table.append_column("encoded", pa.array(images, pa.large_binary()))


def make_large_output(folder: Path, shards: int, size: int, with_tar: tuple[int, ...]) -> str:
    """An output of `shards` shards of `size` rows; those in `with_tar` have their images."""
    config = finished_run.make_config(folder, [{"id": "one", "task": "text2img", "prompt": "x"}], shard_size=size)
    finished_run.run(config)
    output = Path(config.output)
    for path in output.glob("0*"):
        path.unlink()
    for shard in range(shards):
        table = records(shard, size)
        if shard in with_tar:
            images = [
                None if image is None else picture(shard * size + place)
                for place, image in enumerate(table["encoded"].to_pylist())
            ]
            whole = table.set_column(table.num_columns - 1, "encoded", pa.array(images, pa.large_binary()))
            stats = build_shard(shard, iter([whole]), str(output), config)
        else:
            stats = _index_only(shard, table, output)
        commit.write_stats(config.output, stats)
    return config.output


def _index_only(shard: int, table: pa.Table, output: Path) -> ShardStats:
    index = output / commit.index_name(shard)
    pq.write_table(table.drop_columns(["encoded"]), index)
    failed = table["status"].to_pylist().count("failed_to_generate")
    return ShardStats(
        shard=shard,
        task="text2img",
        count=table.num_rows,
        successes=table.num_rows - failed,
        failed=failed,
        failed_by_status={"failed_to_generate": failed} if failed else {},
        bytes=0,
        tar=FileStats(name=commit.tar_name(shard), bytes=0, sha256=f"{shard:064x}"),
        parquet=FileStats(name=index.name, bytes=index.stat().st_size, sha256=f"{shard:064x}"),
    )
