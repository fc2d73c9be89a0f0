"""Stage 2, CLIP and multilingual CLIP together: pictures, captions and captions again into one space.

Every language goes to both text encoders: a German prompt passes through the prior's CLIP too. Embeddings end with a
root mean square of one; the mean and deviation of picture embeddings, which the prior wants, are kept beside them.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from diffusers.pipelines.kandinsky.text_encoder import MCLIPConfig, MultilingualCLIP
from PIL import Image
from torch import nn
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPVisionConfig, CLIPVisionModelWithProjection

from infra.demo_checkpoint import captions, configs, world
from infra.demo_checkpoint.tokens import Tokens
from infra.demo_checkpoint.training import Stage, random_numbers

BATCH = 96
STEPS = int(os.environ.get("CLIP_STEPS", "700"))
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]


def _resizer(size: int) -> torch.Tensor:
    """Pillow's bicubic resize of one axis from `size` to 224, as a matrix."""
    rows = [Image.fromarray(row[None]).resize((224, 1), Image.Resampling.BICUBIC) for row in np.eye(size, dtype=np.float32)]
    return torch.from_numpy(np.concatenate([np.asarray(r) for r in rows]).T.copy())


class Clip(nn.Module):
    """The three encoders.

    Args:
        tokens: the tokenizers, for the vocabularies' sizes.
    """

    def __init__(self, tokens: Tokens) -> None:
        super().__init__()
        text = configs.clip_text(len(tokens.clip), tokens.clip.bos_token_id, tokens.clip.eos_token_id)
        attention = {"attn_implementation": "sdpa"}
        self.text = CLIPTextModelWithProjection._from_config(CLIPTextConfig(**text), **attention)
        self.vision = CLIPVisionModelWithProjection._from_config(CLIPVisionConfig(**configs.CLIP_VISION), **attention)
        self.mclip = MultilingualCLIP(MCLIPConfig(**configs.mclip(len(tokens.xlmr))))
        self.temperature = nn.Parameter(torch.tensor(2.3))
        self.register_buffer("mean", torch.zeros(configs.EMBEDDING))
        self.register_buffer("std", torch.ones(configs.EMBEDDING))
        self._matrices: dict[int, torch.Tensor] = {}
        for encoder in (self.text, self.mclip):  # their tables start so small that nothing learns for long
            for table in (m for m in encoder.modules() if isinstance(m, nn.Embedding)):
                nn.init.normal_(table.weight, std=0.1)

    def images(self, pictures: np.ndarray) -> torch.Tensor:
        """Embeddings (n, width) of pictures uint8 (n, 128, 128, 3), prepared as CLIPImageProcessor does."""
        size = pictures.shape[1]
        matrix = self._matrices.setdefault(size, _resizer(size))
        x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
        x = ((matrix @ x @ matrix.T).clamp(0, 1) - MEAN) / STD
        return self.vision(pixel_values=x).image_embeds

    def texts(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """CLIP's embeddings (n, width) and hidden states (n, length, width)."""
        output = self.text(input_ids=batch["clip"], attention_mask=batch["clip_mask"])
        return output.text_embeds, output.last_hidden_state

    def multilingual(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Multilingual CLIP's embeddings (n, width) and hidden states (n, length, width)."""
        return self.mclip(batch["xlmr"], batch["xlmr_mask"])


def _agree(scenes: list[world.Scene], told: list[bool]) -> torch.Tensor:
    """(n, n): text i is true of picture j."""
    keys = [(s.objects, s.relation, s.place, s.size, s.tint) for s in scenes]
    grounds = [(s.ground, s.split) for s in scenes]
    n = len(scenes)
    return torch.tensor([[keys[i] == keys[j] and (not told[i] or grounds[i] == grounds[j]) for j in range(n)] for i in range(n)])


def _contrast(texts: torch.Tensor, pictures: torch.Tensor, agree: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """InfoNCE with several positives: the target is shared among all that agree."""
    logits = scale.exp().clamp(max=60) * functional.normalize(texts.float(), dim=1) @ functional.normalize(pictures.float(), dim=1).T
    target = agree.float()
    there = -(target / target.sum(1, keepdim=True) * logits.log_softmax(1)).sum(1).mean()
    back = -(target / target.sum(0, keepdim=True) * logits.log_softmax(0)).sum(0).mean()
    return (there + back) / 2


def _size(x: torch.Tensor) -> torch.Tensor:
    """How far the root mean square of embeddings is from one."""
    return (x.float().square().mean(1).add(1e-6).sqrt() - 1).square().mean()


def zero_shot(model: Clip, tokens: Tokens, language: str, seed: int = 5) -> dict[str, float]:
    """How often the best caption of "object on ground" names the object and the colour, for both text encoders."""
    rng = np.random.default_rng(seed)
    names = list(world.COLOURS)
    kinds = [world.Scene((o,), "", (c,)) for o in world.OBJECTS for c in names]
    batch = tokens([plain_caption(s, language) for s in kinds])
    chosen = [kinds[i] for i in rng.choice(len(kinds), 96, replace=False)]
    pictures = functional.normalize(model.images(np.stack([world.render(s, rng) for s in chosen])), dim=1)
    result = {}
    for encoder, texts in (("clip", model.texts(batch)[0]), ("mclip", model.multilingual(batch)[0])):
        best = (pictures @ functional.normalize(texts, dim=1).T).argmax(1)
        hits = [(kinds[b].objects == s.objects, kinds[b].ground == s.ground) for b, s in zip(best, chosen, strict=True)]
        result[f"{encoder}_{language}_object"] = float(np.mean([h[0] for h in hits]))
        result[f"{encoder}_{language}_colour"] = float(np.mean([h[1] for h in hits]))
    return result


def plain_caption(scene: world.Scene, language: str) -> str:
    """The plainest caption: "a cat on a red background"."""
    name = captions.OBJECT_NAMES[scene.objects[0]][language].split(";")[0].split("|")[0]
    colour = captions.COLOUR_NAMES[scene.ground[0]][language].split(";")[0]
    if language == "ru":
        stem, _, on, *_ = colour.split("|")
        return f"{name} на {stem}{on} фоне"
    return f"{name} auf {colour}em Hintergrund" if language == "de" else f"a {name} on a {colour} background"


def load(folder: Path) -> tuple[Clip, Tokens]:
    """The trained encoders and the tokenizers."""
    tokens = Tokens(folder)
    model = Clip(tokens)
    model.load_state_dict(torch.load(folder / "clip.result"))
    return model.eval().requires_grad_(False), tokens


def train(folder: Path) -> None:
    """Train; the result is `clip.result` in the folder."""
    tokens = Tokens(folder)
    rng = random_numbers(2)
    model = Clip(tokens)
    stage = Stage("clip", folder, model, STEPS, 2e-3, 0.99)

    def loss(step: int) -> dict[str, torch.Tensor]:
        scenes = [world.sample(rng) for _ in range(BATCH)]
        told = [captions.told(s, rng) for s in scenes]
        batch = tokens([t for t, _ in told])
        agree = _agree(scenes, [g for _, g in told])
        with torch.autocast("cpu", torch.bfloat16):
            pictures = model.images(np.stack([world.render(s, rng) for s in scenes]))
            texts, multilingual = model.texts(batch)[0], model.multilingual(batch)[0]
        near = 1 - functional.cosine_similarity(multilingual.float(), texts.detach().float(), dim=1).mean()
        return {
            "clip": _contrast(texts, pictures, agree, model.temperature),
            "mclip": _contrast(multilingual, pictures, agree, model.temperature),
            "near": near,
            "size": _size(texts) + _size(pictures) + _size(multilingual),
        }

    def measure(step: int) -> dict[str, float]:
        return {k: v for language in captions.LANGUAGES for k, v in zero_shot(model, tokens, language).items()}

    stage.run(loss, measure, every=100)
    finish(folder, tokens)


def finish(folder: Path, tokens: Tokens) -> None:
    """Fold scales in, so that embeddings have a root mean square of one, and keep mean and deviation of pictures'."""
    model = Clip(tokens)
    model.load_state_dict(torch.load(folder / "clip.result"))
    model.eval()
    rng = np.random.default_rng(3)
    scenes = [world.sample(rng) for _ in range(1024)]
    batch = tokens([captions.caption(s, rng) for s in scenes])
    with torch.no_grad():
        for embeddings, layers in (
            (model.texts(batch)[0], [model.text.text_projection.weight]),
            (model.multilingual(batch)[0], [model.mclip.LinearTransformation.weight, model.mclip.LinearTransformation.bias]),
        ):
            for layer in layers:
                layer /= embeddings.square().mean().sqrt()
        pictures = [world.render(s, rng) for s in scenes]
        embeddings = torch.cat([model.images(np.stack(pictures[i : i + 64])) for i in range(0, 1024, 64)])
        scale = embeddings.square().mean().sqrt()
        model.vision.visual_projection.weight /= scale
        model.mean.copy_(embeddings.mean(0) / scale)
        model.std.copy_(embeddings.std(0) / scale)
    torch.save(model.state_dict(), folder / "clip.result")
