"""Kandinsky in batches against the plain pipelines, row by row, on real models."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from manifests.batch import Bucket
from manifests.call_limit import CallLimit
from workers.kandinsky.batch_shape import FullCalls
from workers.kandinsky.noise import decoder_generator, prior_generator

pytestmark = pytest.mark.models

PROMPTS = ["a red cat, 4k photo", "an oil painting of a castle", "", "fog over a lake at night"]
SEEDS = [7, 2**63 + 5, 0, 123]


def _bucket(task: str = "text2img", **settings: Any) -> Bucket:
    defaults = {
        "task": task,
        "height": 64,
        "width": 64,
        "steps": 2,
        "guidance_scale": 4.0,
        "prior_steps": 2,
        "prior_guidance_scale": 4.0,
        "strength": 0.7 if task == "img2img" else None,
        "has_negative": False,
    }
    return Bucket.model_validate(defaults | settings)


def _picture(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


def _mask(width: int, height: int, seed: int = 0) -> Image.Image:
    mask = np.zeros((height, width), np.uint8)
    top, left = np.random.default_rng(seed).integers(0, [height // 2, width // 2])
    mask[top : top + height // 2, left : left + width // 2] = 255
    return Image.fromarray(mask)


def _row(bucket: Bucket, index: int) -> dict[str, Any]:
    row = bucket.model_dump() | {
        "prompt": PROMPTS[index],
        "negative_prompt": "blurry" if bucket.has_negative else None,
        "seed": SEEDS[index],
        "image_index": index % 2,
    }
    if bucket.task in ("img2img", "inpaint"):
        row["image"] = _picture(bucket.width, bucket.height, index)
        row["mask"] = _mask(bucket.width, bucket.height, index)
    if bucket.task == "interpolate":
        row["prompt"] = ""
        row["conditions"] = [(PROMPTS[index], 0.3), (_picture(224, 224, index), 0.3), (_picture(224, 224, 9), 0.4)]
    return row


def _make(kandinsky: ModuleType, prior: Any, decoder: Any, bucket: Bucket, rows: list[dict[str, Any]]) -> Any:
    """The rows as one batch, by the code under test."""
    if bucket.task == "interpolate":
        conditions = [
            [
                kandinsky.Condition(
                    weight=weight,
                    text=what if isinstance(what, str) else None,
                    image=None if isinstance(what, str) else what,
                    generator=prior_generator(row["seed"], row["image_index"], place),
                )
                for place, (what, weight) in enumerate(row["conditions"])
            ]
            for row in rows
        ]
        embeds = prior.interpolate(conditions, None, bucket, 4)
    else:
        negatives = [row["negative_prompt"] for row in rows] if bucket.has_negative else None
        generators = [prior_generator(row["seed"], row["image_index"]) for row in rows]
        embeds = prior.embed([row["prompt"] for row in rows], negatives, generators, bucket)
    inputs = kandinsky.DecoderInputs(
        prompts=[row["prompt"] for row in rows],
        negatives=[row["negative_prompt"] or "" for row in rows],
        generators=[decoder_generator(row["seed"], row["image_index"]) for row in rows],
        image_embeds=embeds[0],
        negative_image_embeds=embeds[1],
        images=[row["image"] for row in rows if "image" in row],
        masks=[row["mask"] for row in rows if "mask" in row],
    )
    return decoder.decode(inputs, bucket).pixels


def _assert_same(left: Any, right: Any) -> None:
    assert left.shape == right.shape
    assert left.std() > 10, "a flat image would equal anything"
    assert np.abs(left.astype(int) - right.astype(int)).max() <= 1


BUCKETS = {
    "text2img": _bucket(),
    "text2img wide, with negative": _bucket(width=128, has_negative=True),
    "text2img without guidance": _bucket(guidance_scale=1.0, prior_guidance_scale=1.0),
    "text2img without guidance, with negative": _bucket(prior_guidance_scale=1.0, has_negative=True),
    "img2img": _bucket("img2img"),
    "img2img at full strength": _bucket("img2img", strength=1.0),
    "inpaint": _bucket("inpaint"),
    "inpaint tall": _bucket("inpaint", height=128),
    "interpolate": _bucket("interpolate"),
}


@pytest.mark.parametrize("bucket", BUCKETS.values(), ids=BUCKETS.keys())
def test_a_batch_gives_each_row_the_image_that_the_plain_pipeline_makes_of_it(
    kandinsky: ModuleType, prior: Any, decoder: Any, plain: Any, bucket: Bucket
) -> None:
    rows = [_row(bucket, index) for index in range(4)]
    together = _make(kandinsky, prior, decoder, bucket, rows)
    for index in (1, 2):
        _assert_same(together[index], plain.make(rows[index]))


@pytest.mark.parametrize("task", ["text2img", "img2img", "inpaint", "interpolate"])
def test_batch_sizes_one_two_and_four_agree(kandinsky: ModuleType, prior: Any, decoder: Any, task: str) -> None:
    bucket = _bucket(task, width=128)
    rows = [_row(bucket, index) for index in range(4)]
    together = _make(kandinsky, prior, decoder, bucket, rows)
    for size in (1, 2):
        parts = [_make(kandinsky, prior, decoder, bucket, rows[i : i + size]) for i in range(0, 4, size)]
        _assert_same(np.concatenate(parts), together)


@pytest.mark.parametrize("task", ["text2img", "img2img", "inpaint", "interpolate"])
def test_a_tail_is_filled_up_to_the_one_shape_and_its_images_stay_the_same(
    kandinsky: ModuleType, prior: Any, decoder: Any, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = _bucket(task, has_negative=task == "text2img")
    rows = [_row(bucket, index) for index in range(3)]
    as_they_are = _make(kandinsky, prior, decoder, bucket, rows)
    calls: dict[str, set[tuple[int, ...]]] = {}
    for name, model in (("prior", prior._pipeline.prior), ("unet", decoder._pipelines[task].unet)):
        shapes, original = calls.setdefault(name, set()), type(model).construct

        def construct(self: Any, *given: Any, shapes: Any = shapes, call: Any = original, **named: Any) -> Any:
            shapes.add([*given, *named.values()][0].shape)
            return call(self, *given, **named)

        monkeypatch.setattr(type(model), "construct", construct)
    # Of images as small as these the pixels let four rows through.
    for model in (prior, decoder):
        monkeypatch.setattr(model, "_calls", FullCalls(CallLimit(8, 4 * 64 * 64), always=True))
    _assert_same(_make(kandinsky, prior, decoder, bucket, rows), as_they_are)
    _assert_same(_make(kandinsky, prior, decoder, bucket, rows[:1]), as_they_are[:1])
    channels = 9 if task == "inpaint" else 4
    # Guidance doubles the rows, and a negative prompt those of the prior once more.
    assert calls == {"prior": {(16 if bucket.has_negative else 8, 64)}, "unet": {(8, channels, 8, 8)}}
    calls["prior"].clear()
    calls["unet"].clear()
    wide = bucket.model_copy(update={"width": 128})
    _make(kandinsky, prior, decoder, wide, [_row(wide, 0)])
    assert calls == {"prior": {(8 if bucket.has_negative else 4, 64)}, "unet": {(4, channels, 8, 16)}}


def test_img2img_starts_from_its_image_also_when_the_batch_is_as_large_as_the_latents_are_wide(
    kandinsky: ModuleType, prior: Any, decoder: Any
) -> None:
    # With eight rows and eight columns of latents, mindone's add_noise mixes rows and columns without an error.
    bucket = _bucket("img2img", steps=4, strength=0.3)
    rows = [_row(bucket, index % 4) for index in range(8)]
    together = _make(kandinsky, prior, decoder, bucket, rows)
    for index in range(8):
        _assert_same(together[index], _make(kandinsky, prior, decoder, bucket, [rows[index]])[0])


def test_both_decoders_hold_text_encoder_and_movq_once_where_their_files_are_the_same(
    kandinsky: ModuleType, checkpoint: Path, tmp_path: Path
) -> None:
    import mindspore as ms

    shutil.copytree(checkpoint, tmp_path, dirs_exist_ok=True)
    config = tmp_path / "kandinsky-2-1-inpaint" / "movq" / "config.json"
    config.write_text(config.read_text() + " ")
    for folder, shared in ((checkpoint, True), (tmp_path, False)):
        model = kandinsky.DecoderModel(folder, ms.float32)
        model.load("inpaint")
        model.load("text2img")
        one, other = model._pipelines["text2img"], model._pipelines["inpaint"]
        assert one.text_encoder is other.text_encoder
        assert (one.movq is other.movq) is shared
        assert one.unet is not other.unet
        assert model._pipelines["img2img"].movq is one.movq


def test_images_of_one_request_differ(kandinsky: ModuleType, prior: Any, decoder: Any) -> None:
    bucket = _bucket()
    rows = [_row(bucket, 0) | {"image_index": k} for k in range(2)]
    first, second = _make(kandinsky, prior, decoder, bucket, rows).astype(int)
    assert np.abs(first - second).mean() > 5


def test_interpolation_shares_the_priors_batches_and_skips_its_wasted_run(
    kandinsky: ModuleType, prior: Any, decoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    original = prior._embed
    monkeypatch.setattr(prior, "_embed", lambda prompts, *rest: calls.append(len(prompts)) or original(prompts, *rest))
    bucket = _bucket("interpolate")
    conditions = [
        [kandinsky.Condition(0.5, text=PROMPTS[row], generator=prior_generator(row, 0, c)) for c in range(2)]
        for row in range(3)
    ]
    prior.interpolate(conditions, None, bucket, 4)
    assert calls == [4, 2]


def test_the_embedding_of_the_zero_image_is_computed_once(prior: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = _bucket()
    first = prior.embed(["a"], None, [prior_generator(1, 0)], bucket)[1]

    def fail(*_: Any) -> None:
        raise AssertionError("the image encoder ran again")

    monkeypatch.setattr(type(prior._pipeline.image_encoder), "construct", fail)
    again = prior.embed(["b", "c"], None, [prior_generator(2, 0), prior_generator(3, 0)], bucket)[1]
    assert (again == first).all()


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (8, 8), (8, 12), (16, 5)])
def test_the_mask_is_prepared_as_mindone_does(kandinsky: ModuleType, size: tuple[int, int]) -> None:
    import mindspore as ms

    from tests.plain import plain_inpaint_module

    rng = np.random.default_rng(size)
    for share in (0.02, 0.3, 0.9, 1.0):
        masks = (rng.random((3, 1, *size)) < share).astype(np.float32)
        expected = plain_inpaint_module().prepare_mask(ms.Tensor(masks.copy())).asnumpy()
        given = ms.Tensor(masks.copy())
        assert (kandinsky.prepare_mask(given).asnumpy() == expected).all()
        assert (given.asnumpy() == masks).all(), "the argument was changed in place"


def test_prompts_longer_than_77_tokens_are_noticed(prior: Any, decoder: Any) -> None:
    texts = ["cat", "cat " * 75, "cat " * 76]
    assert prior.is_truncated(texts) == [False, False, True]
    assert decoder.is_truncated("text2img", texts) == [False, False, True]
