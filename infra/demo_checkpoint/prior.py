"""Stage 3, the prior: from a caption's CLIP embedding and hidden states to a picture's embedding."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import PriorTransformer, UnCLIPScheduler
from torch.nn import functional

from infra.demo_checkpoint import clip, configs
from infra.demo_checkpoint.training import Losses, Stage, random_numbers
from infra.demo_checkpoint.world import captions, scenes
from infra.demo_checkpoint.world.tokens import LENGTH, Tokens

BATCH = 96
#: Share of captions that say nothing, for guidance and negative prompts.
EMPTY = 0.12


class ShortPrior(PriorTransformer):
    """The prior on the first `LENGTH` of its 77 text positions: masked positions change nothing, so it is the same."""

    def forward(self, *arguments: Any, **settings: Any) -> Any:
        """As PriorTransformer's, with the positions in the middle left out."""
        whole, mask = self.positional_embedding, self.causal_attention_mask
        keep = [*range(LENGTH), *range(77, 81)]
        del self._parameters["positional_embedding"]
        self.positional_embedding = torch.cat([whole[:, :LENGTH], whole[:, 77:]], 1)
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
def generate(model: PriorTransformer, encoders: clip.Clip, batch: clip.Batch, steps: int = 10) -> torch.Tensor:
    """Embeddings (n, width) sampled for tokenized captions, without guidance."""
    texts, hidden = encoders.texts(batch)
    mask = torch.from_numpy(batch["clip_mask"]).bool()
    schedule = scheduler()
    schedule.set_timesteps(steps)
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(texts.shape, generator=rng)
    times = [*schedule.timesteps, None]
    for t, following in itertools.pairwise(times):
        x0 = model(x, t, texts, hidden, mask).predicted_image_embedding
        x = schedule.step(x0, t, x, generator=rng, prev_timestep=following).prev_sample
    return x * encoders.std + encoders.mean


def accuracy(model: PriorTransformer, encoders: clip.Clip, tokens: Tokens, language: str) -> dict[str, float]:
    """How often the picture nearest to what the prior makes of a plain caption has its object, and its colour."""
    rng = np.random.default_rng(11)
    kinds = [(o, c) for o in scenes.OBJECTS for c in scenes.COLOURS]
    pictures = encoders.images(np.stack([scenes.render(scenes.Scene((o,), "", (c,)), rng) for o, c in kinds]))
    chosen = [kinds[i] for i in rng.choice(len(kinds), 64, replace=False)]
    made = generate(model, encoders, tokens([captions.plain_caption(o, c, language) for o, c in chosen]))
    best = (functional.normalize(made, dim=1) @ functional.normalize(pictures, dim=1).T).argmax(1)
    hits = np.array([(kinds[b][0] == o, kinds[b][1] == c) for b, (o, c) in zip(best, chosen, strict=True)])
    return dict(zip((f"{language}_object", f"{language}_colour"), hits.mean(0).tolist(), strict=True))


def train(folder: Path, budget: configs.Budget) -> None:
    """Train; the result is `prior.result` in the folder."""
    encoders, tokens = clip.load(folder)
    rng = random_numbers(4)
    held = [scenes.sample(rng) for _ in range(budget.prior_pictures)]
    groups = [held[i : i + 96] for i in range(0, len(held), 96)]
    with torch.no_grad():
        parts = [encoders.images(np.stack([scenes.render(s, rng) for s in group])) for group in groups]
    wanted = (torch.cat(parts) - encoders.mean) / encoders.std
    model = ShortPrior(**configs.PRIOR)
    for name in ("clip_mean", "clip_std"):
        getattr(model, name).requires_grad_(False)
    stage = Stage("prior", folder, model, steps=budget.prior, rate=1.5e-3, decay=0.99)
    kept = scheduler().alphas_cumprod

    def loss(step: int) -> Losses:
        rng = stage.rng
        chosen = rng.integers(0, len(held), BATCH)
        texts = [captions.says_nothing(rng) if rng.random() < EMPTY else captions.caption(held[i], rng) for i in chosen]
        batch = tokens(texts)
        with torch.no_grad():
            embeddings, hidden = encoders.texts(batch)
        t = torch.from_numpy(rng.integers(0, len(kept), BATCH))
        alpha = kept[t][:, None]
        x = alpha.sqrt() * wanted[chosen] + (1 - alpha).sqrt() * torch.randn(BATCH, configs.EMBEDDING)
        with torch.autocast("cpu", torch.bfloat16):
            output = model(x, t, embeddings, hidden, torch.from_numpy(batch["clip_mask"]).bool())
        return {"mse": functional.mse_loss(output.predicted_image_embedding.float(), wanted[chosen])}

    def measure() -> dict[str, float]:
        languages = captions.LANGUAGES
        return {k: v for language in languages for k, v in accuracy(model, encoders, tokens, language).items()}

    stage.run(loss, measure, every=budget.told)


def load(folder: Path, encoders: clip.Clip) -> PriorTransformer:
    """The trained prior, with the encoders' mean and deviation in it."""
    model = PriorTransformer(**configs.PRIOR)
    model.load_state_dict(torch.load(folder / "prior.result"))
    model.clip_mean.data.copy_(encoders.mean[None])
    model.clip_std.data.copy_(encoders.std[None])
    return model.eval().requires_grad_(False)
