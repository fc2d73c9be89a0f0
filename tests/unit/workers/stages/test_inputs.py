"""The inputs stage: what users' image files become, and what is said of those that cannot be used."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile, PngImagePlugin

from manifests import storage
from manifests.errors import StorageError
from tests.unit.workers.sample_batches import make_batch
from workers.stages import inputs
from workers.stages.fetching import UnusableError
from workers.stages.inputs import load_inputs
from workers.stages.masks import fit_mask
from workers.stages.pixels import MAX_PIXELS, decode, fit_condition, fit_image, to_rgb

RNG = np.random.default_rng(5)


def noise(width: int, height: int, channels: int = 3) -> Image.Image:
    shape = (height, width) if channels == 1 else (height, width, channels)
    return Image.fromarray(RNG.integers(0, 256, shape, dtype=np.uint8))


def file_bytes(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


def inline(image: Image.Image | bytes, path: str | None = None) -> dict[str, Any]:
    return {"bytes": image if isinstance(image, bytes) else file_bytes(image), "path": path}


def at(path: Path | str) -> dict[str, Any]:
    return {"bytes": None, "path": str(path)}


def loaded(batch: Any, column: str, position: int) -> np.ndarray:
    (raw,) = batch.values(column, [position])
    values = np.frombuffer(raw, np.uint8)
    shape = (batch.bucket.height, batch.bucket.width)
    return values.reshape(shape if column == "mask_pixels" else (*shape, 3))


def messages(batch: Any) -> list[str | None]:
    return batch.samples.column("error_message").to_pylist()


# ---- what the stage hands on


def test_img2img_image_has_the_pixels_of_the_pipelines_own_resize() -> None:
    source = noise(301, 77)
    batch = load_inputs(make_batch("img2img", [{"image": inline(source)}], size=(128, 64)), 32)
    expected = source.resize((128, 64), resample=Image.Resampling.BICUBIC, reducing_gap=1).convert("RGB")
    assert np.array_equal(loaded(batch, "image_pixels", 0), np.asarray(expected))
    assert batch.samples.column("mask_pixels").null_count == 1
    assert batch.samples.column("condition_inputs").null_count == 1


def test_source_columns_are_gone_and_text2img_needs_none() -> None:
    batch = load_inputs(make_batch("text2img", [{}]), 32)
    assert not {"image", "mask", "condition_sources"} & set(batch.samples.column_names)
    assert batch.pending == [0]
    assert batch.samples.column("image_pixels").null_count == 1


def test_an_image_that_fits_already_is_not_touched() -> None:
    source = noise(64, 128)
    assert np.array_equal(fit_image(source, 64, 128), np.asarray(source))
    again = Image.fromarray(fit_image(noise(99, 31), 64, 128))
    resized = again.resize((64, 128), resample=Image.Resampling.BICUBIC, reducing_gap=1)
    assert np.array_equal(np.asarray(resized), np.asarray(again))


def test_inpaint_gets_image_and_mask_and_black_polarity_is_turned_around() -> None:
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (0, 0, 32, 64))
    rows = [
        {"image": inline(noise(64, 64)), "mask": inline(mask)},
        {"image": inline(noise(64, 64)), "mask": inline(mask), "mask_polarity": "black"},
    ]
    batch = load_inputs(make_batch("inpaint", rows), 32)
    white, black = loaded(batch, "mask_pixels", 0), loaded(batch, "mask_pixels", 1)
    assert (white[:, :32] == 255).all()
    assert (white[:, 32:] == 0).all()
    assert np.array_equal(black, 255 - white)


def test_interpolation_keeps_order_texts_and_weights() -> None:
    sources = [
        {"text": "a cat", "image": None, "weight": 0.3},
        {"text": None, "image": inline(noise(50, 40)), "weight": 0.7},
    ]
    batch = load_inputs(make_batch("interpolate", [{"condition_sources": sources}]), 32)
    (conditions,) = batch.values("condition_inputs", [0])
    assert [(c["text"], c["weight"]) for c in conditions] == [("a cat", 0.3), (None, 0.7)]
    assert conditions[0]["pixels"] is None
    assert len(conditions[1]["pixels"]) == 32 * 32 * 3


def test_inline_bytes_win_over_the_path() -> None:
    image = noise(64, 64)
    batch = load_inputs(make_batch("img2img", [{"image": inline(image, "/nowhere/cat.png")}]), 32)
    assert np.array_equal(loaded(batch, "image_pixels", 0), np.asarray(image))


def test_a_file_is_fetched_once_per_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise(64, 64).save(tmp_path / "a.png")
    asked: list[str] = []
    real = storage.read_bytes

    def counting(url: str) -> bytes:
        asked.append(url)
        return real(url)

    monkeypatch.setattr(storage, "read_bytes", counting)
    rows = [{"image": at(tmp_path / "a.png"), "mask": at(tmp_path / "a.png")}] * 4
    assert load_inputs(make_batch("inpaint", rows), 32).pending == [0, 1, 2, 3]
    assert asked == [str(tmp_path / "a.png")]


def test_remote_files_are_fetched_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    data = file_bytes(noise(64, 64))
    together = threading.Barrier(4, timeout=120)

    def fetch(url: str) -> bytes:
        together.wait()
        return data

    monkeypatch.setattr(storage, "read_bytes", fetch)
    rows = [{"image": at(f"s3://bucket/{i}.png")} for i in range(4)]
    assert load_inputs(make_batch("img2img", rows), 32).pending == [0, 1, 2, 3]


def test_urls_are_read_through_storage() -> None:
    storage.write_atomic("memory://photos/a.png", file_bytes(noise(64, 64)))
    batch = load_inputs(make_batch("img2img", [{"image": at("memory://photos/a.png")}]), 32)
    assert batch.pending == [0]


# ---- geometry of masks and conditions


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
@pytest.mark.parametrize("shape", [(64, 96), (301, 77), (20, 33)])
def test_a_mask_is_what_the_inpaint_pipeline_makes_of_it(mode: str, shape: tuple[int, int]) -> None:
    mask = noise(*shape).convert(mode)
    expected = np.asarray(mask.resize((64, 96), resample=Image.Resampling.LANCZOS).convert("L"))
    assert np.array_equal(fit_mask(mask, 64, 96, "white"), expected)


def test_inverting_a_grey_mask_inverts_what_the_pipeline_cuts_at_one_half() -> None:
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    white, black = fit_mask(ramp, 16, 16, "white"), fit_mask(ramp, 16, 16, "black")
    assert np.array_equal(white / 255.0 >= 0.5, ~(black / 255.0 >= 0.5))


def test_luminance_wins_over_alpha_where_both_vary() -> None:
    luminance = noise(64, 64, 1)
    mask = Image.merge("LA", (luminance, noise(64, 64, 1)))
    assert np.array_equal(fit_mask(mask, 64, 64, "white"), np.asarray(luminance))


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_a_deep_mask_is_scaled_and_not_clipped(dtype: type) -> None:
    deep = Image.fromarray(np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(dtype))
    mask = fit_mask(deep, 64, 64, "white")
    assert mask[0, 0] == 0
    assert abs(int(mask[32, 0]) - 128) <= 1
    assert mask[-1, -1] == 255


CLIP_SHAPES = [(224, 224), (225, 223), (301, 77), (77, 301), (1000, 400), (5, 9), (100, 100), (223, 700)]


@pytest.mark.parametrize("shape", CLIP_SHAPES, ids=str)
def test_clip_sees_the_same_numbers_as_from_the_original_file(shape: tuple[int, int]) -> None:
    from transformers import CLIPImageProcessor

    processor = CLIPImageProcessor()
    original = noise(*shape)
    direct = processor(original, return_tensors="np").pixel_values
    ours = Image.fromarray(fit_condition(original, 224))
    assert ours.size == (224, 224)
    assert np.array_equal(processor(ours, return_tensors="np").pixel_values, direct)


@pytest.mark.parametrize("size", [32, 33])
def test_the_crop_follows_a_small_checkpoints_size(size: int) -> None:
    from transformers import CLIPImageProcessor

    processor = CLIPImageProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
    original = noise(101, 58)
    direct = processor(original, return_tensors="np").pixel_values
    ours = processor(Image.fromarray(fit_condition(original, size)), return_tensors="np").pixel_values
    assert np.array_equal(ours, direct)


# ---- every kind of file


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_modes_become_rgb_as_pillow_converts_them(mode: str) -> None:
    source = noise(20, 10).convert("P").convert("PA") if mode == "PA" else noise(20, 10).convert(mode)
    assert np.array_equal(np.asarray(to_rgb(source)), np.asarray(source.convert("RGB")))


def test_colours_under_transparency_stay_as_load_image_of_diffusers_keeps_them() -> None:
    source = Image.new("RGBA", (8, 8), (10, 200, 30, 0))
    assert to_rgb(decode(file_bytes(source))).getpixel((0, 0)) == (10, 200, 30)
    palette = noise(8, 8).convert("P")
    data = file_bytes(palette, "PNG", transparency=bytes(range(256)))
    assert np.array_equal(np.asarray(to_rgb(decode(data))), np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bit_files_keep_their_greys(kind: str) -> None:
    deep = Image.fromarray((np.arange(256, dtype=np.uint16) * 257).reshape(16, 16))
    rgb = np.asarray(to_rgb(decode(file_bytes(deep, kind))))
    assert np.array_equal(rgb[..., 0].ravel(), np.arange(256))


def test_eight_bit_values_in_a_deep_file_and_unit_floats_keep_their_scale() -> None:
    labels = Image.fromarray(np.array([[0, 255]], np.uint16))
    assert np.asarray(to_rgb(decode(file_bytes(labels))))[0, :, 0].tolist() == [0, 255]
    floats = Image.fromarray(np.array([[0.0, 0.5, 1.0]], np.float32))
    assert np.asarray(to_rgb(decode(file_bytes(floats, "TIFF"))))[0, :, 0].tolist() == [0, 128, 255]


def test_a_png_file_may_hold_a_whole_workflow_as_text() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("workflow", "x" * (2 << 20), zip=True)
    assert decode(file_bytes(noise(16, 16), "PNG", pnginfo=info)).size == (16, 16)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 95, "subsampling": 0}], ids=str)
def test_a_jpeg_file_without_its_end_mark_is_whole(options: dict[str, Any]) -> None:
    whole = file_bytes(noise(64, 64), "JPEG", **options)
    assert np.array_equal(np.asarray(decode(whole[:-2])), np.asarray(decode(whole)))
    for part in (0.5, 0.8, 0.95):
        with pytest.raises(UnusableError, match="is truncated or damaged"):
            decode(whole[: int(len(whole) * part)])


@pytest.mark.parametrize("values", [[-1.0, 2.0], [0.0, np.nan], [0.0, 1e6]])
def test_float_values_without_an_agreed_scale_fail_the_row(values: list[float]) -> None:
    data = file_bytes(Image.fromarray(np.array([values], np.float32)), "TIFF")
    batch = load_inputs(make_batch("img2img", [{"image": inline(data)}]), 32)
    assert "no agreed scale" in str(messages(batch)[0])


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_an_animation_gives_its_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "lime", "blue")]
    lossless = {"lossless": True} if kind == "WEBP" else {}
    data = file_bytes(frames[0], kind, save_all=True, append_images=frames[1:], **lossless)
    assert to_rgb(decode(data)).getpixel((3, 3)) == (255, 0, 0)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied(kind: str) -> None:
    source = Image.new("RGB", (48, 16), "blue")
    source.paste("red", (0, 0, 16, 16))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by 90 degrees clockwise
    upright = to_rgb(decode(file_bytes(source, kind, exif=exif)))
    assert upright.size == (16, 48)
    red, green, blue = upright.getpixel((8, 4))
    assert red > 200 > 60 > max(green, blue)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_unreadable_exif_does_not_lose_an_image() -> None:
    data = file_bytes(Image.new("RGB", (16, 16), "red"), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")
    assert decode(data).size == (16, 16)


@pytest.mark.parametrize("kind", ["BMP", "AVIF", "JPEG2000"])
def test_other_common_formats_open(kind: str) -> None:
    assert to_rgb(decode(file_bytes(noise(32, 16), kind))).size == (32, 16)


# ---- what cannot be used


def png_header(width: int, height: int) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_each_bad_row_fails_with_its_reason_and_its_mates_succeed(tmp_path: Path) -> None:
    whole = file_bytes(noise(64, 64), "JPEG")
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "page.png").write_bytes(b"<html>404 not found</html>")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "good.jpg").write_bytes(whole)
    bad: list[tuple[dict[str, Any] | None, str]] = [
        (at(tmp_path / "missing.png"), "missing.png) does not exist; correct the path"),
        (at(tmp_path / "cut.jpg"), "cut.jpg) is truncated or damaged"),
        (at(tmp_path / "page.png"), "page.png) is not an image that can be read; give one of PNG"),
        (at(tmp_path / "empty.png"), "empty.png) is empty (0 bytes)"),
        (at(tmp_path), f"({tmp_path}) is a folder"),
        (at("nosuch://bucket/a.png"), "cannot be read"),
        (inline(b""), "image (inline bytes) is empty"),
        (inline(b"GIF89a", "a.gif"), "image (inline bytes of a.gif)"),
        (inline(png_header(20_000, 10_000)), "over the limit of 178,956,970 pixels"),
        (inline(b"\x89PNG\r\n\x1a\n" + b"\xff" * 50), "image (inline bytes)"),
        (None, "image: no image is given"),
        ({"bytes": None, "path": None}, "image: no image is given"),
    ]
    rows: list[dict[str, Any]] = [{"image": source} for source, _ in bad] + [{"image": at(tmp_path / "good.jpg")}]
    batch = load_inputs(make_batch("img2img", rows), 32)
    assert batch.pending == [len(bad)]
    for message, (_, reason) in zip(messages(batch), bad, strict=False):
        assert reason in str(message)
        assert str(message).startswith("image")
    assert batch.samples.column("status").to_pylist()[:-1] == ["failed_to_load"] * len(bad)
    assert batch.values("image_pixels", [0]) == [None]


def test_the_message_names_mask_and_condition(tmp_path: Path) -> None:
    image = inline(noise(64, 64))
    batch = load_inputs(make_batch("inpaint", [{"image": image, "mask": at(tmp_path / "m.png")}, {"image": image}]), 32)
    assert str(messages(batch)[0]).startswith(f"mask ({tmp_path / 'm.png'}) does not exist")
    assert messages(batch)[1] == "mask: no image is given; set a path or inline bytes"
    assert batch.samples.column("image_pixels").null_count == 2

    sources = [
        {"text": "x", "image": None, "weight": 0.5},
        {"text": None, "image": inline(b"no"), "weight": 0.5},
    ]
    batch = load_inputs(make_batch("interpolate", [{"condition_sources": sources}]), 32)
    assert str(messages(batch)[0]).startswith("conditions[1].image (inline bytes) is not an image")


def test_a_forbidden_file_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(url: str) -> bytes:
        try:
            raise PermissionError(13, "Permission denied", url)
        except PermissionError as error:
            raise StorageError("cannot read") from error

    monkeypatch.setattr(storage, "read_bytes", refuse)
    batch = load_inputs(make_batch("img2img", [{"image": at("/secret/a.png")}]), 32)
    assert str(messages(batch)[0]).startswith("image (/secret/a.png) may not be read by the workers")


def test_a_bomb_is_refused_from_its_header_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: pytest.fail("it was unpacked"))
    for width, height in ((65_535, 65_535), (13_378, 13_378), (MAX_PIXELS // 10 + 1, 10)):
        with pytest.raises(UnusableError, match="over the limit of 178,956,970 pixels"):
            decode(png_header(width, height))


def test_a_condition_too_thin_to_resize_is_refused() -> None:
    with pytest.raises(UnusableError, match="too long and thin"):
        fit_condition(Image.new("RGB", (60_000, 1)), 224)


def test_a_codecs_unexpected_error_stays_in_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad = file_bytes(noise(64, 64)), file_bytes(noise(64, 64))
    real = inputs.decode

    def explode(data: bytes) -> Image.Image:
        if data == bad:
            raise MemoryError("out of memory")
        return real(data)

    monkeypatch.setattr(inputs, "decode", explode)
    batch = load_inputs(make_batch("img2img", [{"image": inline(bad)}, {"image": inline(good)}]), 32)
    assert batch.pending == [1]
    assert "MemoryError: out of memory" in str(messages(batch)[0])


def test_postscript_is_not_opened_because_it_would_start_a_program() -> None:
    with pytest.raises(UnusableError, match="not an image"):
        decode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n")


def test_failed_rows_and_batches_without_a_bucket_pass_through() -> None:
    batch = make_batch("img2img", [{"status": "failed_to_validate", "error_message": "bad", "image": None}])
    after = load_inputs(batch, 32)
    assert messages(after) == ["bad"]
    without = load_inputs(type(batch)(0, 0, None, batch.samples), 32)
    assert messages(without) == ["bad"]
    assert "image_pixels" in without.samples.column_names


def test_the_cpu_stages_import_no_model_code() -> None:
    script = (
        "import sys, workers.stages.inputs, workers.stages.encode, workers.stages.shards, manifests.commit;"
        "bad = {'mindspore', 'mindone', 'ray', 'transformers'} & set(sys.modules);"
        "sys.exit(str(bad) if bad else 0)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


PIPELINES_OWN_VIEW = """
import numpy as np
from PIL import Image
from mindone.diffusers.image_processor import VaeImageProcessor
from mindone.diffusers.pipelines.kandinsky.pipeline_kandinsky_inpaint import prepare_mask_and_masked_image
from workers.stages.masks import fit_mask
from workers.stages.pixels import fit_image

rng = np.random.default_rng(0)
processor = VaeImageProcessor(vae_scale_factor=8, vae_latent_channels=4, resample="bicubic", reducing_gap=1)
for width, height in ((301, 77), (64, 128), (33, 500)):
    image = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
    mask = Image.fromarray(rng.integers(0, 256, (height, width), dtype=np.uint8))
    ours = Image.fromarray(fit_image(image, 64, 128)), Image.fromarray(fit_mask(mask, 64, 128, "white"))
    theirs = prepare_mask_and_masked_image(image, mask, 128, 64)
    for a, b in zip(theirs, prepare_mask_and_masked_image(*ours, 128, 64)):
        assert np.array_equal(a.asnumpy(), b.asnumpy())
    a, b = (processor.preprocess(i, 128, 64).asnumpy() for i in (image, ours[0]))
    assert np.array_equal(a, b)
"""


@pytest.mark.models
def test_the_real_pipelines_see_what_they_would_make_of_the_original_files() -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-c", PIPELINES_OWN_VIEW], check=True, timeout=300)
