"""The manifest of the semantic measures: what is asked for, with the answer that a judge can look for.

Prompts are drawn from the world's grammar with seeds that training has not used. `expected` and the other columns after
the request schema's travel to the output, so the measures need the output alone.
"""

from __future__ import annotations

import io
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from infra.demo_checkpoint.world import captions, judge, scenes
from infra.demo_pictures import EDGE, box_mask
from manifests.requests.schema import REQUEST_FIELDS

Row = dict[str, Any]

COMMON: Row = {"height": 128, "width": 128, "steps": 8, "prior_steps": 5}
SINGLES, PAIRS, SOURCES, REPAINTED, GUIDED, BURGERS = 50, 100, 18, 20, 9, 20
#: So many of them are enough for a test.
FEW_SINGLES, FEW_PAIRS, FEW_SOURCES, FEW_BURGERS = 12, 20, 6, 4
STRENGTHS = (0.3, 0.6, 1.0)
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
#: What is repainted: the upper middle, left, top, right and bottom in pixels.
REPAINT_BOX = (22, 0, 106, 64)
#: Columns that travel: which measure a row belongs to, and what must be seen.
TRAVELLING = [pa.field("measure", pa.string()), pa.field("expected", pa.string()), pa.field("ground", pa.string())]


def png(picture: scenes.Array | Image.Image) -> Row:
    """An inline image as a manifest column holds it."""
    sink = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(sink, "PNG")
    return {"bytes": sink.getvalue(), "path": None}


def _scene(rng: np.random.Generator, colour: str) -> scenes.Scene:
    return scenes.Scene((str(rng.choice(scenes.OBJECTS)),), "", (colour,))


def singles() -> list[Row]:
    """One object on one colour, in each language."""
    rows = []
    for language in captions.LANGUAGES:
        rng = np.random.default_rng([2026, captions.LANGUAGES.index(language)])
        for number in range(SINGLES):
            scene = scenes.Scene(
                (scenes.OBJECTS[number % len(scenes.OBJECTS)],), "", (str(rng.choice(list(scenes.COLOURS))),)
            )
            text, ground_told = captions.told(scene, rng, language)
            while not ground_told:
                text, ground_told = captions.told(scene, rng, language)
            rows.append(
                {
                    "id": f"single-{language}-{number}",
                    "prompt": text,
                    "measure": f"single {language}",
                    "expected": scene.objects[0],
                    "ground": scene.ground[0],
                }
            )
    return rows


def pairs() -> list[Row]:
    """Two objects, in English."""
    rng, rows = np.random.default_rng(2027), []
    while len(rows) < PAIRS:
        scene = scenes.sample(rng)
        if not judge.sees_both(scene):
            continue
        said = {"expected": " ".join(scene.objects), "ground": scene.ground[0], "measure": "pair"}
        rows.append({"id": f"pair-{len(rows)}", "prompt": captions.caption(scene, rng, "en"), **said})
    return rows


def sources() -> list[scenes.Array]:
    """Pictures of an object each on seven colours and black, uint8 (128, 128, 3)."""
    rng = np.random.default_rng(2028)
    objects = [*scenes.OBJECTS[1::4], *scenes.OBJECTS[3::4], *scenes.OBJECTS[0::4]]
    kinds = zip(objects, itertools.cycle(colour for colour in scenes.COLOURS if colour != "white"), strict=False)
    return [scenes.render(scenes.Scene((name,), "", (colour,)), rng) for name, colour in kinds]


def image_to_image(numbers: range) -> list[Row]:
    """Each source of these numbers with a prompt that asks for something else.

    At the lowest strength the ground is left to the source. At three strengths one is asked for that no source has:
    where nobody asks for any, a picture at strength 1 has one by chance, and so may come near its source again.
    """
    rows = []
    near = {"measure": "img2img near", "prompt": "a house, oil painting"}
    away = {"measure": "img2img", "prompt": "a house on a white background, oil painting"}
    pictures = sources()
    for number in numbers:
        given = {"task": "img2img", "image": png(pictures[number]), "expected": str(number)}
        rows.append({"id": f"near-{number}", "strength": min(STRENGTHS), **near, **given})
        rows += [{"id": f"from-{number}-{strength}", "strength": strength, **away, **given} for strength in STRENGTHS]
    return rows


def canvases() -> list[tuple[scenes.Array, str]]:
    """Pictures of one object with room above it, and what shall be painted there."""
    rng, found = np.random.default_rng(2029), []
    colours = list(scenes.COLOURS)
    below = [name for name in scenes.OBJECTS if name not in scenes.WORN]
    for number in range(REPAINTED):
        canvas = Image.new("RGB", (EDGE, EDGE), scenes.COLOURS[colours[number % len(colours)]])
        base = str(rng.choice(below))
        scenes.paste(canvas, base, (0.5 * EDGE, 0.73 * EDGE), 0.46 * EDGE)
        wanted = str(rng.choice([name for name in scenes.OBJECTS if name != base]))
        found.append((np.asarray(canvas), wanted))
    return found


def mask(inside: int) -> Image.Image:
    """`REPAINT_BOX` of value `inside`, 0 or 255, on the other one."""
    left, top, right, bottom = REPAINT_BOX
    return box_mask((left, top, right - 1, bottom - 1), inside)


def inpainting() -> list[Row]:
    """Something painted above an object; three of them again with black for what to repaint."""
    rows = []
    for number, (picture, wanted) in enumerate(canvases()):
        given = {"task": "inpaint", "prompt": f"a {wanted}", "image": png(picture), "seed": 500 + number}
        # The prompt knows nothing of the ground, so strong guidance pulls at it outside of the mask too.
        given["guidance_scale"] = 2.0
        rows.append(
            {"id": f"paint-{number}", "measure": "inpaint", "expected": wanted, "mask": png(mask(255)), **given}
        )
        if number < 3:
            other = {"mask": png(mask(0)), "mask_polarity": "black"}
            rows.append({"id": f"black-{number}", "measure": "inpaint black", "expected": wanted, **other, **given})
    return rows


def interpolations() -> list[Row]:
    """From one text to another in five steps, each of two pairs with two seeds."""
    rows = []
    for start, end in (("cat", "hat"), ("rocket", "apple")):
        for seed in (1, 2):
            for weight in WEIGHTS:
                conditions = [
                    {"text": f"a {start} on a white background", "image": None, "weight": 1 - weight},
                    {"text": f"a{'n' if end == 'apple' else ''} {end} on a white background", "image": None}
                    | {"weight": weight},
                ]
                given = {"task": "interpolate", "prompt": "", "conditions": conditions, "seed": seed}
                said = {"measure": "interpolate", "expected": f"{start} {end} {weight}"}
                rows.append({"id": f"mix-{start}-{seed}-{weight}", **said, **given})
    return rows


def guided() -> list[Row]:
    """The same prompts with and without guidance, and with and without a negative prompt that names the ground."""
    rng, rows = np.random.default_rng(2031), []
    for number in range(GUIDED):
        colour = list(scenes.COLOURS)[number % len(scenes.COLOURS)]
        scene = _scene(rng, colour)
        text = captions.plain_caption(scene.objects[0], colour, "en")
        said = {"prompt": text, "expected": scene.objects[0], "ground": colour, "seed": 700 + number}
        rows.append({"id": f"led-{number}", "measure": "guidance 4", **said})
        rows.append({"id": f"free-{number}", "measure": "guidance 1", "guidance_scale": 1.0, **said})
        negative = {"negative_prompt": f"{colour} background"}
        rows.append({"id": f"not-{number}", "measure": "negative", **negative, **said})
    return rows


def documents(seeds: range) -> list[Row]:
    """The documents' own words with each of these seeds."""
    words = "A alien cheeseburger creature eating itself, claymation, cinematic, moody lighting"
    common = {"measure": "documents", "negative_prompt": "low quality, bad quality", "prior_guidance_scale": 1.0}
    return [
        {"id": f"cheeseburger-{seed}", "prompt": words, "expected": "hamburger alien", "seed": seed, **common}
        for seed in seeds
    ]


def rows(few: bool = False) -> list[Row]:
    """All requests, or those that are enough for a test; each has the same seed in both."""
    one, two = singles(), pairs()
    asked = [*one, *two[:FEW_PAIRS], *image_to_image(range(FEW_SOURCES)), *inpainting(), *interpolations(), *guided()]
    asked += documents(range(FEW_BURGERS))
    more = [*two[FEW_PAIRS:], *image_to_image(range(FEW_SOURCES, SOURCES)), *documents(range(FEW_BURGERS, BURGERS))]
    found = [{"task": "text2img", "seed": number, **COMMON, **row} for number, row in enumerate([*asked, *more])]
    left_out = {f"single-{language}-{i}" for language in captions.LANGUAGES for i in range(FEW_SINGLES, SINGLES)}
    left_out |= {row["id"] for row in more}
    return [row for row in found if not few or row["id"] not in left_out]


def write(path: Path, few: bool = False) -> Path:
    """The manifest of `rows` as a Parquet file."""
    schema = pa.schema([*REQUEST_FIELDS, *TRAVELLING])
    pq.write_table(pa.Table.from_pylist(rows(few), schema), path)
    return path
