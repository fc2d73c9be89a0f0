"""The world that the demo checkpoint knows: what a picture holds, and how it is painted. Pillow and NumPy only.

A scene has no, one or two objects (emoji) on a ground: one named colour, two, or a scenery. `sample` draws a scene,
`render` paints it; `captions` puts it into words, `judge` recognises it.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

Array = np.ndarray[Any, Any]

#: Edge of a sprite in pixels.
SPRITE = 128
SHEET = Path(__file__).parent / "sprites.webp"
OBJECTS = (
    *("cat", "dog", "frog", "bird", "fish", "butterfly", "alien", "robot", "ghost", "hat", "crown", "hamburger"),
    *("pizza", "apple", "banana", "cake", "mushroom", "tree", "flower", "car", "rocket", "boat", "house", "guitar"),
)
COLOURS = {
    "red": (205, 40, 40),
    "orange": (245, 140, 30),
    "yellow": (245, 220, 60),
    "green": (50, 150, 60),
    "blue": (50, 95, 210),
    "purple": (125, 55, 165),
    "pink": (245, 150, 190),
    "white": (240, 240, 240),
    "black": (25, 25, 25),
}
SCENERIES = ("night", "mountains")
#: What is worn sits on the head of what wears it.
WORN = ("hat", "crown")
#: Share of scenes with two objects, where nothing else is asked for. There are 552 ordered pairs, beside or above.
PAIRS = 0.5
PLACES = ("left", "right", "top", "bottom")
SIZES = ("small", "big")


@dataclass(frozen=True)
class Scene:
    """What a picture holds, as far as words tell it.

    Attributes:
        objects: none, one or two of `OBJECTS`.
        relation: of two objects; `on`: the second is above the first, `beside`: right of it.
        ground: one or two of `COLOURS`, or one of `SCENERIES`.
        split: of two colours; `rows`: the first is above, `columns`: the first is on the left.
        place, size: of a single object, where words tell them; else "".
        tint: colour that a single object is painted in, or "" for its own.
    """

    objects: tuple[str, ...]
    relation: str = ""
    ground: tuple[str, ...] = ("white",)
    split: str = ""
    place: str = ""
    size: str = ""
    tint: str = ""


def sample(rng: np.random.Generator, pairs: float = PAIRS) -> Scene:
    """A random scene.

    Args:
        rng: draws it.
        pairs: share of scenes with two objects, at most 0.9; of the rest most have one and few have none.
    """
    names = list(COLOURS)
    split, u = "", rng.random()
    if u < 0.12:
        ground: tuple[str, ...] = (SCENERIES[rng.integers(2)],)
    elif u < 0.22:
        ground = tuple(str(c) for c in rng.choice(names, 2, replace=False))
        split = "rows" if rng.random() < 0.5 else "columns"
    else:
        ground = (str(rng.choice(names)),)
    u = rng.random()
    if u < pairs:
        first, second = (str(o) for o in rng.choice(OBJECTS, 2, replace=False))
        if rng.random() < 0.3:  # something worn, as people ask for it
            second = WORN[rng.random() < 0.3]
            first = str(rng.choice([o for o in OBJECTS if o not in WORN]))
        above = second in WORN or rng.random() < 0.4
        if first in WORN:
            first, second = second, first
            above = first not in WORN
        return Scene((first, second), "on" if above else "beside", ground, split)
    if u < pairs + 0.05 or (ground[0] in SCENERIES and u < min(pairs + 0.32, 0.95)):
        return Scene((), "", ground, split)
    place = str(rng.choice(PLACES)) if rng.random() < 0.12 else ""
    size = str(rng.choice(SIZES)) if rng.random() < 0.15 else ""
    tint = str(rng.choice([c for c in names if c not in (*ground, "white")])) if rng.random() < 0.08 else ""
    return Scene((str(rng.choice(OBJECTS)),), "", ground, split, place, size, tint)


@functools.cache
def sprites() -> dict[str, Image.Image]:
    """The objects as RGBA squares of `SPRITE` pixels, from the sheet."""
    sheet = Image.open(SHEET).convert("RGBA")
    return {name: sheet.crop((SPRITE * i, 0, SPRITE * (i + 1), SPRITE)) for i, name in enumerate(OBJECTS)}


def _tinted(sprite: Image.Image, tint: str) -> Image.Image:
    """The sprite in shades of one colour."""
    grey = np.asarray(sprite.convert("L"), np.float32)[..., None] / 255
    colour = np.array(COLOURS[tint], np.float32)
    shaded = np.where(grey < 0.5, colour * grey * 2, colour + (255 - colour) * (grey - 0.5) * 1.2)
    painted = Image.fromarray(shaded.clip(0, 255).astype(np.uint8)).convert("RGBA")
    painted.putalpha(sprite.getchannel("A"))
    return painted


def paste(canvas: Image.Image, name: str, centre: tuple[float, float], edge: float, tint: str = "") -> None:
    """Paint one object onto an RGB canvas: its centre and its edge in pixels."""
    sprite = sprites()[name]
    if tint:
        sprite = _tinted(sprite, tint)
    pixels = max(8, round(edge))
    small = sprite.resize((pixels, pixels), Image.Resampling.BICUBIC, reducing_gap=2.0)
    canvas.paste(small, (round(centre[0] - pixels / 2), round(centre[1] - pixels / 2)), small)


def _shade(colour: tuple[int, ...], rng: np.random.Generator, spread: float = 9.0) -> tuple[int, ...]:
    return tuple(int(v) for v in np.clip(np.array(colour) + rng.normal(0, spread, 3), 0, 255))


def _night(width: int, height: int, rng: np.random.Generator) -> Image.Image:
    """Dark blue, lighter towards the horizon, with stars and mostly a crescent moon."""
    rows = np.linspace(0, 1, height)[:, None, None]
    top, bottom = np.array([8, 10, 45]), np.array([40, 45, 110])
    sky = np.broadcast_to(top + (bottom - top) * rows, (height, width, 3))
    canvas = Image.fromarray(sky.astype(np.uint8))
    draw = ImageDraw.Draw(canvas)
    for _ in range(rng.integers(18, 30) * width // height):
        x, y, r = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0.6, 2.0) * height / 128
        draw.ellipse((x - r, y - r, x + r, y + r), fill=(255, 250, 210))
    if rng.random() < 0.7:
        r = height * rng.uniform(0.08, 0.11)
        x, y = width * rng.choice([0.18, 0.82]), height * 0.17
        draw.ellipse((x - r, y - r, x + r, y + r), fill=(255, 235, 150))
        draw.ellipse((x - r * 0.4, y - r * 1.2, x + r * 1.4, y + r * 0.8), fill=(12, 14, 55))
    return canvas


def _mountains(width: int, height: int, rng: np.random.Generator) -> Image.Image:
    """Two or three snowy peaks under a light sky, green meadows in front, sometimes a sun."""
    rows = np.linspace(0, 1, height)[:, None, None]
    top, bottom = np.array([110, 175, 240]), np.array([225, 240, 250])
    canvas = Image.fromarray(np.broadcast_to(top + (bottom - top) * rows, (height, width, 3)).astype(np.uint8))
    draw = ImageDraw.Draw(canvas)
    if rng.random() < 0.5:
        r, x, y = height * 0.09, width * rng.choice([0.15, 0.85]), height * 0.16
        draw.ellipse((x - r, y - r, x + r, y + r), fill=(255, 225, 90))
    base = height * rng.uniform(0.7, 0.78)
    for x in rng.permutation([0.2, 0.55, 0.85])[: rng.integers(2, 4)]:
        peak, x = base - height * rng.uniform(0.35, 0.55), width * (x + rng.uniform(-0.08, 0.08))
        half = (base - peak) * rng.uniform(0.75, 0.95)
        draw.polygon([(x - half, base), (x, peak), (x + half, base)], fill=_shade((105, 115, 140), rng))
        cap = 0.3
        snow = [(x - half * cap, peak + (base - peak) * cap), (x, peak), (x + half * cap, peak + (base - peak) * cap)]
        draw.polygon(snow, fill=(245, 248, 252))
    draw.rectangle((0, base, width, height), fill=_shade((75, 150, 70), rng))
    return canvas


def ground(scene: Scene, rng: np.random.Generator, width: int = 128, height: int = 128) -> Image.Image:
    """The scene's ground alone, RGB."""
    if scene.ground[0] == "night":
        return _night(width, height, rng)
    if scene.ground[0] == "mountains":
        return _mountains(width, height, rng)
    canvas = Image.new("RGB", (width, height), _shade(COLOURS[scene.ground[0]], rng))
    if len(scene.ground) == 2:
        cut = rng.uniform(0.4, 0.6)
        box = (
            (0, round(height * cut), width, height) if scene.split == "rows" else (round(width * cut), 0, width, height)
        )
        canvas.paste(_shade(COLOURS[scene.ground[1]], rng), box)
    return canvas


def _place_pair(
    scene: Scene, rng: np.random.Generator, width: int, height: int
) -> list[tuple[str, tuple[float, float], float]]:
    first, second = scene.objects
    x, y = width / 2 + rng.normal(0, 0.03) * width, height / 2 + rng.normal(0, 0.02) * height
    if scene.relation == "beside":
        edge, apart = height * rng.uniform(0.42, 0.5), rng.uniform(0.23, 0.26)
        apart *= min(width, height * 1.25)
        return [
            (first, (x - apart, y + rng.normal(0, 0.04) * height), edge),
            (second, (x + apart, y + rng.normal(0, 0.04) * height), edge * rng.uniform(0.9, 1.1)),
        ]
    if second in WORN:
        edge = height * rng.uniform(0.52, 0.6)
        worn = edge * rng.uniform(0.68, 0.78)
        return [(first, (x, height * 0.66), edge), (second, (x, height * 0.66 - edge * 0.42 - worn * 0.28), worn)]
    edge = height * rng.uniform(0.42, 0.5)
    return [(first, (x, height * 0.73), edge), (second, (x, height * 0.27), edge * rng.uniform(0.9, 1.05))]


def render(scene: Scene, rng: np.random.Generator, width: int = 128, height: int = 128) -> Array:
    """Paint a scene.

    Args:
        scene: what to paint.
        rng: draws what words do not tell: shades, small shifts, where the stars are.
        width, height: pixels.

    Returns:
        uint8 (height, width, 3).
    """
    canvas = ground(scene, rng, width, height)
    if len(scene.objects) == 2:
        for name, centre, edge in _place_pair(scene, rng, width, height):
            paste(canvas, name, centre, edge)
    elif scene.objects:
        low, high = {"small": (0.34, 0.44), "big": (0.8, 0.92), "": (0.55, 0.78)}[scene.size]
        edge = height * rng.uniform(low, high)
        if scene.place:
            edge = min(edge, 0.55 * height)
        x, y = width / 2 + rng.normal(0, 0.035) * width, height / 2 + rng.normal(0, 0.035) * height
        margin = edge / 2 + 0.04 * height
        x = {"left": margin, "right": width - margin}.get(scene.place, x)
        y = {"top": margin, "bottom": height - margin}.get(scene.place, y)
        paste(canvas, scene.objects[0], (x, y), edge, scene.tint)
    return np.asarray(canvas)
