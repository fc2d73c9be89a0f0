"""Recipe of `manifests/examples/demo.parquet`: a small manifest that shows everything a request may say.

    python infra/demo_manifest.py [--output manifests/examples/demo.parquet]

It needs the photographs in `manifests/examples/photos/` and no network. Sizes and steps are small,
so that the demo checkpoint makes all images on two CPU cores in about a minute. What the rows show:

    text2img     several images per request, wide and tall sizes, seeds given and left out, a negative prompt,
                 an empty one (which is not the same as none), a prompt that is not English
    img2img      a photograph by relative path, wide at strength 0.3 and square at 0.5; one inline
    inpaint      masks inline: grey, with black as the colour to repaint, and drawn as transparency
    interpolate  two texts; a text and two photographs; one with a negative prompt

`image` has the layout of Hugging Face's Image feature, struct<bytes, path>: some rows hold bytes, some a path
(relative to the manifest). `dataset` is no column of the request schema and travels to the output.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

from manifests.requests.schema import REQUEST_FIELDS

EXAMPLES = Path(__file__).resolve().parent.parent / "manifests" / "examples"

Row = dict[str, Any]

SQUARE: Row = {"width": 128, "height": 128, "steps": 10, "prior_steps": 5}
WIDE: Row = {"width": 192, "height": 128, "steps": 10, "prior_steps": 5}
TALL: Row = {"width": 64, "height": 128, "steps": 6, "prior_steps": 4}


def photo(name: str) -> Row:
    """A photograph by its path, relative to the manifest."""
    return {"bytes": None, "path": f"photos/{name}"}


def inline(data: bytes, path: str | None = None) -> Row:
    """An image that lies in the manifest; its path is only a name."""
    return {"bytes": data, "path": path}


def mask(size: tuple[int, int], box: tuple[int, int, int, int], kind: str) -> Row:
    """An inpainting mask as inline PNG: an ellipse in `box` is to be repainted.

    Args:
        size: (width, height) in pixels.
        kind: "white" on black, "black" on white, or "opaque" on transparent.
    """
    if kind == "opaque":
        image = Image.new("RGBA", size, (255, 255, 255, 0))
        ImageDraw.Draw(image).ellipse(box, fill=(255, 255, 255, 255))
    else:
        image = Image.new("L", size, 0 if kind == "white" else 255)
        ImageDraw.Draw(image).ellipse(box, fill=255 if kind == "white" else 0)
    sink = io.BytesIO()
    image.save(sink, "PNG")
    return inline(sink.getvalue())


def text2img() -> list[Row]:
    """Twelve images of seven requests."""
    rows: list[Row] = [
        {"id": "scarf", "prompt": "a cat with a red scarf, 4k photo", "seed": 1, "num_images": 4, **SQUARE},
        {"id": "lighthouse", "prompt": "a lighthouse in a storm, oil painting", "num_images": 3, **SQUARE},
        {"id": "forest", "prompt": "рыжая лиса в зимнем лесу", "seed": 3, **SQUARE},
        {"id": "harbour", "prompt": "a harbour at dawn, wide angle", "seed": 2**64 - 1, **WIDE},
        {"id": "city", "prompt": "a city at night in the rain", "negative_prompt": "", "seed": 5, **SQUARE},
        {
            "id": "portrait",
            "prompt": "portrait of an astronaut",
            "negative_prompt": "blurry, low quality",
            "seed": 6,
            **TALL,
        },
        {"id": "tower", "prompt": "a tower of books", "negative_prompt": "people", **TALL},
    ]
    return [{"task": "text2img", **row} for row in rows]


def img2img(photos: Path) -> list[Row]:
    """Five images of four requests."""
    wide, square = {**WIDE, "strength": 0.3}, {**SQUARE, "strength": 0.5}
    rocket = inline((photos / "rocket.jpg").read_bytes(), "rocket.jpg")
    rows: list[Row] = [
        {
            "id": "coffee-watercolour",
            "prompt": "watercolour",
            "image": photo("coffee.jpg"),
            "seed": 7,
            **wide,
        },
        {"id": "cat-watercolour", "prompt": "watercolour", "image": photo("cat.jpg"), **wide},
        {
            "id": "cat-bronze",
            "prompt": "bronze statue of a cat",
            "image": photo("cat.jpg"),
            "seed": 8,
            **square,
        },
        {"id": "rocket-comic", "prompt": "comic book", "image": rocket, "seed": 9, "num_images": 2, **square},
    ]
    return [{"task": "img2img", **row} for row in rows]


def inpaint() -> list[Row]:
    """Four images of three requests."""
    rows: list[Row] = [
        {
            "id": "cat-hat",
            "prompt": "a hat",
            "image": photo("cat.jpg"),
            "mask": mask((128, 128), (40, 0, 110, 45), "white"),
            "seed": 10,
            **SQUARE,
        },
        {
            "id": "rocket-sky",
            "prompt": "fireworks",
            "image": photo("rocket.jpg"),
            "mask": mask((384, 256), (20, 20, 180, 160), "black"),
            "mask_polarity": "black",
            "num_images": 2,
            **SQUARE,
        },
        {
            "id": "coffee-tea",
            "prompt": "green tea with a leaf",
            "image": photo("coffee.jpg"),
            "mask": mask((192, 128), (60, 20, 150, 100), "opaque"),
            "seed": 12,
            **WIDE,
        },
    ]
    return [{"task": "inpaint", **row} for row in rows]


def interpolate() -> list[Row]:
    """Four images of three requests."""

    def condition(weight: float, text: str | None = None, image: Row | None = None) -> Row:
        return {"text": text, "image": image, "weight": weight}

    cat, coffee = photo("cat.jpg"), photo("coffee.jpg")
    rows: list[Row] = [
        {
            "id": "cat-and-coffee",
            "conditions": [
                condition(0.3, text="a cat"),
                condition(0.3, image=cat),
                condition(0.4, image=coffee),
            ],
            "seed": 13,
            **SQUARE,
        },
        {
            "id": "summer-to-winter",
            "conditions": [condition(0.5, text="a summer meadow"), condition(0.5, text="a snow field")],
            **SQUARE,
        },
        {
            "id": "rocket-garden",
            "negative_prompt": "dark",
            "conditions": [
                condition(0.6, image=photo("rocket.jpg")),
                condition(0.4, text="a flower garden"),
            ],
            "seed": 15,
            "num_images": 2,
            **SQUARE,
        },
    ]
    return [{"task": "interpolate", "prompt": "", **row} for row in rows]


def demo_table(photos: Path = EXAMPLES / "photos") -> pa.Table:
    """The manifest: the request schema's columns with their descriptions, then `dataset`."""
    rows = [*text2img(), *img2img(photos), *inpaint(), *interpolate()]
    schema = pa.schema([*REQUEST_FIELDS, pa.field("dataset", pa.string())])
    return pa.Table.from_pylist([{**row, "dataset": "demo"} for row in rows], schema)


def main() -> None:
    """Write the manifest."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--output", type=Path, default=EXAMPLES / "demo.parquet", help="where to write it")
    output: Path = parser.parse_args().output
    table = demo_table()
    pq.write_table(table, output, compression="zstd")
    images = sum(count or 1 for count in table.column("num_images").to_pylist())
    print(f"{output}: {table.num_rows} requests for {images} images, {output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
