"""The measures: what the judge sees in the images of an output, each with why it is fair.

The judge (`infra/demo_checkpoint/world/judge.py`) compares pictures with the sprites that the world is painted of; no
model has part in it, so a model that fools its own CLIP does not fool it. The world's own pictures it reads rightly.
The colour of the ground is told by the border, where no object stands; distances of pictures are mean levels of 255, as
eyes see them; what MoVQ alone costs is measured with MoVQ alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from infra.demo_checkpoint.world import captions, judge
from infra.demo_checkpoint.world.scenes import COLOURS
from tests.ray.conftest import images_of
from tests.semantics import requests

Array = np.ndarray[Any, Any]
#: A row of the index and its pixels, uint8 (height, width, 3).
Made = tuple[Mapping[str, Any], Array]


#: Mean levels of 255 that two pictures may differ by chance in their distance from a third one.
LEVELS = 4
#: What each measure must reach: below what was measured by a margin for other hardware's rounding.
LIMITS = {
    **{f"object asked for is the best match, {language}": 0.9 for language in captions.LANGUAGES},
    **{f"colour asked for is the border's, {language}": 0.95 for language in captions.LANGUAGES},
    "both objects of a pair are the two best matches": 0.6,
    "img2img at 0.3 is nearest to its own source": 0.8,
    "img2img moves away from its source with 0.3, 0.6, 1.0": 0.8,
    "inpaint: object asked for is the best match inside": 0.8,
    "inpaint: levels outside as MoVQ's own coding leaves them": -16.0,
    "inpaint: black polarity and inverted mask give the same image": 1.0,
    "interpolation begins and ends where it should": 0.85,
    "interpolation moves one way over five weights": 0.75,
    "match gained by guidance 4 over 1": 0.0,
    "share of the ground's colour lost to a negative prompt": 0.0,
    "the documents' cheeseburger is a hamburger or an alien": 0.75,
}


def made(output: Path) -> list[Made]:
    """Every image of an output; a row that has none is an error."""
    pixels = images_of(output)
    found = []
    for path in sorted(output.glob("*.parquet")):
        for row in pq.read_table(path).to_pylist():
            assert row["status"] == "success", row["error_message"]
            found.append((row, pixels[row["key"]]))
    return found


def _of(images: Iterable[Made], measure: str) -> list[Made]:
    return [(row, picture) for row, picture in images if row["measure"] == measure]


def _share(hits: Sequence[bool]) -> float:
    assert hits
    return float(np.mean(hits))


def best_objects(images: Iterable[Made]) -> dict[str, str]:
    """Id -> the object that matches best, of the rows with one object on one colour."""
    return {row["id"]: judge.best_object(p) for row, p in images if str(row["measure"]).startswith("single")}


def colour_share(picture: Array, colour: str) -> float:
    """Share of pixels that are nearer to a colour than to all others that have names."""
    table = np.array(list(COLOURS.values()), float)
    distances = ((picture.reshape(-1, 1, 3) - table) ** 2).sum(-1)
    return float((distances.argmin(1) == list(COLOURS).index(colour)).mean())


def _single(images: Sequence[Made]) -> dict[str, float]:
    result = {}
    for language in captions.LANGUAGES:
        chosen = _of(images, f"single {language}")
        result[f"object asked for is the best match, {language}"] = _share(
            [judge.best_object(picture) == row["expected"] for row, picture in chosen]
        )
        result[f"colour asked for is the border's, {language}"] = _share(
            [judge.border_colour(picture)[0] == row["ground"] for row, picture in chosen]
        )
    return result


def _pair(images: Sequence[Made]) -> dict[str, float]:
    chosen = _of(images, "pair")
    hits = [judge.best_objects(picture, 2) == set(row["expected"].split()) for row, picture in chosen]
    return {"both objects of a pair are the two best matches": _share(hits)}


def _img2img(images: Sequence[Made]) -> dict[str, float]:
    sources = [source.astype(float) for source in requests.sources()]

    def distances(picture: Array) -> list[float]:
        return [float(np.abs(picture - source).mean()) for source in sources]

    near = [int(np.argmin(distances(p))) == int(row["expected"]) for row, p in _of(images, "img2img near")]
    away = {(int(row["expected"]), row["strength"]): distances(p) for row, p in _of(images, "img2img")}
    grows = []
    for number in sorted({number for number, _ in away}):
        low, middle, high = (away[number, strength][number] for strength in requests.STRENGTHS)
        # Where nothing of the source is left, a picture is as far from it as any other.
        grows.append(low < middle < high + LEVELS)
    return {
        "img2img at 0.3 is nearest to its own source": _share(near),
        "img2img moves away from its source with 0.3, 0.6, 1.0": _share(grows),
    }


def _only_inside(picture: Array) -> Array:
    """The picture with nothing but its ground's colour outside the part that was repainted."""
    left, top, right, bottom = requests.REPAINT_BOX
    alone = np.empty_like(picture)
    alone[:] = judge.border_colour(picture)[1]
    alone[top:bottom, left:right] = picture[top:bottom, left:right]
    return alone


def _inpaint(images: Sequence[Made], round_trip: Mapping[int, Array]) -> dict[str, float]:
    left, _top, right, bottom = requests.REPAINT_BOX
    # Latent pixels at the edge belong to both sides.
    outside = np.ones((requests.EDGE, requests.EDGE), bool)
    outside[: bottom + 8, left - 8 : right + 8] = False
    canvases = requests.canvases()
    inside, beyond = [], []
    white = {row["id"].removeprefix("paint-"): picture for row, picture in _of(images, "inpaint")}
    for row, picture in _of(images, "inpaint"):
        number = int(row["id"].removeprefix("paint-"))
        inside.append(judge.best_object(_only_inside(picture)) == row["expected"])
        source, encoded = canvases[number][0].astype(float), round_trip[number].astype(float)
        beyond.append(float(np.abs(picture - source)[outside].mean()) - float(np.abs(encoded - source)[outside].mean()))
    black = [
        bool(np.array_equal(picture, white[row["id"].removeprefix("black-")]))
        for row, picture in _of(images, "inpaint black")
    ]
    return {
        "inpaint: object asked for is the best match inside": _share(inside),
        "inpaint: levels outside as MoVQ's own coding leaves them": -float(np.mean(beyond)),
        "inpaint: black polarity and inverted mask give the same image": _share(black),
    }


def _interpolate(images: Sequence[Made]) -> dict[str, float]:
    ways: dict[tuple[str, str, int], dict[float, float]] = {}
    for row, picture in _of(images, "interpolate"):
        start, end, weight = row["expected"].split()
        scores = judge.object_scores(picture)
        ways.setdefault((start, end, row["seed"]), {})[float(weight)] = scores[end] - scores[start]
    ends, rises = [], []
    for way in ways.values():
        values = [way[weight] for weight in requests.WEIGHTS]
        ends += [values[0] < 0, values[-1] > 0]
        rises.append(all(b > a - 0.05 for a, b in itertools.pairwise(values)))
    return {
        "interpolation begins and ends where it should": _share(ends),
        "interpolation moves one way over five weights": _share(rises),
    }


def _guidance(images: Sequence[Made]) -> dict[str, float]:
    def score(measure: str) -> float:
        return float(np.mean([judge.object_scores(p)[row["expected"]] for row, p in _of(images, measure)]))

    def share(measure: str) -> float:
        return float(np.mean([colour_share(picture, row["ground"]) for row, picture in _of(images, measure)]))

    return {
        "match gained by guidance 4 over 1": score("guidance 4") - score("guidance 1"),
        "share of the ground's colour lost to a negative prompt": share("guidance 4") - share("negative"),
    }


def _documents(images: Sequence[Made]) -> dict[str, float]:
    hits = [judge.best_object(picture) in row["expected"].split() for row, picture in _of(images, "documents")]
    return {"the documents' cheeseburger is a hamburger or an alien": _share(hits)}


def measure(images: Sequence[Made], round_trip: Mapping[int, Array]) -> dict[str, float]:
    """All measures by name.

    Args:
        images: of the manifest that `requests.write` makes.
        round_trip: what MoVQ makes of each canvas that is repainted, uint8 (128, 128, 3).
    """
    return {
        **_single(images),
        **_pair(images),
        **_img2img(images),
        **_inpaint(images, round_trip),
        **_interpolate(images),
        **_guidance(images),
        **_documents(images),
    }
