"""Inputs stage (CPU): reads a batch's images and masks and gives them the pixels pipelines would see.

What they become is told in `pixels.py` and `masks.py`, how they are read in `fetching.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa
from PIL import Image

from manifests import storage
from manifests.batch import CONDITION_INPUT_TYPE, Batch, Bucket
from manifests.errors import RowError
from manifests.records import SOURCE_FIELDS
from workers.stages.fetching import LIMIT_S, UnusableError, fetch
from workers.stages.masks import CUT, doubt, repainting_mask
from workers.stages.pixels import Pixels, decode, fit_condition, fit_image, to_rgb

Source = dict[str, Any]
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
    return _with_inputs(batch, images, masks, conditions).fail(errors)


def without_inputs(batch: Batch) -> Batch:
    """The batch as `load_inputs` leaves one that has nothing to load."""
    return _with_inputs(batch, {}, {}, {})


def _with_inputs(
    batch: Batch, images: Mapping[int, bytes], masks: Mapping[int, bytes], conditions: Mapping[int, Any]
) -> Batch:
    loaded = (
        batch.add("image_pixels", pa.large_binary(), images)
        .add("mask_pixels", pa.large_binary(), masks)
        .add("condition_inputs", CONDITION_INPUT_TYPE, conditions)
    )
    return loaded.drop([field.name for field in SOURCE_FIELDS])


@dataclass(frozen=True)
class Look:
    """What one image turned out to be.

    Attributes:
        problem: why it cannot be used, to be completed with the column and the location; None where it can.
        repainted: of a mask, the share of the image that it repaints.
        doubt: what in a mask may mean something else than it does.
    """

    problem: str | None
    repainted: float | None = None
    doubt: str | None = None


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
    return _fitted_mask(data, polarity)


def _fitted_mask(data: bytes | UnusableError, polarity: str) -> Look:
    def look(image: Image.Image) -> Look:
        mask = repainting_mask(image, image.width, image.height, polarity)
        return Look(None, float((mask >= CUT).mean()), doubt(image))

    found = _fitted(data, look)
    return Look(str(found)) if isinstance(found, UnusableError) else found


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
        mask = self._use("mask", row["mask"], f"{polarity} mask", lambda i: repainting_mask(i, *size, polarity))
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
