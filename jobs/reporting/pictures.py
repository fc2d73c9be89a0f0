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
        pictures[row["key"]] = [_from_source(source) for source in sources(row)]
    found = set()
    for key, content in results(output, by_shard):
        found.add(key)
        pictures[key].append(Picture("result", data_uri(content)))
    for key in pictures.keys() - found:
        pictures[key].append(Picture("result", None, "not in the shard"))
    return pictures


@dataclass(frozen=True)
class Source:
    """One of a row's inputs, before anybody looks at it.

    Attributes:
        label: as of a `Picture`.
        location: of its file; None where it has none.
        note: why not, or the text of a condition that is no picture.
    """

    label: str
    location: str | None
    note: str = ""


def sources(row: Row) -> list[Source]:
    """The inputs of a row: source and mask, or conditions with their weights."""
    found: list[tuple[str, str | None, str | None]] = []
    if row["task"] == "interpolate":
        found += [(f"{one['weight']:g}", one["image"], one["text"]) for one in row["conditions"] or ()]
    if row["task"] in ("img2img", "inpaint"):
        found.append(("source", row["image_path"], None))
    if row["task"] == "inpaint":
        found.append(("mask", row["mask_path"], None))
    return [
        Source(label, location, "" if location else "inline in the manifest" if text is None else text)
        for label, location, text in found
    ]


def _from_source(source: Source) -> Picture:
    if source.location is None:
        return Picture(source.label, None, source.note)
    try:
        return Picture(source.label, data_uri(storage.read_bytes(source.location)))
    except Exception:  # whatever a foreign file does, the page is made
        return Picture(source.label, None, f"cannot be read: {source.location}")


def data_uri(content: bytes) -> str:
    """A thumbnail of an image file, as a page holds it."""
    return "data:image/webp;base64," + base64.b64encode(thumbnail(content)).decode()


def thumbnail(content: bytes, edge: int = EDGE) -> bytes:
    """A small WebP file of an image file, of any format that a manifest may name.

    Raises:
        UnusableError: it is no image that can be read.
    """
    image = to_rgb(decode(content))
    image.thumbnail((edge, edge), Image.Resampling.LANCZOS)
    sink = io.BytesIO()
    image.save(sink, "WEBP", quality=QUALITY, method=4)
    return sink.getvalue()
