"""What is in a picture, told by plain image statistics: no model, so an independent judge of what models draw.

The ground's colour is the named colour nearest to the middle value of the border. An object is found by comparing its
sprite, painted on that very ground, with every place of the picture at several sizes. Of the world's own pictures with
one object every one tested is told right; of those with two, nineteen in twenty have both as the two best matches (a
hat that hides half a robot's head is where it errs), so that is the most that can be asked of a model's.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from PIL import Image

from infra.demo_checkpoint.world.scenes import COLOURS, OBJECTS, Scene, sprites

Array = np.ndarray[Any, Any]

#: Height of the pictures that are compared, and the edges of sprites tried in them.
HEIGHT = 32
EDGES = (12, 14, 16, 18, 21, 24, 28)


def border_colour(picture: Array, width: int = 4) -> tuple[str, Array]:
    """Name of the ground's colour, and the border's median, float64 (3,).

    Args:
        picture: uint8 (height, width, 3).
        width: of the border in pixels.
    """
    edges = [picture[:width], picture[-width:], picture[:, :width], picture[:, -width:]]
    middle = np.median(np.concatenate([edge.reshape(-1, 3) for edge in edges]), axis=0)
    names = list(COLOURS)
    distances = [np.linalg.norm(middle - np.array(COLOURS[name])) for name in names]
    return names[int(np.argmin(distances))], middle


@functools.cache
def _templates(edge: int) -> Array:
    """The sprites at one size, float64 (objects, edge, edge, 4), alpha in [0, 1]."""
    small = [sprites()[name].resize((edge, edge), Image.Resampling.LANCZOS) for name in OBJECTS]
    templates = np.stack([np.asarray(sprite, np.float64) for sprite in small])
    templates[..., 3] /= 255
    return templates


def object_scores(picture: Array) -> dict[str, float]:
    """How well each object matches the best place of the picture: a correlation, 1 for a perfect match.

    Args:
        picture: uint8 (height, width, 3).
    """
    height, width, _ = picture.shape
    ground = border_colour(picture)[1]
    size = (round(width * HEIGHT / height), HEIGHT)
    small = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX), np.float64)
    best = np.full(len(OBJECTS), -1.0)
    for edge in EDGES:
        templates = _templates(edge)
        alpha = templates[..., 3:]
        painted = alpha * templates[..., :3] + (1 - alpha) * ground
        # One mean per colour channel, so that a wrong ground or a tint does not decide.
        painted -= painted.mean((1, 2), keepdims=True)
        patches = np.lib.stride_tricks.sliding_window_view(small, (edge, edge), (0, 1)).reshape(-1, 3, edge * edge)
        patches = patches - patches.mean(2, keepdims=True)
        flat, wanted = patches.reshape(len(patches), -1), painted.transpose(0, 3, 1, 2).reshape(len(OBJECTS), -1)
        lengths = np.linalg.norm(flat, axis=1)[:, None] * np.linalg.norm(wanted, axis=1)
        best = np.maximum(best, (flat @ wanted.T / np.maximum(lengths, 1e-6)).max(0))
    return dict(zip(OBJECTS, best.tolist(), strict=True))


def best_object(picture: Array) -> str:
    """The object that matches best; the picture is uint8 (height, width, 3)."""
    return best_objects(picture, 1).pop()


def best_objects(picture: Array, count: int) -> set[str]:
    """The `count` objects that match best; the picture is uint8 (height, width, 3)."""
    scores = object_scores(picture)
    return set(sorted(scores, key=scores.__getitem__)[-count:])


def sees_both(scene: Scene) -> bool:
    """True of a scene whose two objects it can be asked for: they stand on one named colour."""
    return len(scene.objects) == 2 and len(scene.ground) == 1 and scene.ground[0] in COLOURS
