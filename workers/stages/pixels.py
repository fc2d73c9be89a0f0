"""Pixels: what an image file becomes before the pipelines see it.

Geometry is that of mindone's own pipelines on PIL images, so that what they do later is the identity:

    image      RGB, then Image.resize((width, height), BICUBIC, reducing_gap=1)
    mask       Image.resize((width, height), LANCZOS), then one luminance channel, then the polarity (masks.py)
    condition  RGB, then CLIPImageProcessor's resize (shortest edge, BICUBIC) and centre crop

What the pipelines get wrong or refuse is settled before that: EXIF orientation is applied; every mode becomes
RGB as `PIL.Image.convert("RGB")` does (alpha is dropped, not composited: that is what `load_image` of
diffusers does); 16-bit and float images are scaled to 8 bits instead of clipped; of an animation the first
frame counts.
"""

from __future__ import annotations

import io
import warnings

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from workers.stages.fetching import UnusableError

#: Larger images are refused from their header, before a pixel is decoded. Pillow raises at the same number.
MAX_PIXELS = 178_956_970

# Formats that users keep images in. Left out on purpose: those that start programs (EPS) or match nearly any
# bytes.
_FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "AVIF", "TIFF", "BMP", "GIF", "PPM", "JPEG2000")

# Programs keep whole workflows in a text of a PNG file; Pillow's own limit for one is 1 MiB.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = 64 << 20

# Pillow warns from half of its limit on. The limit here is checked by us, and a warning would stop nobody.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

Pixels = npt.NDArray[np.uint8]


def decode(data: bytes) -> Image.Image:
    """The first frame of an image file, in its own mode, the right way up.

    Raises:
        UnusableError: empty, not an image, over MAX_PIXELS, truncated or damaged.
    """
    if not data:
        raise UnusableError("is empty (0 bytes); give a whole image file")
    Image.init()
    formats = [name for name in _FORMATS if name in Image.OPEN]
    too_large = f"over the limit of {MAX_PIXELS:,} pixels, and was not decoded; make it smaller"
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=formats)
    except UnidentifiedImageError as error:
        raise UnusableError(f"is not an image that can be read; give one of {', '.join(formats)}") from error
    except Image.DecompressionBombError as error:
        raise UnusableError(f"is {too_large}") from error
    except Exception as error:
        raise UnusableError(f"has a damaged header ({type(error).__name__}: {error}); replace the file") from error
    if image.width * image.height > MAX_PIXELS:
        raise UnusableError(f"has {image.width} x {image.height} pixels, {too_large}")
    try:
        image.load()
    except Exception as error:
        whole = _without_end_mark(data) if image.format in ("JPEG", "MPO") else None
        if whole is None:
            why = f"{type(error).__name__}: {error}"
            raise UnusableError(f"is truncated or damaged ({why}); replace the file") from error
        image = whole
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # unreadable EXIF states no orientation; the pixels are whole
        return image


#: What ends a JPEG file, and what no scan that is whole reads before it.
_END_MARK, _BEFORE_IT = b"\xff\xd9", bytes(range(1, 65))


def _without_end_mark(data: bytes) -> Image.Image | None:
    """A JPEG file that lacks its end mark only; None where pixels are missing as well.

    Of a scan that is not whole the decoder makes something else with other bytes behind it.
    """
    try:
        whole, other = (Image.open(io.BytesIO(data + tail + _END_MARK), formats=["JPEG"]) for tail in (b"", _BEFORE_IT))
        return whole if np.array_equal(np.asarray(whole), np.asarray(other)) else None
    except Exception:  # damaged in another way
        return None


def fit_image(image: Image.Image, width: int, height: int) -> Pixels:
    """Initial image of img2img and inpaint: uint8 (height, width, 3)."""
    return np.asarray(to_rgb(image).resize((width, height), resample=Image.Resampling.BICUBIC, reducing_gap=1))


def fit_condition(image: Image.Image, size: int) -> Pixels:
    """What CLIPImageProcessor would crop before it normalises: uint8 (size, size, 3).

    Raises:
        UnusableError: so long and thin that the resized image would be over MAX_PIXELS.
    """
    rgb = to_rgb(image)
    short, long = sorted(rgb.size)
    new_long = int(size * long / short)
    if size * new_long > MAX_PIXELS:
        raise UnusableError(f"is too long and thin ({rgb.width} x {rgb.height}) for CLIP's crop; cut it")
    width, height = (size, new_long) if rgb.width <= rgb.height else (new_long, size)
    resized = np.asarray(rgb.resize((width, height), resample=Image.Resampling.BICUBIC))
    top, left = (height - size) // 2, (width - size) // 2
    return resized[top : top + size, left : left + size]


def to_rgb(image: Image.Image) -> Image.Image:
    """An image of any mode as RGB; transparency is dropped, the colours under it stay."""
    image = to_8bit(image)
    if image.mode == "P" and image.has_transparency_data:
        image = image.convert("RGBA")  # the same colours, without Pillow's warning about palettes with alpha
    return image if image.mode == "RGB" else image.convert("RGB")


def to_8bit(image: Image.Image) -> Image.Image:
    """Modes I;16, I and F as L; premultiplied alpha as straight alpha; all others as they are.

    Pillow's own conversion clips at 255, so that a 16-bit image comes out white. Here the range that the
    values use tells the scale: up to 1 (floats only), up to 255 (8-bit data in a wider file), or up to 65535.

    Raises:
        UnusableError: values that are negative, above 65535, or not finite have no agreed scale.
    """
    if image.mode in ("RGBa", "La"):
        return image.convert(image.mode.upper())
    if image.mode[0] not in "IF":
        return image
    values = np.asarray(image).astype(np.float32)
    low, high = values.min(), values.max()
    if not np.isfinite(low + high) or low < 0 or high > 65535:
        raise UnusableError(
            f"holds values from {low:g} to {high:g}, which have no agreed scale; save it with 8 or 16 bits"
        )
    unit = 1 if image.mode == "F" and high <= 1 else 255 if high <= 255 else 65535
    return Image.fromarray(np.rint(values * (255 / unit)).astype(np.uint8))
