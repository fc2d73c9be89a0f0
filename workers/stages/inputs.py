"""Inputs stage (CPU): reads a batch's images and masks and gives them the pixels pipelines would see.

Geometry is that of mindone's own pipelines on PIL images, so that what they do later is the identity:

    image      RGB, then Image.resize((width, height), BICUBIC, reducing_gap=1)
    mask       Image.resize((width, height), LANCZOS), then one luminance channel, then the polarity
    condition  RGB, then CLIPImageProcessor's resize (shortest edge, BICUBIC) and centre crop

What the pipelines get wrong or refuse is settled before that: EXIF orientation is applied; every mode becomes
RGB as `PIL.Image.convert("RGB")` does (alpha is dropped, not composited: that is what `load_image` of
diffusers does); 16-bit and float images are scaled to 8 bits instead of clipped; of an animation the first
frame counts.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image, ImageOps, UnidentifiedImageError

from manifests import storage
from manifests.batch import CONDITION_INPUT_TYPE, Batch, Bucket
from manifests.errors import RowError
from manifests.records import SOURCE_FIELDS
from workers.stages.fetching import LIMIT_S, UnusableError, fetch

#: Larger images are refused from their header, before a pixel is decoded. Pillow raises at the same number.
MAX_PIXELS = 178_956_970

# Formats that users keep images in. Left out on purpose: those that start programs (EPS) or match nearly any
# bytes.
_FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "AVIF", "TIFF", "BMP", "GIF", "PPM", "JPEG2000")

# Pillow warns from half of its limit on. The limit here is checked by us, and a warning would stop nobody.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

Source = dict[str, Any]
Pixels = npt.NDArray[np.uint8]
#: What a use makes of an image.
Fitted = TypeVar("Fitted")


def load_inputs(batch: Batch, condition_size: int, limit_s: float = LIMIT_S) -> Batch:
    """Decode the inputs of every pending sample.

    Args:
        batch: with SOURCE_FIELDS, which are dropped.
        condition_size: edge in pixels of the square that the prior's CLIP image processor crops.
        limit_s: seconds that reading one file may take.

    Returns:
        The batch with `image_pixels` (height, width, 3), `mask_pixels` (height, width) with 255 = repaint,
        both raw uint8 as large_binary, and `condition_inputs` (CONDITION_INPUT_TYPE); null where the task has
        none. Samples with an input that cannot be used are `failed_to_load`.
    """
    images: dict[int, bytes] = {}
    masks: dict[int, bytes] = {}
    conditions: dict[int, list[dict[str, Any]]] = {}
    errors: dict[int, RowError] = {}
    pending = batch.pending
    if batch.bucket is not None and batch.bucket.task != "text2img" and pending:
        names = ("image", "mask", "condition_sources", "mask_polarity")
        rows = batch.rows(names, pending)
        loader = _Loader(batch.bucket, condition_size, fetch(_paths(rows.values()), limit_s))
        for position, row in rows.items():
            try:
                image, mask, row_conditions = loader.load(row)
            except RowError as error:
                errors[position] = error
                continue
            if image is not None:
                images[position] = image
            if mask is not None:
                masks[position] = mask
            if row_conditions is not None:
                conditions[position] = row_conditions
    loaded = (
        batch.add("image_pixels", pa.large_binary(), images)
        .add("mask_pixels", pa.large_binary(), masks)
        .add("condition_inputs", CONDITION_INPUT_TYPE, conditions)
    )
    return loaded.drop([field.name for field in SOURCE_FIELDS]).fail(errors)


@dataclass(frozen=True)
class Look:
    """What one image turned out to be.

    Attributes:
        problem: why it cannot be used, to be completed with the column and the location; None where it can.
        repainted: of a mask, the share of the image that it repaints.
    """

    problem: str | None
    repainted: float | None = None


def look_at(content: str | bytes, polarity: str = "", limit_s: float = LIMIT_S) -> Look:
    """Read and decode one image as the stage would.

    Args:
        content: a location, or the bytes of the file.
        polarity: of a mask; "" for any other image.
        limit_s: seconds that reading may take.
    """
    data = fetch([content], limit_s)[content] if isinstance(content, str) else content
    if not polarity:
        picture = _fitted(data, to_rgb)
        return Look(str(picture) if isinstance(picture, UnusableError) else None)
    mask = _fitted(data, lambda image: fit_mask(image, image.width, image.height, polarity))
    return Look(str(mask)) if isinstance(mask, UnusableError) else Look(None, float((mask > 127).mean()))


class _Loader:
    """Loads the rows of one batch; each file is fetched once and each (file, use) is decoded once."""

    def __init__(self, bucket: Bucket, condition_size: int, files: Mapping[str, bytes | UnusableError]) -> None:
        self._bucket = bucket
        self._condition_size = condition_size
        self._files = files
        self._pixels: dict[tuple[str, str | bytes], bytes | UnusableError] = {}

    def load(self, row: dict[str, Any]) -> tuple[bytes | None, bytes | None, list[dict[str, Any]] | None]:
        """Pixels of a row's image, mask and conditions, None for those its task does not take.

        Raises:
            RowError: failed_to_load, naming the column, the location and what to do.
        """
        if self._bucket.task == "interpolate":
            return None, None, self._conditions(row["condition_sources"] or [])
        size = (self._bucket.width, self._bucket.height)
        image = self._use("image", row["image"], "image", lambda i: fit_image(i, *size))
        if self._bucket.task != "inpaint":
            return image, None, None
        polarity = row["mask_polarity"] or "white"
        mask = self._use("mask", row["mask"], f"{polarity} mask", lambda i: fit_mask(i, *size, polarity))
        return image, mask, None

    def _conditions(self, sources: list[dict[str, Any]]) -> list[dict[str, Any]]:
        loaded = []
        for index, source in enumerate(sources):
            pixels = None
            if source["image"] is not None:
                pixels = self._use(
                    f"conditions[{index}].image",
                    source["image"],
                    "condition",
                    lambda i: fit_condition(i, self._condition_size),
                )
            loaded.append({"text": source["text"], "pixels": pixels, "weight": source["weight"]})
        return loaded

    def _use(self, column: str, source: Source | None, use: str, fit: Callable[[Image.Image], Pixels]) -> bytes:
        """Pixels of one source, decoded and fitted, remembered under its content or path and its use."""
        if source is None or (source["bytes"] is None and not source["path"]):
            raise RowError("failed_to_load", f"{column}: no image is given; set a path or inline bytes")
        content = source["bytes"] if source["bytes"] is not None else source["path"]
        known = self._pixels.get((use, content))
        if known is None:
            known = self._fit(content, fit)
            self._pixels[use, content] = known
        if isinstance(known, UnusableError):
            location = storage.shortened(source["path"] or "")
            inline = f"inline bytes of {location}" if location else "inline bytes"
            raise RowError(
                "failed_to_load", f"{column} ({inline if source['bytes'] is not None else location}) {known}"
            )
        return known

    def _fit(self, content: str | bytes, fit: Callable[[Image.Image], Pixels]) -> bytes | UnusableError:
        data = self._files[content] if isinstance(content, str) else content
        return _fitted(data, lambda image: fit(image).tobytes())


def _fitted(data: bytes | UnusableError, fit: Callable[[Image.Image], Fitted]) -> Fitted | UnusableError:
    """What `fit` makes of the decoded file, or why it cannot be used."""
    if isinstance(data, UnusableError):
        return data
    try:
        return fit(decode(data))
    except UnusableError as reason:
        return reason
    except Exception as error:  # a row must never take its batch-mates with it
        return UnusableError(f"cannot be turned into pixels ({type(error).__name__}: {error}); save it again as PNG")


def _paths(rows: Iterable[dict[str, Any]]) -> set[str]:
    """Locations that must be read: those of sources without inline bytes."""
    sources = [row[name] for row in rows for name in ("image", "mask")]
    sources += [condition["image"] for row in rows for condition in row["condition_sources"] or []]
    return {s["path"] for s in sources if s is not None and s["bytes"] is None and s["path"]}


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
        image = Image.open(io.BytesIO(data), formats=formats)
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
        raise UnusableError(f"is truncated or damaged ({type(error).__name__}: {error}); replace the file") from error
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # unreadable EXIF states no orientation; the pixels are whole
        return image


def fit_image(image: Image.Image, width: int, height: int) -> Pixels:
    """Initial image of img2img and inpaint: uint8 (height, width, 3)."""
    return np.asarray(to_rgb(image).resize((width, height), resample=Image.Resampling.BICUBIC, reducing_gap=1))


def fit_mask(image: Image.Image, width: int, height: int, polarity: str) -> Pixels:
    """Inpainting mask: uint8 (height, width), 255 = repaint; greys are kept, the pipeline cuts at one half.

    The luminance is the mask and alpha is ignored, as in the pipeline. Only where the luminance is one value
    all over and alpha is not (a mask exported as transparency), alpha is the mask: opaque counts as white.
    With polarity "black" the result is inverted, which moves the cut exactly: 127 becomes 128.
    """
    image = _to_8bit(image)
    if image.has_transparency_data:
        luminance, alpha = image.convert("RGBA").convert("L"), image.convert("RGBA").getchannel("A")
        if _is_constant(luminance) and not _is_constant(alpha):
            image = alpha
    if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA"):
        image = image.convert("RGB")
    # Resized in its own mode and then made luminance, in the pipeline's order: the other order rounds
    # differently.
    mask = np.asarray(image.resize((width, height), resample=Image.Resampling.LANCZOS).convert("L"))
    return np.invert(mask) if polarity == "black" else mask


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
    image = _to_8bit(image)
    if image.mode == "P" and image.has_transparency_data:
        image = image.convert("RGBA")  # the same colours, without Pillow's warning about palettes with alpha
    return image if image.mode == "RGB" else image.convert("RGB")


def _to_8bit(image: Image.Image) -> Image.Image:
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


def _is_constant(channel: Image.Image) -> bool:
    low, high = channel.getextrema()
    return bool(low == high)
