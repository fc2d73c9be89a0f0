"""The device stages on real models: what a batch carries away from them, and how a bad sample fails alone."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from manifests.batch import CONDITION_INPUT_TYPE, Batch, Bucket
from manifests.config import RunConfig
from tests.unit.workers.sample_batches import make_batch
from workers.stages.decoder import Decoder
from workers.stages.inputs import load_inputs
from workers.stages.prior import Prior

pytestmark = pytest.mark.models

CONFIG = RunConfig(manifest=("m.parquet",), output="out", batch_size=4)
#: Numbers in an embedding of the demo checkpoint.
WIDTH = 96
QUICK = {"steps": 2, "prior_steps": 2}


@pytest.fixture(scope="module")
def prior_stage(kandinsky: ModuleType) -> Prior:
    return Prior(CONFIG, "cpu")


@pytest.fixture(scope="module")
def decoder_stage(kandinsky: ModuleType) -> Decoder:
    return Decoder(CONFIG, "cpu")


def _quick(batch: Batch, **settings: Any) -> Batch:
    assert batch.bucket is not None
    bucket = Bucket.model_validate(batch.bucket.model_dump() | QUICK | settings)
    return Batch(batch.shard, batch.index, bucket, batch.samples)


def _rows(count: int) -> list[dict[str, Any]]:
    return [{"seed": 100 + i, "prompt": f"cat number {i}"} for i in range(count)]


def _embedded(prior_stage: Prior, rows: list[dict[str, Any]], **settings: Any) -> Batch:
    batch = _quick(load_inputs(make_batch("text2img", rows), 224), **settings)
    return Batch.from_block(prior_stage(batch.to_block()))


def _messages(batch: Batch) -> list[tuple[str, str | None]]:
    columns = (batch.samples.column(name).to_pylist() for name in ("status", "error_message"))
    return list(zip(*columns, strict=True))


def test_the_prior_adds_embeddings_of_fixed_width(prior_stage: Prior) -> None:
    batch = _embedded(prior_stage, _rows(2))
    for column in ("image_embeds", "negative_image_embeds"):
        assert batch.samples.schema.field(column).type == pa.list_(pa.float32(), WIDTH)
    first, second = np.array(batch.samples.column("image_embeds").to_pylist())
    assert np.abs(first - second).max() > 0.01


def test_embeddings_have_the_type_that_the_store_holds_whatever_the_model_gives(
    prior_stage: Prior, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prior_stage, "_dtype", np.dtype("float16"))
    batch = make_batch("text2img", _rows(2)).add("image_embeds", pa.list_(pa.float16(), WIDTH), {})
    batch = _quick(load_inputs(batch, 224))
    made = Batch.from_block(prior_stage(batch.to_block())).samples
    assert {made.schema.field(name).type for name in ("image_embeds", "negative_image_embeds")} == {
        pa.list_(pa.float16(), WIDTH)
    }
    assert made.column("status").to_pylist() == ["success"] * 2


def test_the_decoder_turns_embeddings_into_pixels_and_drops_them(prior_stage: Prior, decoder_stage: Decoder) -> None:
    batch = Batch.from_block(decoder_stage(_embedded(prior_stage, _rows(2)).to_block()))
    pixels = [np.frombuffer(p, np.uint8).reshape(64, 64, 3) for p in batch.samples.column("pixels").to_pylist()]
    assert len(pixels) == 2
    assert all(p.std() > 10 for p in pixels)
    assert "image_embeds" not in batch.samples.column_names


def test_a_sample_with_embeddings_that_are_not_numbers_fails_alone(prior_stage: Prior, decoder_stage: Decoder) -> None:
    batch = _embedded(prior_stage, _rows(3))
    embeds = batch.samples.column("image_embeds").to_pylist()
    embeds[1] = [float("nan")] * WIDTH
    spoilt = batch.add("image_embeds", pa.list_(pa.float32(), WIDTH), dict(enumerate(embeds)))
    whole = Batch.from_block(decoder_stage(batch.to_block()))
    result = Batch.from_block(decoder_stage(spoilt.to_block()))
    assert [status for status, _ in _messages(result)] == ["success", "failed_to_generate", "success"]
    assert "not finite" in str(_messages(result)[1][1])
    assert result.values("pixels", [0, 2]) == whole.values("pixels", [0, 2])
    assert result.values("pixels", [1]) == [None]


def test_a_sample_whose_device_call_raises_fails_alone_with_the_error(
    prior_stage: Prior, decoder_stage: Decoder
) -> None:
    rows = _rows(3)
    picture = np.arange(64 * 64 * 3).astype(np.uint8).tobytes()
    batch = load_inputs(make_batch("text2img", rows), 224)
    batch = _quick(batch, task="img2img", strength=0.5, steps=4)
    batch = batch.add("image_pixels", pa.large_binary(), {0: picture, 1: picture[:50], 2: picture})
    batch = Batch.from_block(prior_stage(batch.to_block()))
    result = Batch.from_block(decoder_stage(batch.to_block()))
    assert [status for status, _ in _messages(result)] == ["success", "failed_to_generate", "success"]
    assert str(_messages(result)[1][1]).startswith("ValueError: cannot reshape")


def test_a_batch_without_pending_samples_passes_untouched(prior_stage: Prior, decoder_stage: Decoder) -> None:
    failed = {"status": "failed_to_validate", "error_message": "steps: 0 is too small"}
    batch = make_batch("text2img", [failed, failed])
    rejected = Batch(3, 1, None, batch.samples)
    for stage in (prior_stage, decoder_stage):
        result = Batch.from_block(stage(rejected.to_block()))
        assert _messages(result) == [("failed_to_validate", "steps: 0 is too small")] * 2


def test_conditions_of_an_interpolation_reach_the_prior(prior_stage: Prior) -> None:
    picture = np.random.default_rng(1).integers(0, 255, (224, 224, 3), np.uint8).tobytes()
    text = {"text": "a cat", "pixels": None, "weight": 0.5}
    image = {"text": None, "pixels": picture, "weight": 0.5}
    batch = make_batch("interpolate", [{"prompt": "", "seed": 5}] * 3)
    conditions = {0: [text, image], 1: [text], 2: [text, image]}
    batch = batch.add("condition_inputs", CONDITION_INPUT_TYPE, conditions)
    result = Batch.from_block(prior_stage(_quick(batch).to_block()))
    embeds = np.array(result.samples.column("image_embeds").to_pylist())
    assert np.abs(embeds[0] - embeds[1]).max() > 0.01
    assert np.abs(embeds[0] - embeds[2]).max() < 1e-5
    assert "condition_inputs" not in result.samples.column_names


def test_a_negative_prompt_of_an_interpolation_changes_both_embeddings(prior_stage: Prior) -> None:
    text = {"text": "a cat", "pixels": None, "weight": 1.0}
    results = []
    for negative in (None, "blurry"):
        batch = make_batch("interpolate", [{"prompt": "", "seed": 5, "negative_prompt": negative}])
        batch = batch.add("condition_inputs", CONDITION_INPUT_TYPE, {0: [text]})
        results.append(Batch.from_block(prior_stage(_quick(batch, prior_guidance_scale=4.0).to_block())))
    for column in ("image_embeds", "negative_image_embeds"):
        first, second = (np.array(r.samples.column(column).to_pylist()[0]) for r in results)
        assert np.abs(first - second).max() > 0.01


def test_a_prompt_over_77_tokens_is_marked(prior_stage: Prior, decoder_stage: Decoder) -> None:
    batch = _embedded(prior_stage, [{"prompt": "cat " * 90}, {"prompt": "cat"}])
    result = Batch.from_block(decoder_stage(batch.to_block()))
    assert result.samples.column("prompt_truncated").to_pylist() == [True, False]


def test_embeddings_that_rows_bring_stay_and_only_what_they_lack_is_computed(
    prior_stage: Prior, decoder_stage: Decoder
) -> None:
    plain = _embedded(prior_stage, _rows(3))
    kind = plain.samples.schema.field("image_embeds").type
    embeds = {name: plain.samples.column(name).to_pylist() for name in ("image_embeds", "negative_image_embeds")}
    batch = _quick(load_inputs(make_batch("text2img", _rows(3)), 224))
    batch = batch.add("image_embeds", kind, {0: embeds["image_embeds"][1], 1: embeds["image_embeds"][1]})
    batch = batch.add("negative_image_embeds", kind, {1: embeds["negative_image_embeds"][0]})
    mixed = Batch.from_block(prior_stage(batch.to_block()))
    # The first row lacks the negative one only: that is the embedding of the all-zero image.
    assert mixed.values("negative_image_embeds", [0, 1]) == [embeds["negative_image_embeds"][0]] * 2
    assert mixed.values("image_embeds", [0, 1]) == [embeds["image_embeds"][1]] * 2
    assert np.abs(np.subtract(mixed.values("image_embeds", [2]), [embeds["image_embeds"][2]])).max() < 1e-5
    assert mixed.samples.column("embedding_truncated").to_pylist() == [None, None, False]
    assert len(Batch.from_block(decoder_stage(mixed.to_block())).pending) == 3
