"""What the UNet learns from, encoded once: latents, picture embeddings and the captions' hidden states."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import VQModel

from infra.demo_checkpoint import clip, configs, movq
from infra.demo_checkpoint.world import captions, scenes
from infra.demo_checkpoint.world.tokens import Tokens

#: Pictures that are encoded at a time.
CHUNK = 48


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

    def pick(self, count: int, rng: np.random.Generator) -> list[torch.Tensor]:
        """A batch: the attributes in their order, float32 but for the boxes."""
        chosen = torch.from_numpy(rng.integers(0, len(self.latents), count))
        floats = (self.latents, self.embeddings, self.pooled, self.hidden)
        return [*(x[chosen].float() for x in floats), self.boxes[chosen]]


@dataclass(frozen=True)
class Trained:
    """The parts that the UNet stands on."""

    movq: VQModel
    encoders: clip.Clip
    tokens: Tokens


def load(folder: Path) -> Trained:
    """The trained MoVQ, encoders and tokenizers."""
    vq = VQModel(**configs.MOVQ)
    vq.load_state_dict(torch.load(folder / "movq.result"))
    return Trained(vq.eval().requires_grad_(False), *clip.load(folder))


def repainting(rng: np.random.Generator) -> tuple[scenes.Scene, scenes.Scene, tuple[float, float, float, float]]:
    """What repainting is asked for: a pair, its second object alone, and where that stands in the pair.

    The object alone has the pair's ground or any other: the prompt "a hat" knows nothing of the picture that the hat
    goes into. The place is top, left, bottom and right as shares of the edges.
    """
    scene = scenes.sample(rng)
    while len(scene.objects) != 2:
        scene = scenes.sample(rng)
    second = scene.objects[1]
    if rng.random() < 0.5:
        alone = scenes.Scene((second,), "", scene.ground, scene.split)
    else:
        alone = scenes.Scene((second,), "", (str(rng.choice(list(scenes.COLOURS))),))
    if scene.relation == "beside":
        return scene, alone, (0.1, 0.5, 0.9, 1.0)
    return scene, alone, (0.0, 0.17, 0.5, 0.83)


def _squares(pictures: list[scenes.Array]) -> scenes.Array:
    """The middle squares, which is what CLIP sees of pictures."""
    height, width, _ = pictures[0].shape
    left = (width - height) // 2
    return np.stack([picture[:, left : left + height] for picture in pictures])


@torch.no_grad()
def encode(
    count: int,
    rng: np.random.Generator,
    parts: Trained,
    *,
    width: int = 128,
    height: int = 128,
    repaint: bool = False,
) -> Examples:
    """Make examples.

    Args:
        count: how many.
        rng: draws them.
        parts: the trained stages.
        width, height: of the pictures in pixels.
        repaint: a part shall be repainted, and caption and picture embedding tell that part alone.
    """
    columns: list[list[torch.Tensor]] = []
    edges = np.array([height, width, height, width]) / 8
    for start in range(0, count, CHUNK):
        pictures, told, texts, boxes = [], [], [], []
        for _ in range(min(CHUNK, count - start)):
            box = np.zeros(4)
            scene = alone = scenes.sample(rng)
            if repaint:
                scene, alone, place = repainting(rng)
                box = np.round(np.array(place) * edges + rng.integers(-1, 2, 4)).clip(0, edges)
            pictures.append(scenes.render(scene, rng, width, height))
            told.append(scenes.render(alone, rng, width, height) if repaint else pictures[-1])
            texts.append(captions.caption(alone if rng.random() < 0.7 else scene, rng))
            boxes.append(torch.from_numpy(box).short())
        latents = parts.movq.encode(movq.to_pixels(np.stack(pictures))).latents
        pooled, hidden = parts.encoders.multilingual(parts.tokens(texts))
        embeddings = parts.encoders.images(_squares(told))
        columns.append([*(x.half() for x in (latents, embeddings, pooled, hidden)), torch.stack(boxes)])
    return Examples(*(torch.cat(column) for column in zip(*columns, strict=True)))
