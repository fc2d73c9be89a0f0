"""Stage 1, MoVQ: pictures to latents of 1/8 and back. Nothing is quantised, as in Kandinsky's pipelines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import VQModel
from PIL import Image

from infra.demo_checkpoint.configs import MOVQ, Budget
from infra.demo_checkpoint.training import Losses, Stage, quicken, random_numbers
from infra.demo_checkpoint.world import scenes

CROP, BATCH = 64, 4
#: From this part of the way on whole pictures, in batches half as large.
WHOLE_FROM = 0.85


def to_pixels(pictures: scenes.Array) -> torch.Tensor:
    """uint8 (n, height, width, 3) to float32 (n, 3, height, width) in [-1, 1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_picture(pixels: torch.Tensor) -> scenes.Array:
    """The way back: float32 (n, 3, height, width) to uint8 (n, height, width, 3)."""
    return ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


def pictures(rng: np.random.Generator, count: int, width: int = 128, height: int = 128) -> scenes.Array:
    """Random pictures of the world, uint8 (count, height, width, 3)."""
    return np.stack([scenes.render(scenes.sample(rng), rng, width, height) for _ in range(count)])


def _crops(rng: np.random.Generator) -> torch.Tensor:
    """Random crops, two of each picture."""
    result = []
    for picture in pictures(rng, BATCH // 2):
        for _ in range(2):
            y, x = rng.integers(0, 128 - CROP + 1, 2)
            result.append(picture[y : y + CROP, x : x + CROP])
    return to_pixels(np.stack(result))


def _loss(model: VQModel, x: torch.Tensor) -> Losses:
    x = x.contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        latents = model.quant_conv(model.encoder(x)).float()
        noisy = latents + 0.1 * torch.randn_like(latents)
        y = model.decoder(model.post_quant_conv(noisy), noisy).float()
    difference = y - x
    edges = (difference[..., 1:] - difference[..., :-1]).abs().mean()
    edges = edges + (difference[..., 1:, :] - difference[..., :-1, :]).abs().mean()
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    beyond = (latents.abs() - 3).clamp(min=0).mean()
    regular = 0.1 * (mean.square().mean() + (std - 1).square().mean() + beyond)
    return {
        "l1": difference.abs().mean(),
        "edges": edges,
        "regular": regular,
        "_mse": difference.detach().square().mean(),
    }


def reconstruct(model: VQModel, x: torch.Tensor) -> torch.Tensor:
    """Encode and decode as the pipelines do."""
    latents = model.encode(x).latents
    return model.decode(latents, force_not_quantize=True).sample


def train(folder: Path, budget: Budget) -> None:
    """Train; the result is `movq.result` in the folder, held-out pictures above their reconstructions `movq.png`."""
    random_numbers(1)
    model = quicken(VQModel(**MOVQ))
    model.quantize.requires_grad_(False)
    stage = Stage("movq", folder, model, steps=budget.movq, rate=1.5e-3, decay=0.995)
    held_out = pictures(np.random.default_rng(999), 24)

    def loss(step: int) -> Losses:
        whole = step >= WHOLE_FROM * budget.movq
        return _loss(model, to_pixels(pictures(stage.rng, BATCH // 2)) if whole else _crops(stage.rng))

    def measure() -> dict[str, float]:
        wanted = to_pixels(held_out)
        made = torch.cat([reconstruct(model, x) for x in wanted.split(8)]).clamp(-1, 1)
        psnr = -10 * torch.log10((made - wanted).square().mean((1, 2, 3)) / 4).mean()
        rows = [np.concatenate(list(some[i : i + 12]), 1) for i in (0, 12) for some in (held_out, to_picture(made))]
        Image.fromarray(np.concatenate(rows)).save(folder / "movq.png")
        return {"psnr": float(psnr)}

    stage.run(loss, measure, every=budget.told)
