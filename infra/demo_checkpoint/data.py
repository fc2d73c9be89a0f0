"""What the UNet learns from, encoded once: latents, picture embeddings and the captions' hidden states."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import VQModel

from infra.demo_checkpoint import captions, clip, configs, movq, world
from infra.demo_checkpoint.tokens import Tokens


@dataclass
class Examples:
    """Encoded pictures of one size, n of them.

    Attributes:
        latents: float16 (n, 4, height / 8, width / 8).
        embeddings: float16 (n, width of CLIP), of the picture that the caption tells.
        pooled: float16 (n, width), of the captions by multilingual CLIP.
        hidden: float16 (n, tokens, width), its hidden states.
        boxes: int16 (n, 4), the part to repaint in latent pixels (top, left, bottom, right); 0 where there is none.
    """

    latents: torch.Tensor
    embeddings: torch.Tensor
    pooled: torch.Tensor
    hidden: torch.Tensor
    boxes: torch.Tensor


def load_movq(folder: Path) -> VQModel:
    """The trained MoVQ."""
    model = VQModel(**configs.MOVQ)
    model.load_state_dict(torch.load(folder / "movq.result"))
    return model.eval().requires_grad_(False)


def _repaint(rng: np.random.Generator) -> tuple[world.Scene, world.Scene, tuple[float, float, float, float]]:
    """A pair, the second object alone on any ground, and about where the second stands, as shares of the edges."""
    while True:
        scene = world.sample(rng)
        if len(scene.objects) == 2:
            break
    alone = world.Scene((scene.objects[1],), "", scene.ground if rng.random() < 0.5 else (str(rng.choice(list(world.COLOURS))),))
    if len(alone.ground) == 1 and alone.ground[0] not in world.SCENERIES:
        alone = world.Scene(alone.objects, "", alone.ground)
    else:
        alone = world.Scene(alone.objects, "", alone.ground, scene.split if len(alone.ground) == 2 else "")
    if scene.relation == "beside":
        return scene, alone, (0.1, 0.5, 0.9, 1.0)
    return scene, alone, ((0.0, 0.15, 0.5, 0.85) if scene.objects[1] in world.WORN else (0.0, 0.2, 0.5, 0.8))


@torch.no_grad()
def encode(
    count: int,
    rng: np.random.Generator,
    vq: VQModel,
    encoders: clip.Clip,
    tokens: Tokens,
    size: tuple[int, int] = (128, 128),
    repaint: bool = False,
) -> Examples:
    """Make examples.

    Args:
        count: how many.
        rng: draws them.
        vq, encoders, tokens: the trained stages.
        size: width and height of the pictures in pixels.
        repaint: a part shall be repainted, and the caption and the picture embedding tell that part alone.
    """
    width, height = size
    parts: list[list[torch.Tensor]] = []
    for start in range(0, count, 48):
        pictures, told, texts, boxes = [], [], [], []
        for _ in range(min(48, count - start)):
            if repaint:
                scene, alone, (top, left, bottom, right) = _repaint(rng)
                picture, one = world.render(scene, rng, width, height), world.render(alone, rng, width, height)
                edges = np.array([top * height, left * width, bottom * height, right * width]) / 8
                edges = np.round(edges + rng.integers(-1, 2, 4)).clip(0, [height // 8, width // 8] * 2)
                text = captions.caption(alone, rng) if rng.random() < 0.7 else captions.caption(scene, rng)
            else:
                scene = world.sample(rng)
                picture = one = world.render(scene, rng, width, height)
                edges, text = np.zeros(4), captions.caption(scene, rng)
            pictures.append(picture)
            told.append(one)
            texts.append(text)
            boxes.append(torch.from_numpy(edges).short())
        batch = tokens(texts)
        with torch.autocast("cpu", torch.bfloat16):
            latents = vq.encode(movq.to_pixels(np.stack(pictures))).latents
            embeddings = encoders.images(np.stack(told)) if width == height else encoders.images(_squares(told))
            pooled, hidden = encoders.multilingual(batch)
        parts.append([*(x.half() for x in (latents, embeddings, pooled, hidden)), torch.stack(boxes)])
    return Examples(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _squares(pictures: list[np.ndarray]) -> np.ndarray:
    """The middle squares, which is what CLIP sees of a picture."""
    height, width, _ = pictures[0].shape
    left = (width - height) // 2
    return np.stack([p[:, left : left + height] for p in pictures])
