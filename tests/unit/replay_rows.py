"""Rows of all tasks whose inputs lie in a file beside the manifest, and inline; one fails validation."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image


def inline(seed: int, mode: str = "RGB") -> dict[str, Any]:
    """An image as a manifest column holds it."""
    shape = (70, 80) if mode == "L" else (70, 80, 3)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "PNG")
    return {"bytes": sink.getvalue(), "path": None}


def replay_rows() -> list[dict[str, Any]]:
    """The rows; settings that they leave out are the job's."""
    file = {"bytes": None, "path": "photo.png"}
    text = [{"id": f"t{i}", "task": "text2img", "prompt": f"a cat, {i}", "seed": 10 + i} for i in range(3)]
    text[0]["num_images"] = 3
    text[1]["negative_prompt"] = ""
    return [
        *text,
        {"id": "broken", "task": "text2img", "prompt": "no end of it"},
        {"id": "wrong", "task": "text2img", "prompt": "odd size", "width": 65},
        {"task": "img2img", "prompt": "oil", "image": file, "strength": 0.5},
        {"id": "i1", "task": "img2img", "prompt": "oil", "image": inline(1), "strength": 0.5},
        {"id": "p0", "task": "inpaint", "prompt": "hat", "image": inline(2), "mask": inline(3, "L")},
        {
            "id": "m0",
            "task": "interpolate",
            "negative_prompt": "blurry",
            "conditions": [
                {"text": "a cat", "image": None, "weight": 0.3},
                {"text": None, "image": inline(4), "weight": 0.7},
            ],
        },
    ]
