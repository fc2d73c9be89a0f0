"""The perceptual hash of an image: which of its 64 lowest frequencies are above their median.

The bits are those of `imagehash.phash`, which COYO and others publish. That package would bring PyWavelets to every
node for these lines; a test holds them against it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

#: Edge of the picture that is looked at, and of the corner of its frequencies that counts.
_EDGE, _CORNER = 32, 8

#: Digits behind the point: below, only the order of additions speaks, as in the frequencies of a picture of one colour.
_DIGITS = 6


def _cosines() -> npt.NDArray[np.float64]:
    """The corner's rows of the DCT-II, without norm, as scipy has it."""
    frequencies, places = np.arange(_CORNER)[:, None], np.arange(_EDGE)[None]
    waves: npt.NDArray[np.float64] = 2 * np.cos(np.pi * frequencies * (2 * places + 1) / (2 * _EDGE))
    return waves


_COSINES = _cosines()


def phash(image: Image.Image) -> str:
    """The hash as 16 hex digits."""
    small = image.convert("L").resize((_EDGE, _EDGE), Image.Resampling.LANCZOS)
    low = np.round(_COSINES @ np.asarray(small, np.float64) @ _COSINES.T, _DIGITS)
    bits = (low > np.median(low)).ravel()
    return np.packbits(bits).tobytes().hex()
