"""The pictures of the report: images out of the shards' tars and inputs from where they lie, as WebP data URIs."""

from __future__ import annotations

import base64
import io
import tarfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from manifests import storage
from manifests.commit import tar_name
from manifests.errors import KandinskyBatchError
from workers.stages.pixels import decode, to_rgb

#: Longer edge of a thumbnail in pixels, and its quality: some 4 kB each.
EDGE, QUALITY = 176, 72

IMAGE_ENDINGS = (".png", ".jpg", ".webp")

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Input:
    """What a row was given.

    Attributes:
        label: source, mask, or the weight of a condition.
        content: an image file that can be opened; None where it cannot be had, or where a condition is a text.
        note: that text, or why the file cannot be had.
    """

    label: str
    content: bytes | None
    note: str = ""


@dataclass(frozen=True)
class Picture:
    """One picture beside a row.

    Attributes:
        label: what it is: result, source, mask, or the weight of a condition.
        uri: data URI of the thumbnail; None where it cannot be had.
        note: why not, or the text of a condition that is no picture.
    """

    label: str
    uri: str | None
    note: str = ""


def results(output: str, shards: Mapping[int, Sequence[str]]) -> Iterator[tuple[str, bytes]]:
    """The image files of some keys, by one walk over each tar.

    Args:
        shards: shard -> keys.

    Yields:
        (key, bytes of the image file), tar by tar; a key whose tar cannot be read does not come.
    """
    for shard, keys in sorted(shards.items()):
        wanted = {key + ending for key in keys for ending in IMAGE_ENDINGS}
        try:
            with storage.open_read(storage.join(output, tar_name(shard))) as file, tarfile.open(fileobj=file) as tar:
                for member in tar:
                    if member.name in wanted and (content := tar.extractfile(member)) is not None:
                        yield member.name.split(".", 1)[0], content.read()
        except (KandinskyBatchError, OSError, tarfile.TarError):
            continue


def thumbnails(output: str, rows: Iterable[Row]) -> dict[str, list[Picture]]:
    """Key -> the pictures of each row: source and mask, or conditions, then the result.

    Args:
        rows: records with their `shard`.
    """
    by_shard: dict[int, list[str]] = defaultdict(list)
    pictures: dict[str, list[Picture]] = {}
    for row in rows:
        by_shard[row["shard"]].append(row["key"])
        pictures[row["key"]] = [
            Picture(given.label, data_uri(given.content) if given.content else None, given.note)
            for given in inputs(row)
        ]
    found = set()
    for key, content in results(output, by_shard):
        found.add(key)
        pictures[key].append(Picture("result", data_uri(content)))
    for key in pictures.keys() - found:
        pictures[key].append(Picture("result", None, "not in the shard"))
    return pictures


def inputs(row: Row) -> list[Input]:
    """Source and mask, or conditions, in their order."""
    if row["task"] == "interpolate":
        return [
            Input(f"{condition['weight']:g}", None, condition["text"])
            if condition["text"] is not None
            else _from_location(f"{condition['weight']:g}", condition["image"])
            for condition in row["conditions"] or ()
        ]
    given = []
    if row["task"] in ("img2img", "inpaint"):
        given.append(_from_location("source", row["image_path"]))
    if row["task"] == "inpaint":
        given.append(_from_location("mask", row["mask_path"]))
    return given


def _from_location(label: str, location: str | None) -> Input:
    if location is None:
        return Input(label, None, "inline in the manifest")
    try:
        content = storage.read_bytes(location)
        opened(content)
        return Input(label, content)
    except Exception:  # whatever a foreign file does, the page is made
        return Input(label, None, f"cannot be read: {location}")


def opened(content: bytes) -> Image.Image:
    """An image file as RGB."""
    return to_rgb(decode(content))


def data_uri(content: bytes) -> str:
    """A thumbnail of an image file."""
    image = opened(content)
    image.thumbnail((EDGE, EDGE), Image.Resampling.LANCZOS)
    sink = io.BytesIO()
    image.save(sink, "WEBP", quality=QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(sink.getvalue()).decode()
