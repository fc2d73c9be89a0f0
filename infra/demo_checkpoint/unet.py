"""Stage 4, the UNet: one of nine input channels learns to paint and to repaint.

Most samples are painted with mask and masked latents 0; the rest have a part to repaint. (In the pipeline the mask is 1
where the picture is kept.) The text-to-image UNet is this one with its first four input channels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from PIL import Image

from infra.demo_checkpoint import configs, examples, movq, prior
from infra.demo_checkpoint.training import Losses, Stage, quicken, random_numbers
from infra.demo_checkpoint.world import captions, judge, scenes

BATCH, REPAINT = 16, 3
#: Every so many steps a batch is of wide pictures.
WIDE_EVERY = 8
#: Shares of samples without both conditions, without the picture's embedding alone and without the text alone.
NO_BOTH, NO_PICTURE, NO_TEXT = 0.10, 0.05, 0.10
#: Between these parts of the way what is decided in much noise counts more: which object stands where. In place of
#: Min-SNR 5 (Hang et al., 2023) the weight is 1 / (signal to noise + STRUCTURE), as in P2 (Choi et al., 2022). Before
#: and after it details are learned.
STRUCTURE_FROM, STRUCTURE_TO, STRUCTURE = 8 / 15, 8 / 9, 0.5
#: The share of samples without noise that are told of another picture, as image-to-image does at a low strength; it
#: falls with the square of what is left of the picture in the noise. From them the UNet learns to believe what it sees,
#: once it knows what it is told (from this part of the way on).
TOLD_OF_ANOTHER, TOLD_FROM = 0.3, 4 / 15
#: Prompts of the sample sheet: what the documents ask for, then pairs, sceneries and wordings of all kinds.
SHEET = (
    "A alien cheeseburger creature eating itself, claymation, cinematic, moody lighting",
    "red cat, 4k photo",
    "a photo of a cute red cat",
    "a cat with a hat on a white background",
    "a cat wearing a hat",
    "A fantasy landscape, Cinematic lighting",
    "a night sky with stars",
    "a rocket under the stars",
    "a dog and a rocket on a purple background",
    "an apple above a tree",
    "a flower next to a ghost on a black ground",
    "ein Haus in den Bergen",
    "a guitar, oil painting, high quality",
    "a robot, red above and blue below",
    "a small fish on a blue background",
    "a butterfly",
)


def conditions(embeddings: torch.Tensor, pooled: torch.Tensor, hidden: torch.Tensor) -> dict[str, object]:
    """The UNet's conditions; the last hidden state, which is padding, is repeated to 77."""
    states = torch.cat([hidden, hidden[:, -1:].expand(-1, 77 - hidden.shape[1], -1)], 1)
    return {"encoder_hidden_states": states, "added_cond_kwargs": {"text_embeds": pooled, "image_embeds": embeddings}}


class Nothing:
    """What stands for no condition: the zero picture's embedding, and the states of captions that say nothing.

    Args:
        parts: the trained stages.
        rng: draws the captions; the first is empty.
    """

    @torch.no_grad()
    def __init__(self, parts: examples.Trained, rng: np.random.Generator) -> None:
        texts = ["", *(captions.says_nothing(rng) for _ in range(199))]
        self.embedding = parts.encoders.vision(pixel_values=torch.zeros(1, 3, 224, 224)).image_embeds[0]
        self.pooled, self.hidden = parts.encoders.multilingual(parts.tokens(texts))

    def put_in(self, batch: list[torch.Tensor], rng: np.random.Generator) -> list[torch.Tensor]:
        """Embeddings, pooled and hidden states of a batch, some of them replaced by nothing."""
        embeddings, pooled, hidden = batch
        n = len(pooled)
        u = torch.from_numpy(rng.random(n))[:, None]
        no_text = (u < NO_BOTH) | ((u >= NO_BOTH + NO_PICTURE) & (u < NO_BOTH + NO_PICTURE + NO_TEXT))
        said = torch.from_numpy(rng.integers(0, len(self.pooled), n) * (rng.random(n) < 0.5))
        embeddings = torch.where(u < NO_BOTH + NO_PICTURE, self.embedding, embeddings)
        pooled = torch.where(no_text, self.pooled[said], pooled)
        return [embeddings, pooled, torch.where(no_text[..., None], self.hidden[said], hidden)]


def random_boxes(count: int, height: int, width: int, rng: np.random.Generator) -> torch.Tensor:
    """Rectangles of a quarter to most of each edge, int16 (count, 4)."""
    edges = np.array([height, width])
    sides = rng.integers(edges // 4, edges * 7 // 8, (count, 2))
    corner = rng.integers(0, edges - sides + 1)
    return torch.from_numpy(np.concatenate([corner, corner + sides], 1)).short()


def keep_mask(boxes: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Float32 (n, 1, height, width): 0 in the box, 1 outside; all 0 where the box is empty, as nothing is kept."""
    y, x = torch.arange(height)[None, :, None], torch.arange(width)[None, None, :]
    top, left, bottom, right = (boxes[:, i, None, None].long() for i in range(4))
    inside = (y >= top) & (y < bottom) & (x >= left) & (x < right)
    return (~inside & (bottom > top)).float()[:, None]


def tell_of_another(told: list[torch.Tensor], which: torch.Tensor) -> list[torch.Tensor]:
    """The conditions of a batch, those of samples where `which` (bool, (n,)) is true from the sample before them."""
    return [torch.where(which.view(-1, *[1] * (column.dim() - 1)), column.roll(1, 0), column) for column in told]


def schedule() -> DDIMScheduler:
    """The decoder's noise schedule."""
    return DDIMScheduler(**{key: value for key, value in configs.DDIM.items() if key != "_class_name"})


def train(folder: Path, budget: configs.Budget) -> None:
    """Train; the result is `unet.result` in the folder, samples are in `unet.png`."""
    parts, rng = examples.load(folder), random_numbers(6)
    square = examples.encode(budget.square, rng, parts)
    wide = examples.encode(budget.wide, rng, parts, width=192)
    repaint = examples.encode(budget.repaint, rng, parts, repaint=True)
    nothing, prior_model = Nothing(parts, rng), prior.load(folder, parts.encoders)
    model = quicken(UNet2DConditionModel(**configs.UNET))
    stage = Stage("unet", folder, model, steps=budget.unet, rate=1e-3, decay=0.998)
    kept = schedule().alphas_cumprod

    def loss(step: int) -> Losses:
        rng = stage.rng
        if step % WIDE_EVERY == WIDE_EVERY - 1:
            batch = wide.pick(BATCH * 2 // 3, rng)
        else:
            both = zip(square.pick(BATCH - REPAINT, rng), repaint.pick(REPAINT, rng), strict=True)
            batch = [torch.cat(columns) for columns in both]
        x0, *told, boxes = batch
        n, _, height, width = x0.shape
        elsewhere = (boxes[:, 2] == 0) & torch.from_numpy(rng.random(n) < 0.1)
        keep = keep_mask(torch.where(elsewhere[:, None], random_boxes(n, height, width, rng), boxes), height, width)
        t = torch.from_numpy(rng.integers(0, len(kept), n))
        alpha = kept[t][:, None, None, None]
        if step / budget.unet >= TOLD_FROM:
            another = torch.from_numpy(rng.random(n)) < TOLD_OF_ANOTHER * kept[t] ** 2
            told = tell_of_another(told, another & (boxes[:, 2] == 0))
        noise = torch.randn_like(x0)
        noisy = alpha.sqrt() * x0 + (1 - alpha).sqrt() * noise
        with torch.autocast("cpu", torch.bfloat16):
            made = model(torch.cat([noisy, x0 * keep, keep], 1), t, **conditions(*nothing.put_in(told, rng))).sample
        ratio = alpha / (1 - alpha)
        structure = STRUCTURE_FROM <= step / budget.unet < STRUCTURE_TO
        weight = 1 / (ratio + STRUCTURE) if structure else ratio.clamp(max=5) / ratio
        # Half of the eight output channels are a variance that the pipelines do not look at.
        return {"mse": (weight * (made[:, :4].float() - noise).square()).mean()}

    def measure() -> dict[str, float]:
        return _measure(folder / "unet.png", parts, prior_model, model, nothing, budget.measured)

    stage.run(loss, measure, every=budget.told)


def _measure(
    sheet: Path,
    parts: examples.Trained,
    prior_model: prior.PriorTransformer,
    model: UNet2DConditionModel,
    nothing: Nothing,
    count: int,
) -> dict[str, float]:
    """By the world's judge: object and colour, over plain captions in all languages, and both objects of pairs."""
    rng = np.random.default_rng(21)
    chosen = [(str(rng.choice(scenes.OBJECTS)), str(rng.choice(list(scenes.COLOURS)))) for _ in range(count)]
    languages = [captions.LANGUAGES[i % 3] for i in range(count)]
    texts = [captions.plain_caption(o, c, language) for (o, c), language in zip(chosen, languages, strict=True)]
    drawn = (scenes.sample(rng, pairs=0.9) for _ in range(count * 3))
    asked = [scene for scene in drawn if judge.sees_both(scene)][:count]
    pairs = [captions.caption(scene, rng, "en") for scene in asked]
    made = sample(parts, prior_model, model, nothing, [*SHEET, *texts, *pairs])
    shown = made[: len(made) // 8 * 8]
    rows = [np.concatenate(list(shown[i : i + 8]), 1) for i in range(0, len(shown), 8)]
    Image.fromarray(np.concatenate(rows)).save(sheet)
    judged = list(zip(made[len(SHEET) : -len(asked)], chosen, strict=True))
    both = zip(made[-len(asked) :], asked, strict=True)
    return {
        "object": float(np.mean([judge.best_object(picture) == o for picture, (o, _) in judged])),
        "colour": float(np.mean([judge.border_colour(picture)[0] == c for picture, (_, c) in judged])),
        "pair": float(np.mean([judge.best_objects(picture, 2) == set(scene.objects) for picture, scene in both])),
    }


@torch.no_grad()
def sample(
    parts: examples.Trained,
    prior_model: prior.PriorTransformer,
    model: UNet2DConditionModel,
    nothing: Nothing,
    texts: list[str],
    steps: int = 12,
    guidance: float = 4.0,
) -> scenes.Array:
    """Pictures uint8 (n, 128, 128, 3) of texts, made as the pipelines do."""
    embeddings = prior.generate(prior_model, parts.encoders, parts.tokens(texts, 77))
    told = [embeddings, *parts.encoders.multilingual(parts.tokens(texts))]
    n = len(texts)
    nothing_told = (nothing.embedding[None], nothing.pooled[:1], nothing.hidden[:1])
    both = [torch.cat([free.expand_as(led), led]) for free, led in zip(nothing_told, told, strict=True)]
    steps_down = schedule()
    steps_down.set_timesteps(steps)
    x = torch.randn((n, 4, 16, 16), generator=torch.Generator().manual_seed(1))
    for t in steps_down.timesteps:
        given = torch.cat([x, torch.zeros(n, 5, 16, 16)], 1)
        with torch.autocast("cpu", torch.bfloat16):
            made = model(torch.cat([given, given]), t, **conditions(*both)).sample[:, :4].float()
        free, led = made.chunk(2)
        x = steps_down.step(free + guidance * (led - free), t, x).prev_sample
    return movq.to_picture(torch.cat([parts.movq.decode(z, force_not_quantize=True).sample for z in x.split(8)]))
