"""Recipe of the golden manifest: every way a request can reach the models, each in a few small steps.

    python -m tests.goldens.manifest        writes tests/goldens/requests.parquet

Every setting is spelled out, so that who reads the manifest needs none of this project's defaults. Images and masks lie
inline as PNG, cut from the example photographs.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

from manifests.requests.schema import REQUEST_FIELDS

FOLDER = Path(__file__).resolve().parent
MANIFEST = FOLDER / "requests.parquet"
PHOTOS = FOLDER.parent.parent / "manifests" / "examples" / "photos"

Row = dict[str, Any]

COMMON: Row = {
    "height": 64,
    "width": 64,
    "steps": 5,
    "guidance_scale": 4.0,
    "prior_steps": 3,
    "prior_guidance_scale": 4.0,
    "num_images": 1,
}


def _png(image: Image.Image) -> Row:
    sink = io.BytesIO()
    image.save(sink, "PNG", optimize=True)
    return {"bytes": sink.getvalue(), "path": None}


def _photo(name: str, width: int, height: int) -> Image.Image:
    return Image.open(PHOTOS / name).convert("RGB").resize((width, height), Image.Resampling.BICUBIC)


def _mask(width: int, height: int, black: bool = False) -> Row:
    """An ellipse in the upper right is to be repainted: white on black, or with `black` the other way round."""
    image = Image.new("L", (width, height), 255 if black else 0)
    ImageDraw.Draw(image).ellipse((width * 0.4, 0, width * 0.9, height * 0.6), fill=0 if black else 255)
    return _png(image)


def text2img() -> list[Row]:
    """Guidance in prior and decoder, negatives, sizes, seeds, and a prompt that both tokenizers cut."""
    long = "a detailed painting of a castle on a cliff over the sea at sunset, " * 12
    return [
        {"id": "plain", "prompt": "a red cat, 4k photo", "seed": 1},
        {"id": "long-prompt", "prompt": long, "seed": 2},
        {"id": "three-images", "prompt": "fog over a lake at night", "seed": 3, "num_images": 3},
        {"id": "seed-above-2-63", "prompt": "рыжая лиса в зимнем лесу", "seed": 2**63 + 12345},
        {"id": "largest-seed", "prompt": "", "seed": 2**64 - 1},
        {"id": "prior-guidance-1", "prompt": "a robot reading a book", "seed": 6, "prior_guidance_scale": 1.0},
        {"id": "negative", "prompt": "a harbour at dawn", "negative_prompt": "low quality, bad quality", "seed": 7},
        {"id": "negative-empty", "prompt": "a harbour at dawn", "negative_prompt": "", "seed": 8, "num_images": 2},
        {
            "id": "negative-prior-guidance-1",
            "prompt": "an alien cheeseburger",
            "negative_prompt": "low quality",
            "seed": 9,
            "prior_guidance_scale": 1.0,
        },
        {"id": "no-guidance", "prompt": "a tower of books", "seed": 10, "guidance_scale": 1.0},
        {"id": "wide", "prompt": "mountains, wide angle", "seed": 11, "width": 128},
        {"id": "tall", "prompt": "a lighthouse", "seed": 12, "height": 128},
        {"id": "many-steps", "prompt": "portrait of an astronaut", "seed": 13, "steps": 50, "prior_steps": 25},
    ]


def img2img() -> list[Row]:
    """Strengths 0.3, 0.5 and 1.0; square, wide, transparent, and a photograph of another size."""
    half: Row = {"guidance_scale": 7.0, "steps": 8, "strength": 0.5}
    transparent = _photo("cat.jpg", 64, 64)
    transparent.putalpha(Image.linear_gradient("L").resize((64, 64)))
    rows = [
        {"id": "square", "image": _png(_photo("cat.jpg", 64, 64)), "seed": 20, "num_images": 3, **half},
        {"id": "transparent", "image": _png(transparent), "seed": 21, **half},
        {"id": "other-size", "image": _png(_photo("rocket.jpg", 100, 70)), "seed": 22, **half},
        {"id": "wide", "image": _png(_photo("coffee.jpg", 128, 64)), "seed": 23, **half, "width": 128},
        {"id": "strength-0.3", "image": _png(_photo("coffee.jpg", 64, 64)), "seed": 24, **half, "strength": 0.3},
        {"id": "strength-1", "image": _png(_photo("rocket.jpg", 64, 64)), "seed": 25, **half, "strength": 1.0},
        {
            "id": "negative",
            "image": _png(_photo("cat.jpg", 64, 64)),
            "seed": 26,
            "negative_prompt": "blurry",
            **half,
        },
    ]
    return [{**row, "id": f"img2img-{row['id']}", "prompt": "a watercolour of an animal"} for row in rows]


def inpaint() -> list[Row]:
    """Masks as large as the image and of another size, both polarities, a wide image."""
    rows: list[Row] = [
        {"id": "square", "image": _png(_photo("cat.jpg", 64, 64)), "mask": _mask(64, 64), "seed": 30, "num_images": 2},
        {"id": "other-mask-size", "image": _png(_photo("rocket.jpg", 64, 64)), "mask": _mask(150, 90), "seed": 31},
        {
            "id": "black-polarity",
            "image": _png(_photo("coffee.jpg", 64, 64)),
            "mask": _mask(64, 64, black=True),
            "mask_polarity": "black",
            "seed": 32,
        },
        {
            "id": "wide",
            "image": _png(_photo("coffee.jpg", 128, 64)),
            "mask": _mask(128, 64),
            "seed": 33,
            "width": 128,
        },
    ]
    return [{**row, "id": f"inpaint-{row['id']}", "prompt": "a hat"} for row in rows]


def interpolate() -> list[Row]:
    """Texts and images in several orders, and a negative prompt."""

    def condition(weight: float, text: str | None = None, image: str | None = None) -> Row:
        return {"text": text, "image": None if image is None else _png(_photo(image, 96, 64)), "weight": weight}

    rows: list[Row] = [
        {
            "id": "text-and-two-images",
            "conditions": [
                condition(0.3, text="a cat"),
                condition(0.3, image="cat.jpg"),
                condition(0.4, image="coffee.jpg"),
            ],
            "seed": 40,
            "num_images": 2,
        },
        {
            "id": "two-texts",
            "conditions": [condition(0.7, text="a summer meadow"), condition(0.3, text="a snow field")],
            "seed": 41,
        },
        {"id": "one-image", "conditions": [condition(1.0, image="rocket.jpg")], "seed": 42},
        {
            "id": "negative",
            "conditions": [condition(0.5, image="cat.jpg"), condition(0.5, text="a flower garden")],
            "negative_prompt": "dark",
            "seed": 43,
        },
    ]
    return [{**row, "id": f"interpolate-{row['id']}", "prompt": ""} for row in rows]


def golden_table() -> pa.Table:
    """The manifest in the request schema."""
    parts = {"text2img": text2img(), "img2img": img2img(), "inpaint": inpaint(), "interpolate": interpolate()}
    rows = [{**COMMON, **row, "task": task} for task, requests in parts.items() for row in requests]
    return pa.Table.from_pylist(rows, pa.schema(REQUEST_FIELDS))


if __name__ == "__main__":
    pq.write_table(golden_table(), MANIFEST, compression="zstd")
    print(f"{MANIFEST}: {golden_table().num_rows} requests, {MANIFEST.stat().st_size} bytes")
