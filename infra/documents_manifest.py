"""Recipe of `manifests/examples/documents.parquet`: the snippets of Kandinsky 2.1's documents as manifest rows.

    python infra/documents_manifest.py [--output manifests/examples/documents.parquet]

Prompts, guidance, strength, weights and the mask are the documents'; sizes and steps are theirs divided by 6 and 10
(768 px and 100 steps, inpainting 150), so that the demo checkpoint makes all five on a laptop, and the pictures are
ours. Where the documents are: the model card of kandinsky-community/kandinsky-2-1 (text to image, image to image,
interpolation), the diffusers documentation of Kandinsky 2.1 (inpainting) and the pipelines' docstrings (red cat).
`document` is no column of the request schema and travels to the output.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from manifests.requests.schema import REQUEST_FIELDS

EXAMPLES = Path(__file__).resolve().parent.parent / "manifests" / "examples"

Row = dict[str, Any]

SCALED: Row = {"height": 128, "width": 128, "steps": 10}
NEGATIVE = "low quality, bad quality"


def picture(name: str) -> Row:
    """A picture by its path, relative to the manifest."""
    return {"bytes": None, "path": f"pictures/{name}"}


def mask_above_the_head() -> Row:
    """`mask = zeros(768, 768); mask[:250, 250:-250] = 1`, as an image of that size."""
    mask = Image.new("L", (768, 768), 0)
    mask.paste(255, (250, 0, 768 - 250, 250))
    sink = io.BytesIO()
    mask.save(sink, "PNG", optimize=True)
    return {"bytes": sink.getvalue(), "path": None}


def documents_table() -> pa.Table:
    """The manifest: the request schema's columns, then `document`."""
    rows: list[Row] = [
        {
            "id": "cheeseburger",
            "document": "model card, text to image",
            "task": "text2img",
            "prompt": "A alien cheeseburger creature eating itself, claymation, cinematic, moody lighting",
            "negative_prompt": NEGATIVE,
            "prior_guidance_scale": 1.0,
        },
        {"id": "red-cat", "document": "pipeline docstring", "task": "text2img", "prompt": "red cat, 4k photo"},
        {
            "id": "fantasy-landscape",
            "document": "model card, text guided image to image",
            "task": "img2img",
            "prompt": "A fantasy landscape, Cinematic lighting",
            "negative_prompt": NEGATIVE,
            "image": picture("landscape-sketch.png"),
            "strength": 0.3,
        },
        {
            "id": "starry-cat",
            "document": "model card, interpolate",
            "task": "interpolate",
            "prompt": "",
            "conditions": [
                {"text": "a cat", "image": None, "weight": 0.3},
                {"text": None, "image": picture("cat.png"), "weight": 0.3},
                {"text": None, "image": picture("starry-night.png"), "weight": 0.4},
            ],
        },
        {
            "id": "cat-with-hat",
            "document": "diffusers, inpainting",
            "task": "inpaint",
            "prompt": "a hat",
            "image": picture("cat.png"),
            "mask": mask_above_the_head(),
            "steps": 15,
        },
    ]
    schema = pa.schema([*REQUEST_FIELDS, pa.field("document", pa.string())])
    return pa.Table.from_pylist([{**SCALED, **row} for row in rows], schema)


def main() -> None:
    """Write the manifest."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--output", type=Path, default=EXAMPLES / "documents.parquet", help="where to write it")
    output: Path = parser.parse_args().output
    pq.write_table(documents_table(), output, compression="zstd")
    print(f"{output}: {documents_table().num_rows} requests, {output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
