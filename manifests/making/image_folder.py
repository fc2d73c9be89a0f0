"""The source of a manifest that is a folder of images, with their masks and captions where there are some.

A mask has the name of its image in a folder of masks, or that name and `_mask` behind it (`cat.jpg` and
`cat_mask.png`), or it is the transparency of the image itself. A caption is a text of the same name (`cat.txt`).
"""

from __future__ import annotations

import io
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image, ImageOps

from manifests import storage
from manifests.errors import KandinskyBatchError, ManifestError, first_line
from manifests.making.tables import Source, Stream, chunks, find
from manifests.records import IMAGE_TYPE
from manifests.requests.schema import IMAGE_COLUMNS

#: Endings of the formats that the job reads, in lower case; a folder may spell them otherwise.
IMAGE_SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jfif", ".jpe", ".webp", ".avif", ".bmp", ".tif", ".tiff"),
    *(".gif", ".jp2", ".ppm", ".pgm", ".pbm"),
)

_CAPTION_SUFFIX = ".txt"

#: Values for `masks` that are no folder.
BESIDE, ALPHA = "beside", "alpha"

_MASK_STEM = re.compile(r"[._-]mask$", re.IGNORECASE)

#: Images whose captions or masks are read at the same time.
_READERS = 8

#: Images of one table; their masks may lie in it inline.
_ROWS = 500


def images(folder: str, masks: str | None) -> Stream:
    """Images of a folder and its sub-folders, sorted, as `id` (path in the folder without suffix) and `image`.

    Where a text of the same name lies beside an image (`cat.txt` beside `cat.png`) it is the image's `prompt`.

    Args:
        masks: a folder with a mask of the same name for each image; 'beside': `cat_mask.png` lies beside `cat.png`;
            'alpha': what is transparent is to be repainted; None: there are no masks.

    Raises:
        ManifestError: there are no images, two have one name, an image has no mask, or a caption is not UTF-8.
    """
    found, left_out = find([folder], (*IMAGE_SUFFIXES, _CAPTION_SUFFIX), marks=False)
    captions = {_stem(url): url for url in found if url.lower().endswith(_CAPTION_SUFFIX)}
    pictures = [url for url in found if url.lower().endswith(IMAGE_SUFFIXES)]
    mask_of = _masks(folder, pictures, masks)
    if masks == BESIDE:
        pictures = [url for url in pictures if not _MASK_STEM.search(_stem(url))]
    if not pictures:
        raise ManifestError(f"{folder}: no images there; these count: {', '.join(IMAGE_SUFFIXES)}")
    _refuse_doubles(pictures)
    names = ["id", "image", *(["prompt"] if captions else []), *(["mask"] if masks is not None else [])]
    columns = pa.schema([pa.field(name, IMAGE_TYPE if name in IMAGE_COLUMNS else pa.string()) for name in names])
    return Stream(columns, _tables(folder, pictures, captions, mask_of, columns), left_out)


def _tables(
    folder: str,
    pictures: Sequence[str],
    captions: Mapping[str, str],
    mask_of: Callable[[str], dict[str, Any]],
    columns: pa.Schema,
) -> Iterator[Source]:
    base = _base(folder)
    row = 0
    with ThreadPoolExecutor(_READERS) as pool:
        for chunk in chunks(pictures, _ROWS):
            stems = [_stem(url) for url in chunk]
            values: dict[str, list[Any]] = {
                "id": [stem.removeprefix(base) for stem in stems],
                "image": [_located(url) for url in chunk],
            }
            if "prompt" in columns.names:
                values["prompt"] = list(pool.map(_caption, [captions.get(stem) for stem in stems]))
            if "mask" in columns.names:
                values["mask"] = list(pool.map(mask_of, chunk))
            yield Source(pa.table(values, schema=columns), folder, row)
            row += len(chunk)


def _base(folder: str) -> str:
    return storage.absolute(folder).rstrip("/") + "/"


def _stem(url: str) -> str:
    return posixpath.splitext(url)[0]


def _refuse_doubles(pictures: Sequence[str]) -> None:
    seen: dict[str, str] = {}
    for url in pictures:
        other = seen.setdefault(_stem(url), url)
        if other != url:
            raise ManifestError(f"{other} and {url} would have one id; rename one of them")


def _caption(url: str | None) -> str | None:
    if url is None:
        return None
    try:
        return storage.read_bytes(url).decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise ManifestError(f"{url}: the caption is not UTF-8 ({error.reason}); write it again as UTF-8") from error


def _located(url: str) -> dict[str, Any]:
    return {"bytes": None, "path": url}


def _masks(folder: str, pictures: Sequence[str], masks: str | None) -> Callable[[str], dict[str, Any]]:
    """Finds the mask of an image."""
    if masks in (None, ALPHA):
        return _alpha
    if masks == BESIDE:
        by_stem = {_MASK_STEM.sub("", _stem(url)): url for url in pictures if _MASK_STEM.search(_stem(url))}
        base, where = "", f"named NAME_mask beside it in {folder}"
    else:
        found, _ = find([masks], IMAGE_SUFFIXES, marks=False)
        by_stem = {_stem(url).removeprefix(_base(masks)): url for url in found}
        base, where = _base(folder), f"of the same name in {masks}"

    def mask(url: str) -> dict[str, Any]:
        name = _stem(url).removeprefix(base)
        if name not in by_stem:
            raise ManifestError(f"{url}: no mask {where}; add one, or leave the image out of the folder")
        return _located(by_stem[name])

    return mask


def _alpha(url: str) -> dict[str, Any]:
    """White where the image is transparent, as an inline mask."""
    try:
        with Image.open(io.BytesIO(storage.read_bytes(url))) as picture:
            if not picture.has_transparency_data:
                raise ManifestError(f"{url}: it has no alpha channel to take a mask from; use --masks FOLDER")
            # The job turns the image by its EXIF orientation, so the mask is turned as well.
            upright = ImageOps.exif_transpose(picture)
            alpha = np.asarray(upright.convert("RGBA").getchannel("A"))
    except KandinskyBatchError:
        raise
    except Exception as error:  # damaged files make Pillow raise nearly anything
        raise ManifestError(f"{url}: not a readable image ({first_line(error)})") from error
    sink = io.BytesIO()
    Image.fromarray(np.where(alpha < 128, 255, 0).astype(np.uint8)).save(sink, "PNG")
    return {"bytes": sink.getvalue(), "path": None}
