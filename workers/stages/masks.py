"""Inpainting masks: which pixels are repainted, and what is said of a mask that would repaint none of them.

White is repainted, from one half on, as in the pipeline. Files that mean the same in another way are read as such:
masks of 0 and 1 count as 0 and 255, and where all that can be seen of a mask has one colour, what is painted in it is
repainted, whatever colour that is and lies hidden under the transparent rest. Class ids, palettes and colours have no
meaning that could be known: where they leave nothing to repaint the row fails with the values found.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from workers.stages.fetching import UnusableError
from workers.stages.pixels import Pixels, to_8bit

#: From here on a pixel is repainted.
CUT = 128

#: Values that are named; of more only the lowest and the highest.
_NAMED = 6

#: Distinct values of a mask that somebody has filled with class ids rather than painted.
_FEW = 32

#: Share of a mask that values between black and the cut must have to be worth a word; edges are grey as well.
_NOTABLE = 0.05


def fit_mask(image: Image.Image, width: int, height: int, polarity: str) -> Pixels:
    """Inpainting mask: uint8 (height, width), 255 = repaint; greys are kept, the pipeline cuts at one half.

    The luminance is the mask and alpha is ignored, as in the pipeline. Only where the luminance is one value wherever
    anything can be seen, and alpha is not (a mask exported as transparency), alpha is the mask: opaque counts as white.
    With polarity "black" the result is inverted, which moves the cut exactly: 127 becomes 128.
    """
    image = _channel(image)
    # Resized in its own mode and then made luminance, in the pipeline's order: the other order rounds
    # differently.
    mask = np.asarray(image.resize((width, height), resample=Image.Resampling.LANCZOS).convert("L"))
    return np.invert(mask) if polarity == "black" else mask


def repainting_mask(image: Image.Image, width: int, height: int, polarity: str) -> Pixels:
    """`fit_mask` of a mask that repaints something, or is of one colour and so repaints nothing on purpose.

    Raises:
        UnusableError: it shows something, and repaints nothing.
    """
    mask = fit_mask(image, width, height, polarity)
    if mask.max(initial=0) < CUT:
        luminance = np.asarray(_channel(image).convert("L"))
        if luminance.min() != luminance.max():
            raise UnusableError(_idle(image, luminance, polarity))
    return mask


def doubt(image: Image.Image) -> str | None:
    """Words for a mask that may mean something else: by its values, or by its transparency; None for any other."""
    if _painted(to_8bit(image)) is not None:
        return "is read from its transparency: what is opaque is repainted"
    luminance = np.asarray(_channel(image).convert("L"))
    values, counts = np.unique(luminance, return_counts=True)
    dark = counts[(values > 0) & (values < CUT)].sum() / luminance.size
    if 2 < len(values) <= _FEW and values[-1] >= CUT and dark >= _NOTABLE:
        return f"holds {_in_words(values.tolist())}, of which those below {CUT} count as black; they may be class ids"
    return None


def _channel(image: Image.Image) -> Image.Image:
    """What of an image is the mask, in a mode that can be resized."""
    image = to_8bit(image)
    image = _painted(image) or image
    if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA"):
        image = image.convert("RGB")
    luminance = image.convert("L")
    if luminance.getextrema()[1] == 1:
        return luminance.point([0] + [255] * 255)
    return image


def _painted(image: Image.Image) -> Image.Image | None:
    """The alpha channel, where it is all that a mask shows; else None."""
    if not image.has_transparency_data:
        return None
    rgba = image.convert("RGBA")
    alpha = rgba.getchannel("A")
    values, seen = np.asarray(alpha), np.asarray(rgba.convert("L"))
    seen = seen[values > 0]
    shows_shape = len(seen) and values.min() != values.max() and seen.min() == seen.max()
    return alpha if shows_shape else None


def _idle(image: Image.Image, luminance: Pixels, polarity: str) -> str:
    """Why a mask repaints nothing, what was found in it, and what it may mean."""
    values = np.unique(luminance).tolist()
    found = _in_words(values)
    if (polarity == "black" and values[0] < CUT) or (polarity != "black" and values[-1] >= CUT):
        return f"repaints nothing, because what is {polarity} in it vanishes at this size; paint more of it {polarity}"
    colours = _colours(image)
    if colours:
        meaning = f"the colours {_listed(colours)} count by their brightness"
    elif len(values) <= _FEW and polarity != "black":
        meaning = "they may be class ids"
    else:
        meaning = f"all of them are {'light' if polarity == 'black' else 'dark'}"
    side = f"below {CUT}" if polarity == "black" else f"from {CUT} on"
    goal = "0 (black)" if polarity == "black" else "255 (white)"
    return f"repaints nothing: it holds {found}, and what is repainted is {side}; {meaning}; make what is meant {goal}"


def _colours(image: Image.Image) -> list[str]:
    """The colours of an image that has few, as #rrggbb; none where it is grey."""
    found = to_8bit(image).convert("RGB").getcolors(_NAMED)
    colours = [colour for _, colour in found or () if isinstance(colour, tuple)]
    grey = all(len(set(colour)) == 1 for colour in colours)
    return [] if grey else sorted("#" + bytes(colour).hex() for colour in colours)


def _in_words(values: Sequence[int]) -> str:
    if len(values) > _NAMED:
        return f"{len(values)} values from {values[0]} to {values[-1]}"
    return f"the values {_listed(values)}"


def _listed(words: Sequence[object]) -> str:
    return ", ".join(map(str, words[:-1])) + f" and {words[-1]}"
