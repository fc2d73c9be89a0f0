"""Stage 3, the prior: from a caption's CLIP embedding and hidden states to a picture's embedding."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from diffusers import PriorTransformer, UnCLIPScheduler
from torch.nn import functional

from infra.demo_checkpoint import captions, clip, configs, world
from infra.demo_checkpoint.tokens import LENGTH, Tokens
from infra.demo_checkpoint.training import Stage, random_numbers

BATCH = 96
STEPS = int(os.environ.get("PRIOR_STEPS", "1500"))
#: Pictures whose embeddings are made once, each with fresh captions every time it is taken.
CACHED = int(os.environ.get("PRIOR_CACHED", "6000"))
#: Share of captions that say nothing, for guidance and negative prompts.
EMPTY = 0.12


class ShortPrior(PriorTransformer):
    """The prior on the first `LENGTH` of its 77 text positions: masked positions change nothing, so it is the same."""

    def forward(self, *arguments: object, **settings: object) -> object:
        """As PriorTransformer, with the positions in the middle left out."""
        whole, mask = self.positional_embedding, self.causal_attention_mask
        short = torch.cat([whole[:, :LENGTH], whole[:, 77:]], 1)
        keep = [*range(LENGTH), *range(77, 81)]
        del self._parameters["positional_embedding"]
        self.positional_embedding = short
        self._buffers["causal_attention_mask"] = mask[:, keep][:, :, keep]
        try:
            return super().forward(*arguments, **settings)
        finally:
            del self.positional_embedding
            self._parameters["positional_embedding"] = whole
            self._buffers["causal_attention_mask"] = mask


def scheduler() -> UnCLIPScheduler:
    """The prior's noise schedule."""
    return UnCLIPScheduler(variance_type="fixed_small_log", prediction_type="sample", clip_sample_range=10.0)


@torch.no_grad()
def generate(
    model: torch.nn.Module, encoders: clip.Clip, batch: dict[str, torch.Tensor], steps: int = 10, seed: int = 0
) -> torch.Tensor:
    """Embeddings (n, width) sampled for captions, without guidance."""
    texts, hidden = encoders.texts(batch)
    schedule = scheduler()
    schedule.set_timesteps(steps)
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(texts.shape, generator=rng)
    times = schedule.timesteps
    for i, t in enumerate(times):
        x0 = model(x, t, texts, hidden, batch["clip_mask"].bool()).predicted_image_embedding
        previous = None if i + 1 == len(times) else times[i + 1]
        x = schedule.step(x0, t, x, generator=rng, prev_timestep=previous).prev_sample
    return x * encoders.std + encoders.mean


def train(folder: Path) -> None:
    """Train; the result is `prior.result` in the folder."""
    encoders, tokens = clip.load(folder)
    rng = random_numbers(4)
    scenes = [world.sample(rng) for _ in range(CACHED)]
    with torch.no_grad():
        groups = [scenes[i : i + 96] for i in range(0, CACHED, 96)]
        embeddings = torch.cat([encoders.images(np.stack([world.render(s, rng) for s in g])) for g in groups])
    model = ShortPrior(**configs.PRIOR)
    for name in ("clip_mean", "clip_std"):
        getattr(model, name).requires_grad_(False)
    stage = Stage("prior", folder, model, STEPS, 1.5e-3, 0.99)
    kept = scheduler().alphas_cumprod

    def loss(step: int) -> dict[str, torch.Tensor]:
        chosen = rng.integers(0, CACHED, BATCH)
        batch = _captions(tokens, scenes, chosen, rng)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            texts, hidden = encoders.texts(batch)
        x0 = (embeddings[chosen] - encoders.mean) / encoders.std
        t = torch.from_numpy(rng.integers(0, 1000, BATCH))
        alpha = kept[t][:, None]
        x = alpha.sqrt() * x0 + (1 - alpha).sqrt() * torch.randn_like(x0)
        with torch.autocast("cpu", torch.bfloat16):
            output = model(x, t, texts.float(), hidden.float(), batch["clip_mask"].bool())
        return {"mse": functional.mse_loss(output.predicted_image_embedding.float(), x0)}

    def measure(step: int) -> dict[str, float]:
        return {f"{language}_{k}": v for language in captions.LANGUAGES for k, v in accuracy(model, encoders, tokens, language).items()}

    stage.run(loss, measure, every=250)


def _captions(tokens: Tokens, scenes: list[world.Scene], chosen: np.ndarray, rng: np.random.Generator) -> dict[str, torch.Tensor]:
    return tokens([captions.says_nothing(rng) if rng.random() < EMPTY else captions.caption(scenes[i], rng) for i in chosen])


def accuracy(model: torch.nn.Module, encoders: clip.Clip, tokens: Tokens, language: str) -> dict[str, float]:
    """How often the nearest picture to what the prior makes of a plain caption has its object and its colour."""
    rng = np.random.default_rng(11)
    kinds = [world.Scene((o,), "", (c,)) for o in world.OBJECTS for c in world.COLOURS]
    pictures = functional.normalize(encoders.images(np.stack([world.render(s, rng) for s in kinds])), dim=1)
    chosen = [kinds[i] for i in rng.choice(len(kinds), 64, replace=False)]
    made = generate(model, encoders, tokens([clip.plain_caption(s, language) for s in chosen]))
    best = (functional.normalize(made, dim=1) @ pictures.T).argmax(1)
    return {
        "object": float(np.mean([kinds[b].objects == s.objects for b, s in zip(best, chosen, strict=True)])),
        "colour": float(np.mean([kinds[b].ground == s.ground for b, s in zip(best, chosen, strict=True)])),
    }


def load(folder: Path, encoders: clip.Clip) -> PriorTransformer:
    """The trained prior, with the encoders' mean and deviation in it."""
    model = PriorTransformer(**configs.PRIOR)
    model.load_state_dict(torch.load(folder / "prior.result"))
    model.clip_mean.data.copy_(encoders.mean[None])
    model.clip_std.data.copy_(encoders.std[None])
    return model.eval().requires_grad_(False)
