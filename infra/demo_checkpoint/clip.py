"""Stage 2, CLIP and multilingual CLIP together: pictures, captions and captions again into one space.

Every language goes to both text encoders: a German prompt passes through the prior's CLIP too. Embeddings end with a
root mean square of one; the mean and deviation of pictures' embeddings, which the prior wants, are kept beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from diffusers.pipelines.kandinsky.text_encoder import MCLIPConfig, MultilingualCLIP
from PIL import Image
from torch import nn
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPVisionConfig, CLIPVisionModelWithProjection

from infra.demo_checkpoint import configs
from infra.demo_checkpoint.training import Losses, Stage, random_numbers, rank
from infra.demo_checkpoint.world import captions, scenes
from infra.demo_checkpoint.world.tokens import Tokens

BATCH = 64
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
GROUNDS = [*scenes.COLOURS, *scenes.SCENERIES]
FACTS = 2 * len(scenes.OBJECTS) + 3 * len(GROUNDS)

Batch = Mapping[str, scenes.Array]


def _resizer(size: int) -> torch.Tensor:
    """Pillow's bicubic resize of one axis from `size` to 224, as a matrix (224, size)."""
    basis = np.eye(size, dtype=np.float32)
    rows = [Image.fromarray(row[None]).resize((224, 1), Image.Resampling.BICUBIC) for row in basis]
    return torch.from_numpy(np.concatenate([np.asarray(row) for row in rows]).T.copy())


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
        self.tell = nn.Linear(configs.EMBEDDING, FACTS)
        self.register_buffer("mean", torch.zeros(configs.EMBEDDING))
        self.register_buffer("std", torch.ones(configs.EMBEDDING))
        self._matrices: dict[int, torch.Tensor] = {}
        for encoder in (self.text, self.mclip):  # their tables start so small that nothing learns for long
            for table in (m for m in encoder.modules() if isinstance(m, nn.Embedding)):
                nn.init.normal_(table.weight, std=0.1)

    def images(self, pictures: scenes.Array) -> torch.Tensor:
        """Embeddings (n, width) of pictures, prepared as CLIPImageProcessor does.

        Args:
            pictures: uint8 (n, size, size, 3).
        """
        size = pictures.shape[1]
        matrix = self._matrices.setdefault(size, _resizer(size))
        x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
        x = ((matrix @ x @ matrix.T).clamp(0, 1) - MEAN) / STD
        return self.vision(pixel_values=x).image_embeds

    def texts(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """CLIP's embeddings (n, width) and hidden states (n, length, width)."""
        ids, mask = torch.from_numpy(batch["clip"]), torch.from_numpy(batch["clip_mask"])
        output = self.text(input_ids=ids, attention_mask=mask)
        return output.text_embeds, output.last_hidden_state

    def multilingual(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Multilingual CLIP's embeddings (n, width) and hidden states (n, length, width)."""
        pooled, hidden = self.mclip(torch.from_numpy(batch["xlmr"]), torch.from_numpy(batch["xlmr_mask"]))
        return pooled, hidden


def load(folder: Path) -> tuple[Clip, Tokens]:
    """The trained encoders and the tokenizers."""
    tokens = Tokens(folder)
    model = Clip(tokens)
    model.load_state_dict(torch.load(folder / "clip.result"))
    return model.eval().requires_grad_(False), tokens


def _facts(scene: scenes.Scene) -> scenes.Array:
    """What a scene holds, float32 (`FACTS`,): its objects, the second of two, its colours or scenery, its tint."""
    values = np.zeros(FACTS, np.float32)
    n, m = len(scenes.OBJECTS), len(GROUNDS)
    for i, name in enumerate(scene.objects):
        values[scenes.OBJECTS.index(name)] = 1
        if i == 1:
            values[n + scenes.OBJECTS.index(name)] = 1
    for i, name in enumerate(scene.ground):
        values[2 * n + i * m + GROUNDS.index(name)] = 1
    if scene.tint:
        values[2 * n + 2 * m + GROUNDS.index(scene.tint)] = 1
    return values


def _facts_loss(told: torch.Tensor, facts: torch.Tensor, ground_told: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy of the facts, without the ground's where the caption is silent on it."""
    each = functional.binary_cross_entropy_with_logits(told, facts, reduction="none")
    n, m = 2 * len(scenes.OBJECTS), 2 * len(GROUNDS)
    weight = torch.ones_like(each)
    weight[~ground_told, n : n + m] = 0
    return (each * weight).sum(1).mean()


def _agree(held: list[scenes.Scene], told: list[bool]) -> torch.Tensor:
    """Whether text i is true of picture j, bool (n, n)."""
    things = [(s.objects, s.relation, s.place, s.size, s.tint) for s in held]
    grounds = [(s.ground, s.split) for s in held]
    n = range(len(held))
    return torch.tensor([[things[i] == things[j] and (not told[i] or grounds[i] == grounds[j]) for j in n] for i in n])


def _contrast(texts: torch.Tensor, pictures: torch.Tensor, agree: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """InfoNCE with several positives, since scenes repeat in a batch: the target is shared among all that agree."""
    logits = functional.normalize(texts, dim=1) @ functional.normalize(pictures, dim=1).T
    logits = scale.exp().clamp(max=60) * logits
    target = agree.float()
    there = -(target / target.sum(1, keepdim=True) * logits.log_softmax(1)).sum(1).mean()
    back = -(target / target.sum(0, keepdim=True) * logits.log_softmax(0)).sum(0).mean()
    return (there + back) / 2


def _size(x: torch.Tensor) -> torch.Tensor:
    """How far the root mean square of embeddings is from one."""
    return (x.square().mean(1).add(1e-6).sqrt() - 1).square().mean()


def _loss(model: Clip, tokens: Tokens, rng: np.random.Generator) -> Losses:
    held = [scenes.sample(rng) for _ in range(BATCH)]
    told = [captions.told(s, rng) for s in held]
    batch = tokens([text for text, _ in told])
    with torch.autocast("cpu", torch.bfloat16):
        pictures = model.images(np.stack([scenes.render(s, rng) for s in held]))
        texts, multilingual = model.texts(batch)[0], model.multilingual(batch)[0]
    pictures, texts, multilingual = pictures.float(), texts.float(), multilingual.float()
    agree, facts = _agree(held, [g for _, g in told]), torch.from_numpy(np.stack([_facts(s) for s in held]))
    said = torch.tensor([g for _, g in told])
    shown = ((pictures, torch.ones_like(said)), (texts, said), (multilingual, said))
    return {
        # One linear layer must read what a scene holds from all three embeddings: contrast alone learns slower.
        "facts": 0.2 * torch.stack([_facts_loss(model.tell(x), facts, known) for x, known in shown]).sum(),
        "clip": _contrast(texts, pictures, agree, model.temperature),
        "mclip": _contrast(multilingual, pictures, agree, model.temperature),
        "near": 1 - functional.cosine_similarity(multilingual, texts.detach(), dim=1).mean(),
        "size": _size(texts) + _size(pictures) + _size(multilingual),
    }


def zero_shot(model: Clip, tokens: Tokens, language: str) -> dict[str, float]:
    """How often the best of all plain captions has a picture's object, and its colour, for both text encoders."""
    rng = np.random.default_rng(5)
    kinds = [(o, c) for o in scenes.OBJECTS for c in scenes.COLOURS]
    batch = tokens([captions.plain_caption(o, c, language) for o, c in kinds])
    chosen = [kinds[i] for i in rng.choice(len(kinds), 96, replace=False)]
    pictures = model.images(np.stack([scenes.render(scenes.Scene((o,), "", (c,)), rng) for o, c in chosen]))
    result = {}
    for encoder, texts in (("clip", model.texts(batch)[0]), ("mclip", model.multilingual(batch)[0])):
        best = (functional.normalize(pictures, dim=1) @ functional.normalize(texts, dim=1).T).argmax(1)
        hits = np.array([(kinds[b][0] == o, kinds[b][1] == c) for b, (o, c) in zip(best, chosen, strict=True)])
        result[f"{encoder}_{language}_object"], result[f"{encoder}_{language}_colour"] = hits.mean(0).tolist()
    return result


@torch.no_grad()
def both_read(model: Clip) -> float:
    """How often the two likeliest objects of a picture, by the facts, are the two that it holds."""
    rng = np.random.default_rng(7)
    held = [s for s in (scenes.sample(rng, pairs=0.9) for _ in range(144)) if len(s.objects) == 2][:96]
    told = model.tell(model.images(np.stack([scenes.render(s, rng) for s in held])))[:, : len(scenes.OBJECTS)]
    found = [{scenes.OBJECTS[i] for i in best} for best in told.topk(2, 1).indices.tolist()]
    return float(np.mean([names == set(s.objects) for names, s in zip(found, held, strict=True)]))


def train(folder: Path, budget: configs.Budget) -> None:
    """Train; the result is `clip.result` in the folder."""
    random_numbers(2)
    tokens = Tokens(folder)
    model = Clip(tokens)
    stage = Stage("clip", folder, model, steps=budget.clip, rate=2e-3, decay=0.99)

    def measure() -> dict[str, float]:
        found = {k: v for language in captions.LANGUAGES for k, v in zero_shot(model, tokens, language).items()}
        return {**found, "pair": both_read(model)}

    stage.run(lambda _step: _loss(model, tokens, stage.rng), measure, every=budget.told)
    if rank() == 0:
        _fold(folder, tokens)


@torch.no_grad()
def _fold(folder: Path, tokens: Tokens) -> None:
    """Fold scales in, so that embeddings have a root mean square of one, and keep mean and deviation of pictures'."""
    model = Clip(tokens)
    model.load_state_dict(torch.load(folder / "clip.result"))
    model.eval()
    rng = np.random.default_rng(3)
    held = [scenes.sample(rng) for _ in range(1024)]
    batch = tokens([captions.caption(s, rng) for s in held])
    groups = [held[i : i + 64] for i in range(0, len(held), 64)]
    pictures = torch.cat([model.images(np.stack([scenes.render(s, rng) for s in group])) for group in groups])
    linear = model.mclip.LinearTransformation
    for embeddings, layers in (
        (model.texts(batch)[0], [model.text.text_projection.weight]),
        (model.multilingual(batch)[0], [linear.weight, linear.bias]),
        (pictures, [model.vision.visual_projection.weight]),
    ):
        for layer in layers:
            layer /= embeddings.square().mean().sqrt()
    pictures /= pictures.square().mean().sqrt()
    model.mean.copy_(pictures.mean(0))
    model.std.copy_(pictures.std(0))
    torch.save(model.state_dict(), folder / "clip.result")
