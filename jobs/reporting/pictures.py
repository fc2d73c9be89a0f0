"""The pictures of the report: images out of the shards' tars and what they were made from, as WebP data URIs."""

from __future__ import annotations

import base64
import io
import tarfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from jobs.output.manifest_rows import ManifestRows
from jobs.reporting.inputs import Source, read_inputs
from manifests import storage
from manifests.commit import tar_name
from manifests.errors import SUCCESS, KandinskyBatchError
from workers.stages.fetching import UnusableError
from workers.stages.pixels import decode, to_rgb

#: Longer edge of a thumbnail in pixels, and its quality: some 4 kB each.
EDGE, QUALITY = 176, 72

#: Of a manifest with inline images, what may be decoded to show some: seconds, not minutes.
MANIFEST_BYTES = 2 << 30

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


def thumbnails(output: str, rows: Sequence[Row], manifest: ManifestRows) -> dict[str, list[Picture]]:
    """Key -> the pictures of each row: source and mask, or conditions, then the result of a row that has one.

    Args:
        rows: records with their `shard`.
        manifest: where inputs lay inline, perhaps.
    """
    by_shard: dict[int, list[str]] = defaultdict(list)
    for row in rows:
        if row["status"] == SUCCESS:
            by_shard[row["shard"]].append(row["key"])
    pictures = {
        row["key"]: [_input(source, content) for source, content in inputs]
        for row, inputs in read_inputs(rows, manifest)
    }
    missing = {key for keys in by_shard.values() for key in keys}
    for key, content in results(output, by_shard):
        missing.discard(key)
        pictures[key].append(Picture("result", data_uri(content)))
    for key in missing:
        pictures[key].append(Picture("result", None, "not in the shard"))
    return pictures


def _input(source: Source, content: bytes | UnusableError) -> Picture:
    if isinstance(content, UnusableError):
        return Picture(source.label, None, str(content))
    try:
        return Picture(source.label, data_uri(content))
    except Exception:  # whatever a foreign file does, the page is made
        return Picture(source.label, None, f"cannot be read: {source.location or 'what lies inline in the manifest'}")


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
