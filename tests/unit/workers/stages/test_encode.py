"""The encode stage: files that open, hashes that fit, and provenance that image tools can read back."""

from __future__ import annotations

import hashlib
import io
import json
import re
from typing import Any

import numpy as np
import pyarrow as pa
import pyexiv2
import pytest
from PIL import Image

from manifests.batch import Batch
from manifests.config import RunConfig
from tests.unit.workers.sample_batches import make_batch
from workers.stages.encode import encode_images, parameters_text

RNG = np.random.default_rng(3)


def config(kind: str = "png", quality: int = 95, **settings: Any) -> RunConfig:
    given = {"manifest": ("m.parquet",), "output": "out", "image_format": kind, "quality": quality}
    return RunConfig.model_validate({**given, **settings})


def with_pixels(batch: Batch, pixels: dict[int, bytes] | None = None) -> Batch:
    size = (batch.bucket.height, batch.bucket.width, 3)  # type: ignore[union-attr]
    pixels = pixels or {i: RNG.integers(0, 256, size, dtype=np.uint8).tobytes() for i in batch.pending}
    return batch.add("pixels", pa.large_binary(), pixels)


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def provenance(data: bytes) -> str:
    """The text as A1111 and its readers look it up."""
    image = opened(data)
    if image.format == "PNG":
        return str(image.info["parameters"])
    comment = image.getexif().get_ifd(0x8769)[0x9286]
    assert comment[:8] == b"UNICODE\x00"
    return str(comment[8:].decode("utf-16-be"))


def parse(text: str) -> tuple[str, str | None, dict[str, str]]:
    """Read the text back by the rules of the web UI: last line of pairs, negative prompt by its label."""
    *lines, last = text.strip().split("\n")
    pairs = re.findall(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)', last)
    prompt, negative = [], None
    for line in lines:
        if line.startswith("Negative prompt:"):
            negative = line[16:].strip()
        elif negative is not None:
            negative += f"\n{line}"
        else:
            prompt.append(line)
    return "\n".join(prompt), negative, {k: json.loads(v) if v[:1] == '"' else v for k, v in pairs}


def test_png_holds_exactly_the_decoders_pixels() -> None:
    batch = with_pixels(make_batch("text2img", [{}, {}], size=(128, 64)))
    raw = batch.values("pixels", [0, 1])
    done = encode_images(batch, config())
    assert "pixels" not in done.samples.column_names
    for before, data, digest in zip(raw, done.values("encoded", [0, 1]), done.values("sha256", [0, 1]), strict=True):
        image = opened(data)
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (128, 64))
        assert image.tobytes() == before
        assert digest == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(("kind", "name"), [("jpg", "JPEG"), ("webp", "WEBP")])
def test_quality_moves_the_size_of_lossy_files(kind: str, name: str) -> None:
    batch = with_pixels(make_batch("text2img", [{}]))
    (fine,) = encode_images(batch, config(kind, 95)).values("encoded", [0])
    (coarse,) = encode_images(batch, config(kind, 30)).values("encoded", [0])
    assert opened(fine).format == name
    assert len(coarse) < len(fine) * 0.7


@pytest.mark.parametrize("kind", ["png", "jpg", "webp"])
def test_the_same_sample_gives_the_same_bytes(kind: str) -> None:
    batch = with_pixels(make_batch("img2img", [{"negative_prompt": "blurry"}]))
    first, second = (encode_images(batch, config(kind)).values("encoded", [0]) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("kind", ["png", "jpg", "webp"])
@pytest.mark.parametrize("prompt", ["a cat, 4k", "кот в шляпе", "line one\nline two", "日本 😀"])
def test_provenance_reads_back(kind: str, prompt: str) -> None:
    row = {
        "id": "row: 1, again",
        "image_index": 2,
        "caption": prompt,
        "prompt": prompt,
        "negative_prompt": "low quality\nblurry",
        "seed": 2**64 - 1,
        "guidance_scale": 4.125,
        "checkpoint": "s3://models/kandinsky-community/",
    }
    batch = encode_images(with_pixels(make_batch("img2img", [row], size=(128, 64))), config(kind))
    text, negative, pairs = parse(provenance(batch.values("encoded", [0])[0]))
    assert (text, negative) == (prompt, "low quality\nblurry")
    assert pairs == {
        "Steps": "10",
        "Sampler": "DDIM",
        "CFG scale": "4.125",
        "Seed": str(2**64 - 1),
        "Size": "128x64",
        "Model": "kandinsky-community",
        "Denoising strength": "0.5",
        "Task": "img2img",
        "Image index": "2",
        "Prior steps": "5",
        "Prior CFG scale": "1",
        "ID": "row: 1, again",
    }


def xmp(data: bytes) -> dict[str, str]:
    """Read by exiv2, which photo archives use."""
    with pyexiv2.ImageData(data) as image:
        properties: dict[str, str] = image.read_xmp()
        return properties


@pytest.mark.parametrize("kind", ["png", "jpg", "webp"])
@pytest.mark.parametrize("task", ["text2img", "inpaint"])
def test_images_say_that_a_model_has_made_them(kind: str, task: str) -> None:
    (data,) = encode_images(with_pixels(make_batch(task, [{}])), config(kind)).values("encoded", [0])
    assert xmp(data) == {
        "Xmp.iptcExt.DigitalSourceType": "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
    }


@pytest.mark.parametrize("kind", ["png", "jpg", "webp"])
def test_without_the_mark_there_is_none_and_all_else_is_the_same(kind: str) -> None:
    batch = with_pixels(make_batch("text2img", [{"caption": "a cat"}]))
    (marked,) = encode_images(batch, config(kind)).values("encoded", [0])
    (plain,) = encode_images(batch, config(kind, mark=False)).values("encoded", [0])
    assert xmp(plain) == {}
    assert opened(plain).tobytes() == opened(marked).tobytes()
    assert provenance(plain) == provenance(marked)


def test_an_absent_negative_prompt_differs_from_an_empty_one() -> None:
    assert "Negative prompt" not in parameters_text({"caption": "a cat", "negative_prompt": None})
    assert "\nNegative prompt: \n" in parameters_text({"caption": "a cat", "negative_prompt": ""})


def test_an_interpolation_states_its_conditions() -> None:
    conditions = [
        {"text": "a cat", "image": None, "weight": 0.3},
        {"text": None, "image": "b.png", "weight": 0.7},
    ]
    record: dict[str, Any] = {"caption": "a cat", "prompt": "", "conditions": conditions}
    prompt, _, pairs = parse(parameters_text({**record, "id": "x", "steps": 3, "seed": 1}))
    assert prompt == "a cat"
    assert json.loads(pairs["Conditions"]) == conditions


@pytest.mark.parametrize("kind", ["png", "jpg", "webp"])
def test_a_prompt_too_long_for_exif_is_cut_and_the_settings_stay(kind: str) -> None:
    row = {"caption": "😀" * 40_000, "negative_prompt": "x" * 40_000, "seed": 99}
    batch = encode_images(with_pixels(make_batch("text2img", [row])), config(kind))
    assert batch.pending == [0]
    _, _, pairs = parse(provenance(batch.values("encoded", [0])[0]))
    assert pairs["Seed"] == "99"


def test_a_zero_byte_in_a_prompt_does_not_cut_the_provenance() -> None:
    batch = encode_images(with_pixels(make_batch("text2img", [{"caption": "a\x00b"}])), config())
    assert parse(provenance(batch.values("encoded", [0])[0]))[0] == "a b"


def test_wrong_or_missing_pixels_fail_their_row_only() -> None:
    batch = make_batch("text2img", [{}, {}, {}, {"status": "failed_to_generate", "error_message": "NaN"}])
    good = bytes(64 * 64 * 3)
    done = encode_images(with_pixels(batch, {0: good, 1: b"short"}), config())
    assert done.pending == [0]
    messages = done.samples.column("error_message").to_pylist()
    assert "the decoder left 5 bytes" in messages[1]
    assert "left no pixels" in messages[2]
    assert messages[3] == "NaN"
    assert done.values("sha256", [1, 2, 3]) == [None] * 3


def test_a_codecs_refusal_fails_the_row() -> None:
    batch = make_batch("text2img", [{}], size=(16_384 + 64, 64))
    done = encode_images(with_pixels(batch), config("webp"))
    assert done.samples.column("status").to_pylist() == ["failed_to_encode"]
    assert "cannot be written as webp" in done.samples.column("error_message")[0].as_py()


def test_a_batch_without_pending_samples_passes_through() -> None:
    batch = make_batch("text2img", [{"status": "failed_to_load", "error_message": "gone"}])
    done = encode_images(batch, config())
    assert done.samples.column("encoded").null_count == 1
    assert done.samples.column("error_message").to_pylist() == ["gone"]
