"""What the commands of the READMEs read: captions, photographs, an earlier output, stored embeddings; all made up."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from jobs import make_manifest
from jobs.cost.step_times import Stopwatch
from jobs.engine.pools import Pools, PoolSize
from jobs.run import run_folder
from manifests.batch import Bucket
from manifests.call_limit import CallLimit
from manifests.commit import Receipt
from manifests.config import RunConfig
from manifests.embeddings.store import EmbeddingStore
from tests.unit import finished_run
from tests.unit.manifests import embedding_rows
from tests.unit.readmes import ROOT

#: In captions.parquet: rows of a width that cannot be made, and how many of the others are 128 wide (the rest 192).
WRONG_ROWS, ROWS, NARROW = (1204, 17003), 20_000, 10_063


def prepare(folder: Path) -> None:
    """Put everything into a folder; the repository's own files stand beside it under their names."""
    for name in ("manifests", "infra", "jobs"):
        (folder / name).symlink_to(ROOT / name)
    _lists(folder)
    _photographs(folder)
    _captions(folder / "captions.parquet")
    names = {"task": ["text2img"] * 2, "prompt": ["a cat", "a dog"], "Seed": [1, 2], "cfg": [4.0, 5.0]}
    pq.write_table(pa.table(names), folder / "other-names.parquet")
    _times(folder / "demo-output")
    _requests(folder)
    EmbeddingStore(str(folder / "images" / "_run" / "embeddings")).add(embedding_rows.rows(range(30)))
    weights = folder / "kandinsky-2-1" / "unet"
    weights.mkdir(parents=True)
    (weights / "config.json").write_text("{}")


def _requests(folder: Path) -> None:
    """A manifest that the script has made, so that it may be made again."""
    lines = [{**row, "height": 64, "width": row.get("width", 64)} for row in finished_run.ROWS]
    source = folder / "rows.jsonl"
    source.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    with contextlib.redirect_stdout(io.StringIO()):
        make_manifest.main(["--jsonl", str(source), "--output", str(folder / "requests.parquet")])


def _lists(folder: Path) -> None:
    (folder / "captions.csv").write_text("caption,height\na cat,512\na dog,\na bird,500\n")
    (folder / "prompts.txt").write_text("a cat\na dog\n")
    (folder / "styles.txt").write_text("oil painting\na poster of {prompt}\n")
    numbers = range(30_000)
    coco = {
        "images": [{"id": number, "file_name": f"{number}.jpg"} for number in numbers],
        "annotations": [{"id": number, "image_id": number, "caption": f"caption {number}"} for number in numbers],
    }
    (folder / "captions_val2014.json").write_text(json.dumps(coco))


def _photographs(folder: Path) -> None:
    for name in ("photos", "photo-masks"):
        (folder / name).mkdir()
        Image.new("RGB" if name == "photos" else "L", (64, 64)).save(folder / name / "cat.png")


def _captions(path: Path) -> None:
    narrow = NARROW + sum(row < NARROW for row in WRONG_ROWS)
    widths = [130 if row in WRONG_ROWS else 128 if row < narrow else 192 for row in range(ROWS)]
    table = pa.table({"prompt": [f"caption {row}" for row in range(ROWS)], "width": widths})
    fixed = {"task": "text2img", "height": 128, "steps": 10, "prior_steps": 5}
    for column, value in fixed.items():
        table = table.append_column(column, pa.array([value] * ROWS))
    pq.write_table(table, path)


def _times(output: Path) -> None:
    """As an earlier run on two sizes would have measured them: seconds per batch of prior and decoder."""
    watch = Stopwatch()
    for width, prior, decoder in ((128, 1.055, 9.3665), (192, 1.055, 8.645)):
        bucket = Bucket(
            task="text2img",
            height=128,
            width=width,
            steps=10,
            guidance_scale=4.0,
            prior_steps=5,
            prior_guidance_scale=4.0,
            strength=None,
            has_negative=False,
        )
        receipt = Receipt(shard=0, batch=0, count=4, successes=4, failed_by_status={}, bytes=4 * 52_000, bucket=bucket)
        watch.add(receipt.model_copy(update={"seconds": {"prior": prior, "decoder": decoder}}))
    pools = Pools("cpu", PoolSize(1, 1), PoolSize(1, 1), 2, 1.0, 1.0, 1)
    config = RunConfig(manifest=("m",), output=str(output))
    run_folder.write_times(config, watch.record("cpu", CallLimit(4), pools))
