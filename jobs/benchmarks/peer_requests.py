"""The requests that `jobs.benchmarks.peers` gives to all sides: as a manifest, and back as what pipelines take.

Imported by every side, also on an interpreter that has PyTorch and none of this project's packages but pyarrow, NumPy
and Pillow.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

Row = dict[str, Any]

TASKS = ("text2img", "img2img", "inpaint", "interpolate")
#: Requests of all tasks, one after the other.
MIXED = "mixed"
PRIOR_STEPS = 10
GUIDANCE, PRIOR_GUIDANCE, STRENGTH = 4.0, 1.0, 0.6
_PROMPTS = ("a cat", "a red hat", "a robot on a blue background", "a fish next to a tree", "a night sky with stars")


def png(image: Image.Image) -> bytes:
    """The file of an image."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def write_manifest(path: Path, tasks: str, count: int, edge: int, steps: int) -> None:
    """Write so many requests.

    Args:
        path: of the Parquet file.
        tasks: one of `TASKS`, or `MIXED`.
        count: of the requests, one image each.
        edge: height and width of the images in pixels.
        steps: of the decoder.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    picture = Image.new("RGB", (edge, edge), (50, 95, 210))
    ImageDraw.Draw(picture).ellipse((edge // 4, edge // 4, edge * 3 // 4, edge * 3 // 4), fill=(245, 220, 60))
    hole = Image.new("L", (edge, edge), 0)
    ImageDraw.Draw(hole).rectangle((0, 0, edge, edge // 2), fill=255)
    rows = []
    for number in range(count):
        task = TASKS[number % len(TASKS)] if tasks == MIXED else tasks
        row: Row = {"id": f"r{number}", "task": task, "prompt": _PROMPTS[number % len(_PROMPTS)], "seed": number}
        row |= {"image": None, "mask": None, "conditions": None, "strength": None, "height": edge, "width": edge}
        row |= {"steps": steps, "prior_steps": PRIOR_STEPS, "guidance_scale": GUIDANCE}
        row["prior_guidance_scale"] = PRIOR_GUIDANCE
        if task in ("img2img", "inpaint"):
            row["image"] = {"bytes": png(picture)}
        if task == "img2img":
            row["strength"] = STRENGTH
        if task == "inpaint":
            row["mask"] = {"bytes": png(hole)}
        if task == "interpolate":
            row["conditions"] = [
                {"text": row["prompt"], "image": None, "weight": 0.5},
                {"text": None, "image": {"bytes": png(picture)}, "weight": 0.5},
            ]
        rows.append(row)
    source = pa.struct({"bytes": pa.binary()})
    kinds = {"image": source, "mask": source, "strength": pa.float64()}
    kinds["conditions"] = pa.list_(pa.struct({"text": pa.string(), "image": source, "weight": pa.float64()}))
    columns = {name: pa.array([row[name] for row in rows], kinds.get(name)) for name in rows[0]}
    pq.write_table(pa.table(columns), path)


def opened(row: Row) -> Row:
    """A row with its pictures as Pillow images, and its conditions as (text or image, weight) pairs."""

    def picture(source: Row | None, mode: str = "RGB") -> Image.Image | None:
        return None if source is None else Image.open(io.BytesIO(source["bytes"])).convert(mode)

    conditions = [(c["text"] or picture(c["image"]), c["weight"]) for c in row["conditions"] or ()]
    return {**row, "image": picture(row["image"]), "mask": picture(row["mask"], "L"), "conditions": conditions}


def read(manifest: Path) -> list[Row]:
    """The requests of a manifest, opened, in their order."""
    import pyarrow.parquet as pq

    return [opened(row) for row in pq.read_table(manifest).to_pylist()]


def batches(rows: list[Row], size: int) -> Iterator[list[Row]]:
    """The rows in batches of one task each."""
    for task in TASKS:
        chosen = [row for row in rows if row["task"] == task]
        for start in range(0, len(chosen), size):
            yield chosen[start : start + size]


def save(folder: Path, rows: list[Row], images: list[Image.Image]) -> None:
    """Write the images of rows as PNG files under their ids."""
    for row, image in zip(rows, images, strict=True):
        image.save(folder / f"{row['id']}.png")
