"""Any mask, whatever its mode, values and palette: pixels that repaint something, or words; never a traceback."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from workers.stages.fetching import UnusableError
from workers.stages.masks import CUT, doubt, fit_mask, repainting_mask

SIDES = st.integers(1, 9)
#: Pillow's modes with the type and the channels of their values.
KINDS: dict[str, tuple[Any, int]] = {
    "L": (np.uint8, 1),
    "RGB": (np.uint8, 3),
    "RGBA": (np.uint8, 4),
    "I;16": (np.uint16, 1),
    "I": (np.int32, 1),
    "F": (np.float32, 1),
}


@st.composite
def masks(draw: st.DrawFn) -> Image.Image:
    """A mask of few values, as people's masks have them, in any mode; some with a palette, some with one bit."""
    mode = draw(st.sampled_from([*KINDS, "P", "1"]))
    dtype, channels = KINDS.get(mode, (np.uint8, 1))
    top = {np.uint16: 65535, np.int32: 70000}.get(dtype, 255)
    few = st.sampled_from(draw(st.lists(st.integers(0, top), min_size=1, max_size=4)))
    shape = (draw(SIDES), draw(SIDES)) + ((channels,) if channels > 1 else ())
    values = draw(arrays.arrays(dtype, shape, elements=few))
    if mode == "1":
        return Image.fromarray(values).point(lambda value: 255 * (value > 127), "1")
    image = Image.fromarray(values)
    if mode == "P":
        image.putpalette(draw(st.binary(min_size=768, max_size=768)))
        if draw(st.booleans()):
            image.info["transparency"] = draw(st.integers(0, 255))
    return image


@settings(max_examples=200)
@given(masks(), SIDES, SIDES, st.sampled_from(["white", "black"]))
def test_it_repaints_something_or_is_told_with_what_it_holds(
    mask: Image.Image, width: int, height: int, polarity: str
) -> None:
    try:
        fitted = repainting_mask(mask, width, height, polarity)
    except UnusableError as error:
        words = str(error)
    else:
        words = ""
    assert not words or "repaints nothing" in words or "no agreed scale" in words
    if words:
        return
    assert (fitted.dtype, fitted.shape) == (np.uint8, (height, width))
    assert np.array_equal(fitted, fit_mask(mask, width, height, polarity))
    assert doubt(mask) is None or len(doubt(mask) or "") > 20


@settings(max_examples=100)
@given(masks(), SIDES, SIDES)
def test_the_two_polarities_share_the_image_between_them(mask: Image.Image, width: int, height: int) -> None:
    try:
        white, black = (fit_mask(mask, width, height, polarity) >= CUT for polarity in ("white", "black"))
    except UnusableError:
        return
    assert np.array_equal(white, ~black)
