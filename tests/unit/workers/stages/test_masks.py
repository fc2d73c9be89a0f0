"""Masks as people have them: what is meant by them where that is clear, and words where it is not."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.unit.workers.sample_batches import make_batch
from workers.stages.fetching import UnusableError
from workers.stages.inputs import load_inputs, look_at
from workers.stages.masks import fit_mask, repainting_mask

#: Where a hole is to be repainted: the upper third.
HOLE = np.zeros((60, 60), bool)
HOLE[:20] = True


def grey(inside: int, outside: int = 0, dtype: Any = np.uint8) -> Image.Image:
    return Image.fromarray(np.where(HOLE, inside, outside).astype(dtype))


def palette(colours: dict[int, tuple[int, int, int]]) -> Image.Image:
    image = Image.fromarray(np.where(HOLE, 1, 0).astype(np.uint8), "P")
    flat = [0] * 768
    for index, colour in colours.items():
        flat[3 * index : 3 * index + 3] = colour
    image.putpalette(flat)
    return image


def coloured(inside: tuple[int, ...], outside: tuple[int, ...] = (0, 0, 0)) -> Image.Image:
    return Image.fromarray(np.where(HOLE[..., None], inside, outside).astype(np.uint8))


def file_bytes(image: Image.Image) -> bytes:
    sink = io.BytesIO()
    image.save(sink, "PNG")
    return sink.getvalue()


ZERO_ONE = {
    "L": grey(1),
    "RGB": coloured((1, 1, 1)),
    "palette of greys": palette({0: (0, 0, 0), 1: (1, 1, 1)}),
    "16 bits": grey(1, dtype=np.uint16),
    "32 bits": grey(1, dtype=np.int32),
    "floats": grey(1, dtype=np.float32),
    "one bit": grey(1).point(lambda value: 255 * value, "1"),
    "with alpha": Image.merge("LA", (grey(1), Image.new("L", (60, 60), 255))),
}


@pytest.mark.parametrize("mask", ZERO_ONE.values(), ids=ZERO_ONE.keys())
@pytest.mark.parametrize("polarity", ["white", "black"])
def test_a_mask_of_0_and_1_is_one_of_0_and_255(mask: Image.Image, polarity: str) -> None:
    assert np.array_equal(repainting_mask(mask, 60, 60, polarity) >= 128, HOLE if polarity == "white" else ~HOLE)


@pytest.mark.parametrize("colour", ["black", "white", "red"])
@pytest.mark.parametrize("hidden", ["black", "white", "red"])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_painted_on_nothing_is_repainted_whatever_colours_are_hidden(
    colour: str, hidden: str, mode: str
) -> None:
    painted = Image.new("RGB", (60, 60), hidden)
    painted.paste(colour, (0, 0, 60, 20))
    painted.putalpha(Image.fromarray(np.where(HOLE, 255, 0).astype(np.uint8)))
    mask = painted.quantize(4) if mode == "P" else painted.convert(mode)
    assert np.array_equal(fit_mask(mask, 60, 60, "white") >= 128, HOLE)
    assert np.array_equal(fit_mask(mask, 60, 60, "black") >= 128, ~HOLE)
    doubt = look_at(file_bytes(mask), "white").doubt
    assert doubt == "is read from its transparency: what is opaque is repainted"


IDLE: dict[str, tuple[Image.Image, str, str]] = {
    "class ids": (grey(15), "white", "holds the values 0 and 15, .* may be class ids; make what is meant 255"),
    "many class ids": (
        Image.fromarray((np.arange(3600).reshape(60, 60) % 12).astype(np.uint8)),
        "white",
        "holds 12 values from 0 to 11, .* may be class ids",
    ),
    "a palette": (palette({1: (128, 0, 0)}), "white", "the colours #000000 and #800000 count by their brightness"),
    "pure red": (coloured((255, 0, 0)), "white", "values 0 and 76, .* #000000 and #ff0000 count by their brightness"),
    "a dark picture": (
        Image.fromarray((np.arange(3600).reshape(60, 60) % 100).astype(np.uint8)),
        "white",
        "100 values from 0 to 99, .*all of them are dark",
    ),
    "a light one": (grey(250, 200), "black", "below 128; all of them are light; make what is meant 0"),
}


@pytest.mark.parametrize(("mask", "polarity", "words"), IDLE.values(), ids=IDLE.keys())
def test_a_mask_that_shows_something_and_repaints_nothing_fails_with_what_it_holds(
    mask: Image.Image, polarity: str, words: str
) -> None:
    with pytest.raises(UnusableError, match=f"repaints nothing: .*{words}"):
        repainting_mask(mask, 60, 60, polarity)
    row = {
        "image": {"bytes": file_bytes(grey(9)), "path": None},
        "mask": {"bytes": file_bytes(mask), "path": "m.png"},
        "mask_polarity": polarity,
    }
    batch = load_inputs(make_batch("inpaint", [row]), 32)
    (message,) = batch.samples.column("error_message").to_pylist()
    assert message.startswith("mask (inline bytes of m.png) repaints nothing")
    assert look_at(file_bytes(mask), polarity).problem


def test_white_that_vanishes_at_the_size_is_told_as_that() -> None:
    speck = np.zeros((640, 640), np.uint8)
    speck[5, 5] = 255
    with pytest.raises(UnusableError, match="what is white in it vanishes at this size"):
        repainting_mask(Image.fromarray(speck), 64, 64, "white")


@pytest.mark.parametrize("value", [0, 60, 127])
def test_a_blank_mask_may_repaint_nothing_on_purpose(value: int) -> None:
    blank = Image.new("L", (60, 60), value)
    assert repainting_mask(blank, 60, 60, "white").max() == value
    assert look_at(file_bytes(blank), "white").problem is None


def test_class_ids_beside_white_are_doubted_and_soft_edges_are_not() -> None:
    ids = np.zeros((60, 60), np.uint8)
    ids[:20], ids[20:25] = 15, 255
    doubt = look_at(file_bytes(Image.fromarray(ids)), "white").doubt
    assert doubt is not None
    assert doubt.startswith("holds the values 0, 15 and 255, of which those below 128 count as black")
    soft = grey(255).resize((120, 120), Image.Resampling.BICUBIC)
    for mask in (grey(255), soft, grey(1)):
        assert look_at(file_bytes(mask), "white").doubt is None
