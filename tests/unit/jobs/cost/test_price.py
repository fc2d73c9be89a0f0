"""The price on paper: FLOPs of whole images, of every task and setting, and what a plan of them takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.cost import flops
from jobs.cost.price import CHIPS, Models, models_of, plan_flops
from manifests.batch import Bucket
from manifests.call_limit import CallLimit
from manifests.planning.window_summary import BucketTally
from workers.kandinsky.architecture import FULL, FULL_INPAINT_UNET

CASES = json.loads((Path(__file__).resolve().parents[3] / "data" / "flops.json").read_text())["cases"]
TEXTS = {case["model"]: case["config"] for case in CASES if "text" in case["model"]}

#: The published checkpoint.
PUBLISHED = Models(
    prior=FULL["PriorTransformer"],
    prior_text=TEXTS["clip_text"],
    text=TEXTS["multilingual_text"],
    unet=FULL["UNet2DConditionModel"],
    inpaint_unet=FULL_INPAINT_UNET,
    movq=FULL["VQModel"],
)


def bucket(**given: Any) -> Bucket:
    defaults = {
        "task": "text2img",
        "height": 512,
        "width": 512,
        "steps": 50,
        "guidance_scale": 4.0,
        "prior_steps": 25,
        "prior_guidance_scale": 4.0,
        "strength": None,
        "has_negative": False,
    }
    return Bucket.model_validate({**defaults, **given})


@pytest.mark.parametrize(
    ("size", "steps", "tera", "share"),
    [(512, 50, 97, 0.085), (512, 100, 183, 0.045), (768, 50, 213, 0.039), (768, 100, 413, 0.020)],
)
def test_an_image_of_the_published_checkpoint(size: int, steps: int, tera: int, share: float) -> None:
    found = PUBLISHED.image(bucket(height=size, width=size, steps=steps))
    assert sum(found) / 1e12 == pytest.approx(tera, abs=0.5)
    assert found.prior / sum(found) == pytest.approx(share, abs=0.0005)


def test_guidance_and_negative_texts_double_their_stage() -> None:
    plain = PUBLISHED.image(bucket())
    assert PUBLISHED.image(bucket(has_negative=True)) == (2 * plain.prior, plain.decoder)
    assert PUBLISHED.image(bucket(prior_guidance_scale=1.0)) == (plain.prior / 2, plain.decoder)
    pixels = flops.movq_decode(PUBLISHED.movq, 64, 64)
    assert PUBLISHED.image(bucket(guidance_scale=1.0)).decoder - pixels == (plain.decoder - pixels) / 2


def test_img2img_takes_the_steps_of_its_strength_and_encodes_its_image() -> None:
    image = PUBLISHED.image(bucket(task="img2img", steps=100, strength=0.5))
    assert image.decoder - PUBLISHED.image(bucket()).decoder == flops.movq_encode(PUBLISHED.movq, 64, 64)


def test_a_device_that_compiles_makes_the_padding_too() -> None:
    planned = {bucket(): BucketTally(samples=9, batches=2, made=9)}
    images, filled = plan_flops(planned, PUBLISHED), plan_flops(planned, PUBLISHED, CallLimit(16, 8 * 512 * 512))
    one = PUBLISHED.image(bucket())
    assert images == (9 * one.prior, 9 * one.decoder)
    assert filled == (16 * one.prior, 16 * one.decoder)


@pytest.mark.parametrize("checkpoint", ["demo", "random"])
def test_our_own_checkpoints_have_a_price(checkpoint: str) -> None:
    models = models_of(checkpoint, inpaint=True)
    assert models is not None
    assert models.unet["in_channels"] == 4
    assert models.inpaint_unet["in_channels"] == 9
    assert min(models.image(bucket(task="inpaint"))) > 0


def test_a_folder_without_configs_has_none(tmp_path: Path) -> None:
    assert models_of(str(tmp_path), inpaint=False) is None


def test_every_peak_says_where_it_is_from() -> None:
    assert all(chip.peak > 0 and chip.source for chip in CHIPS.values())
