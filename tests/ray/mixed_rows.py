"""The manifest that many tests look at: every task, two shapes, guidance of both kinds, and every kind of bad row."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image


def picture(colour: str, mode: str = "RGB") -> dict[str, Any]:
    """An inline image as a manifest column holds it."""
    sink = io.BytesIO()
    Image.new(mode, (80, 70), colour).save(sink, "PNG")
    return {"bytes": sink.getvalue(), "path": None}


_GONE = {"bytes": None, "path": "gone.png"}
_HALF = {"bytes": picture("red")["bytes"][:100], "path": "half.png"}

#: id -> columns of rows that are made; the first has two images, and "again" is what "text-1" is.
GOOD: dict[str, dict[str, Any]] = {
    **{
        f"text-{seed}": {"task": "text2img", "prompt": prompt, "seed": seed}
        for seed, prompt in enumerate(["a cat", "a dog", "a fox", "a hen", "an owl"])
    },
    "img": {"task": "img2img", "prompt": "oil", "image": picture("red"), "strength": 1.0},
    "paint": {"task": "inpaint", "prompt": "a hat", "image": picture("blue"), "mask": picture("white", "L")},
    "mix": {
        "task": "interpolate",
        "conditions": [{"text": "a", "weight": 0.5}, {"text": "b", "weight": 0.5}],
    },
    "wide": {"task": "text2img", "prompt": "a dog", "seed": 9, "width": 128},
    "not": {"task": "text2img", "prompt": "a dog", "negative_prompt": "a cat", "seed": 9},
    "again": {"task": "text2img", "prompt": "a dog", "seed": 1},
    "mix of both": {
        "task": "interpolate",
        "conditions": [{"text": "a", "weight": 0.5}, {"image": picture("red"), "weight": 0.5}],
    },
}
GOOD["text-0"]["num_images"] = 2

#: id -> columns, the row's status, and words that its reason must hold.
BAD: dict[str, tuple[dict[str, Any], str, tuple[str, ...]]] = {
    "no task": ({"task": None, "prompt": "x"}, "failed_to_validate", ("task", "text2img")),
    "unknown task": ({"task": "txt2img", "prompt": "x"}, "failed_to_validate", ("task", "txt2img")),
    "no prompt": ({"task": "text2img"}, "failed_to_validate", ("prompt",)),
    "odd size": ({"task": "text2img", "prompt": "x", "height": 100}, "failed_to_validate", ("height", "100", "64")),
    "odd width": ({"task": "text2img", "prompt": "x", "width": 65}, "failed_to_validate", ("width", "65", "64")),
    "one prior step": ({"task": "text2img", "prompt": "x", "prior_steps": 1}, "failed_to_validate", ("prior_steps",)),
    "no strength": (
        {"task": "img2img", "prompt": "x", "image": picture("red"), "strength": 0.0},
        "failed_to_validate",
        ("strength",),
    ),
    "no mask": ({"task": "inpaint", "prompt": "x", "image": picture("red")}, "failed_to_validate", ("mask",)),
    "no conditions": ({"task": "interpolate"}, "failed_to_validate", ("conditions",)),
    "missing file": (
        {"task": "img2img", "prompt": "x", "image": _GONE, "strength": 1.0},
        "failed_to_load",
        ("image", "gone.png", "does not exist"),
    ),
    "not an image": (
        {"task": "img2img", "prompt": "x", "image": {"bytes": b"hello", "path": None}, "strength": 1.0},
        "failed_to_load",
        ("image", "inline bytes", "not an image"),
    ),
    "truncated image": (
        {"task": "inpaint", "prompt": "x", "image": _HALF, "mask": picture("white", "L")},
        "failed_to_load",
        ("image", "half.png", "truncated"),
    ),
    "missing condition": (
        {"task": "interpolate", "conditions": [{"text": "a", "weight": 0.5}, {"image": _GONE, "weight": 0.5}]},
        "failed_to_load",
        ("conditions", "gone.png", "does not exist"),
    ),
}

#: Bad rows sit among the good ones, some of them in one batch. The last has an id that another row has already.
ROWS: list[dict[str, Any]] = [
    *({"id": name, **columns} for name, columns in list(GOOD.items())[:8]),
    *({"id": name, **columns} for name, (columns, _, _) in BAD.items()),
    *({"id": name, **columns} for name, columns in list(GOOD.items())[8:]),
    {"id": "text-0", "task": "text2img", "prompt": "the id is taken"},
]
