"""Stage 4, the UNet: one of nine input channels learns to paint and to repaint.

Three samples in four are painted with mask and masked latents 0; the rest have a part to repaint. (In the pipeline the
mask is 1 where the picture is kept.) The text-to-image UNet is this one with the first four input channels.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from PIL import Image

from infra.demo_checkpoint import clip, configs, data, prior
from infra.demo_checkpoint.tokens import LENGTH
from infra.demo_checkpoint.training import Stage, quicken, random_numbers

BATCH = 16
STEPS = int(os.environ.get("UNET_STEPS", "5000"))
#: Examples that each process encodes: square, wide (every eighth batch) and with a part to repaint.
SQUARE, WIDE, REPAINT = (int(n) for n in os.environ.get("UNET_EXAMPLES", "7000,700,2000").split(","))
SAMPLES = (
    *("a cat on a red background", "a hamburger on a blue background", "ein Hut auf gelbem Hintergrund", "кот на зелёном фоне"),
    *("A alien cheeseburger creature eating itself, claymation, cinematic, moody lighting", "a photo of a cute red cat", "red cat, 4k photo"),
    *("a cat with a hat on a white background", "a cat wearing a hat", "a dog and a rocket on a purple background", "an apple above a tree"),
    *("a mountain landscape", "a night sky with stars", "a rocket under the stars", "ein Haus in den Bergen", "машина на чёрном фоне"),
    *("a guitar, oil painting, high quality", "a robot on the left, red above and blue below", "ein Pilz auf rosa Hintergrund", "пицца на оранжевом фоне"),
    *("a small fish on a blue background", "a butterfly", "a flower next to a ghost on a black ground", "a crown on a purple background"),
)


def conditions(pooled: torch.Tensor, hidden: torch.Tensor, embeddings: torch.Tensor) -> dict[str, object]:
    """The UNet's conditions; the last hidden state, which is padding, is repeated to 77."""
    states = torch.cat([hidden, hidden[:, -1:].expand(-1, 77 - hidden.shape[1], -1)], 1)
    return {"encoder_hidden_states": states, "added_cond_kwargs": {"text_embeds": pooled, "image_embeds": embeddings}}


class Nothing:
    """What stands for no condition: the zero picture's embedding, and the states of captions that say nothing."""

    def __init__(self, encoders: clip.Clip, tokens: object, rng: np.random.Generator) -> None:
        texts = ["", *(clip.captions.says_nothing(rng) for _ in range(199))]
        with torch.no_grad():
            self.embedding = encoders.vision(pixel_values=torch.zeros(1, 3, 224, 224)).image_embeds[0]
            self.pooled, self.hidden = encoders.multilingual(tokens(texts))


def _keep(boxes: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """(n, 1, height, width): 0 in the box, 1 outside; all 0 where the box is empty, as nothing is to keep."""
    y, x = torch.arange(height)[None, :, None], torch.arange(width)[None, None, :]
    top, left, bottom, right = (boxes[:, i, None, None].long() for i in range(4))
    inside = (y >= top) & (y < bottom) & (x >= left) & (x < right)
    return (~inside & (bottom > top)).float()[:, None]


def _random_boxes(count: int, height: int, width: int, rng: np.random.Generator) -> torch.Tensor:
    sides = np.stack([rng.integers(height // 4, height * 7 // 8, count), rng.integers(width // 4, width * 7 // 8, count)], 1)
    corner = rng.integers(0, np.array([height, width]) - sides + 1)
    return torch.from_numpy(np.concatenate([corner, corner + sides], 1)).short()


def train(folder: Path) -> None:
    """Train; the result is `unet.result` in the folder, samples in `unet.png`."""
    encoders, tokens = clip.load(folder)
    vq = data.load_movq(folder)
    rng = random_numbers(6)
    square = data.encode(SQUARE, rng, vq, encoders, tokens)
    wide = data.encode(WIDE, rng, vq, encoders, tokens, (192, 128))
    repaint = data.encode(REPAINT, rng, vq, encoders, tokens, repaint=True)
    print("encoded; latents' deviation", square.latents.float().std((0, 2, 3)), flush=True)
    nothing = Nothing(encoders, tokens, rng)
    model = quicken(UNet2DConditionModel(**configs.UNET))
    stage = Stage("unet", folder, model, STEPS, 1e-3, 0.998)
    schedule = DDIMScheduler(**{k: v for k, v in configs.DDIM.items() if k[0] != "_"})
    kept = schedule.alphas_cumprod

    def loss(step: int) -> dict[str, torch.Tensor]:
        if step % 8 == 7:
            batch = _pick(wide, rng.integers(0, WIDE, BATCH * 2 // 3))
        else:
            a, b = _pick(square, rng.integers(0, SQUARE, BATCH - 3)), _pick(repaint, rng.integers(0, REPAINT, 3))
            batch = [torch.cat(both) for both in zip(a, b, strict=True)]
        x0, embeddings, pooled, hidden, boxes = batch
        n, _, height, width = x0.shape
        at_random = (boxes[:, 2] == 0) & torch.from_numpy(rng.random(n) < 0.12)
        boxes = torch.where(at_random[:, None], _random_boxes(n, height, width, rng), boxes)
        keep = _keep(boxes, height, width)
        u = torch.from_numpy(rng.random(n))[:, None]
        embeddings = torch.where((u < 0.15), nothing.embedding, embeddings)
        no_text = (u < 0.10) | ((u >= 0.15) & (u < 0.25))
        silent = torch.from_numpy(rng.integers(0, len(nothing.pooled), n) * (rng.random(n) < 0.5))
        pooled = torch.where(no_text, nothing.pooled[silent], pooled)
        hidden = torch.where(no_text[..., None], nothing.hidden[silent], hidden)
        t = torch.from_numpy(rng.integers(0, 1000, n))
        alpha = kept[t][:, None, None, None]
        noise = torch.randn_like(x0)
        noisy = alpha.sqrt() * x0 + (1 - alpha).sqrt() * noise
        with torch.autocast("cpu", torch.bfloat16):
            made = model(torch.cat([noisy, x0 * keep, keep], 1), t, **conditions(pooled, hidden, embeddings)).sample
        ratio = alpha / (1 - alpha)
        weight = ratio.clamp(max=5) / ratio
        return {"mse": (weight * (made[:, :4].float() - noise).square()).mean()}

    def measure(step: int) -> dict[str, float]:
        made = sample(model, vq, encoders, tokens, prior.load(folder, encoders), nothing)
        rows = [np.concatenate(list(made[i : i + 8]), 1) for i in range(0, len(made), 8)]
        Image.fromarray(np.concatenate(rows)).save(folder / "unet.png")
        return {}

    stage.run(loss, measure, every=250)


def _pick(examples: data.Examples, chosen: np.ndarray) -> list[torch.Tensor]:
    names = ("latents", "embeddings", "pooled", "hidden")
    return [*(getattr(examples, name)[chosen].float() for name in names), examples.boxes[chosen]]


@torch.no_grad()
def sample(model, vq, encoders, tokens, prior_model, nothing: Nothing, steps: int = 12, guidance: float = 4.0) -> np.ndarray:  # type: ignore[no-untyped-def]
    """Pictures uint8 (n, 128, 128, 3) of `SAMPLES`, from the caption to the picture as the pipelines do."""
    batch = tokens(list(SAMPLES))
    embeddings = prior.generate(prior_model, encoders, tokens(list(SAMPLES), 77))
    pooled, hidden = encoders.multilingual(batch)
    n = len(SAMPLES)
    none = (nothing.pooled[:1].expand(n, -1), nothing.hidden[:1].expand(n, -1, -1), nothing.embedding.expand(n, -1))
    both = [torch.cat([a, b]) for a, b in zip(none, (pooled, hidden, embeddings), strict=True)]
    schedule = DDIMScheduler(**{k: v for k, v in configs.DDIM.items() if k[0] != "_"})
    schedule.set_timesteps(steps)
    x = torch.randn((n, 4, 16, 16), generator=torch.Generator().manual_seed(1))
    for t in schedule.timesteps:
        given = torch.cat([x, torch.zeros(n, 5, 16, 16)], 1)
        with torch.autocast("cpu", torch.bfloat16):
            made = model(torch.cat([given, given]), t, **conditions(*both)).sample[:, :4].float()
        free, led = made.chunk(2)
        x = schedule.step(free + guidance * (led - free), t, x).prev_sample
    y = torch.cat([vq.decode(part, force_not_quantize=True).sample for part in x.split(8)]).clamp(-1, 1)
    return ((y + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


__all__ = ["LENGTH", "sample", "train"]
