"""Recipe of `manifests/examples/demo.parquet`: a small manifest that shows everything a request may say.

    python infra/demo_manifest.py [--output manifests/examples/demo.parquet]

It asks for what the demo checkpoint knows, with the pictures in `manifests/examples/pictures/`, so that every prompt,
mask, strength and weight can be seen in its image. What the rows show:

    text2img     the documents' prompts; two prompts x two colours x three languages; several images of a request,
                 wide and tall sizes, seeds given and left out, a negative prompt, and an empty one (which is not none)
    img2img      a sketch by relative path at strengths 0.3, 0.6 and 1.0; a picture inline
    inpaint      masks as files and inline: white for what to repaint, black for it, and drawn as transparency
    interpolate  the documents' three conditions; two texts; a text and a picture with a negative prompt

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

SQUARE: Row = {"width": 128, "height": 128, "steps": 8, "prior_steps": 5}
WIDE: Row = {**SQUARE, "width": 192}
TALL: Row = {**SQUARE, "height": 192}
#: Of the documents.
NEGATIVE = "low quality, bad quality"
CHEESEBURGER = "A alien cheeseburger creature eating itself, claymation, cinematic, moody lighting"
LANDSCAPE = "A fantasy landscape, Cinematic lighting"


def picture(name: str) -> Row:
    """A picture by its path, relative to the manifest."""
    return {"bytes": None, "path": f"pictures/{name}"}


def inline(data: bytes) -> Row:
    """An image that lies in the manifest."""
    return {"bytes": data, "path": None}


def mask(size: tuple[int, int], box: tuple[int, int, int, int], opaque: bool) -> Row:
    """An inline mask as PNG: a rectangle in `box` is to be repainted.

    Args:
        size: (width, height) in pixels.
        opaque: on transparent, instead of white on black.
    """
    image = Image.new("RGBA", size, (255, 255, 255, 0)) if opaque else Image.new("L", size, 0)
    ImageDraw.Draw(image).rectangle(box, fill=(255, 255, 255, 255) if opaque else 255)
    sink = io.BytesIO()
    image.save(sink, "PNG")
    return inline(sink.getvalue())


def text2img() -> list[Row]:
    """Nineteen images of seventeen requests."""
    rows: list[Row] = [
        {
            "id": "cheeseburger",
            "prompt": CHEESEBURGER,
            "negative_prompt": NEGATIVE,
            "prior_guidance_scale": 1.0,
            "seed": 1,
            **SQUARE,
        },
        {"id": "red-cat", "prompt": "red cat, 4k photo", "seed": 2, **SQUARE},
    ]
    subjects = {
        "cat": ("a cat on a {}", "eine Katze auf {}", "кот на {}"),
        "rocket": ("a rocket on a {}", "eine Rakete auf {}", "ракета на {}"),
    }
    grounds = {
        "blue": ("blue background", "blauem Hintergrund", "синем фоне"),
        "yellow": ("yellow background", "gelbem Hintergrund", "жёлтом фоне"),
    }
    rows += [
        {"id": f"{subject}-{colour}-{language}", "prompt": words.format(ground), "seed": 3, **SQUARE}
        for subject, wordings in subjects.items()
        for colour, names in grounds.items()
        for language, words, ground in zip(("en", "de", "ru"), wordings, names, strict=True)
    ]
    rows += [
        {"id": "dog-and-rocket", "prompt": "a dog and a rocket on a purple background", "seed": 2**64 - 1, **WIDE},
        {"id": "starry-night", "prompt": "a night sky with stars", "negative_prompt": "", "seed": 5, **TALL},
        {"id": "hats", "prompt": "a robot wearing a hat", "num_images": 3, **SQUARE},
    ]
    return [{"task": "text2img", **row} for row in rows]


def img2img(pictures: Path) -> list[Row]:
    """Four images of four requests."""
    sketch = {"prompt": LANDSCAPE, "negative_prompt": NEGATIVE, "image": picture("landscape-sketch.png")}
    cat = inline((pictures / "cat.png").read_bytes())
    rows: list[Row] = [
        {"id": f"landscape-{strength}", "strength": strength, "seed": 7, **sketch, **SQUARE, "steps": 16}
        for strength in (0.3, 0.6, 1.0)
    ]
    rows.append({"id": "cat-to-dog", "prompt": "a dog", "image": cat, "strength": 0.8, "seed": 8, **SQUARE})
    return [{"task": "img2img", **row} for row in rows]


def inpaint() -> list[Row]:
    """Five images of four requests."""
    cat, night = picture("cat.png"), picture("starry-night.png")
    rows: list[Row] = [
        {"id": "cat-hat", "prompt": "a hat", "image": cat, "mask": picture("above-the-cat.png"), "seed": 10, **SQUARE},
        {
            "id": "cat-crown",
            "prompt": "a golden crown",
            "image": cat,
            "mask": mask((128, 128), (24, 0, 103, 62), opaque=True),
            "seed": 11,
            **SQUARE,
        },
        {
            "id": "night-rocket",
            "prompt": "a rocket under the stars",
            "image": night,
            "mask": picture("all-but-the-middle.png"),
            "mask_polarity": "black",
            "num_images": 2,
            **SQUARE,
        },
        {
            "id": "tree-beside",
            "prompt": "a tree on a pink background",
            "image": picture("house.png"),
            "mask": mask((192, 128), (96, 8, 184, 120), opaque=False),
            "seed": 12,
            **WIDE,
        },
    ]
    return [{"task": "inpaint", **row} for row in rows]


def interpolate() -> list[Row]:
    """Three images of three requests."""

    def condition(weight: float, text: str | None = None, image: Row | None = None) -> Row:
        return {"text": text, "image": image, "weight": weight}

    cat, night = picture("cat.png"), picture("starry-night.png")
    rows: list[Row] = [
        {
            "id": "starry-cat",
            "conditions": [condition(0.3, text="a cat"), condition(0.3, image=cat), condition(0.4, image=night)],
            "seed": 13,
            **SQUARE,
        },
        {
            "id": "boat-and-mountains",
            "conditions": [condition(0.5, text="a boat"), condition(0.5, text="a mountain landscape")],
            **SQUARE,
        },
        {
            "id": "rocket-at-night",
            "negative_prompt": "white",
            "conditions": [condition(0.4, image=night), condition(0.6, text="a rocket")],
            "seed": 15,
            **SQUARE,
        },
    ]
    return [{"task": "interpolate", "prompt": "", **row} for row in rows]


def demo_table(pictures: Path = EXAMPLES / "pictures") -> pa.Table:
    """The manifest: the request schema's columns with their descriptions, then `dataset`."""
    rows = [*text2img(), *img2img(pictures), *inpaint(), *interpolate()]
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
