"""What stands where an image is named: a location, as seen from the manifest's folder, or the image itself as text.

Images as text are data: URIs (`data:image/png;base64,iVBORw0…`), and base64 without anything around it. They become
inline bytes here, before anybody takes them for a path or writes them into an index.
"""

from __future__ import annotations

import base64
import binascii
import re
from urllib.parse import unquote_to_bytes

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from manifests import storage
from manifests.requests import casting

#: What needs no folder: absolute paths, paths below somebody's home, and whatever has a protocol.
_ABSOLUTE = r"^/|^~/|^data:|://"

#: How base64 of the formats that people keep images in begins: PNG, JPEG, GIF, WebP, TIFF (both orders), BMP, AVIF.
_BASE64_BEGINS = r"^\s*(?:iVBORw0KGgo|/9j/|R0lGOD|UklGR|SUkqA|TU0AK|Qk|AAAA)"

#: Shorter texts hold no image, but may well be paths.
_SHORTEST_BASE64 = 64

_BASE64 = re.compile(r"[A-Za-z0-9+/\s]+={0,2}\s*")

#: First bytes of those formats; of AVIF and WebP the first four say little, and the next ones follow.
_MAGIC = re.compile(rb"\x89PNG|\xff\xd8\xff|GIF8|RIFF....WEBP|II\*\0|MM\0\*|BM|\0\0\0.ftyp", re.DOTALL)


def resolve_locations(paths: pa.Array, bases: str | pa.Array) -> pa.Array:
    """Locations as seen from their manifest's folder; absolute ones and nulls stay as they are."""
    relative = pc.fill_null(pc.invert(pc.match_substring_regex(paths, _ABSOLUTE)), False)
    positions = casting.positions(relative)
    if not len(positions):
        return paths
    resolved = np.array(paths.to_pylist(), object)
    for row in positions:
        base = bases if isinstance(bases, str) else bases[int(row)].as_py()
        resolved[row] = storage.resolve(resolved[row], base)
    return pa.array(resolved, pa.string())


def unwrap_texts(data: pa.Array, paths: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Inline bytes and locations of images, where those that are texts have moved from the second to the first.

    Args:
        data: binary; paths: string; null where there is none.
    """
    long_enough = pc.greater_equal(pc.binary_length(paths), _SHORTEST_BASE64)
    bare = pc.and_(long_enough, pc.match_substring_regex(paths, _BASE64_BEGINS))
    candidates = pc.fill_null(pc.or_(pc.starts_with(paths, "data:"), bare), False)
    positions = casting.positions(pc.and_(candidates, data.is_null()))
    found = {int(row): decoded(paths[int(row)].as_py()) for row in positions}
    found = {row: content for row, content in found.items() if content is not None}
    if not found:
        return data, paths
    contents = [found.get(row, value) for row, value in enumerate(data.to_pylist())]
    there = pa.array([row in found for row in range(len(paths))])
    return pa.array(contents, pa.binary()), pc.if_else(there, pa.scalar(None, pa.string()), paths)


def decoded(text: str) -> bytes | None:
    """The image that a text is; None where it is none."""
    head, comma, body = text.partition(",")
    if text.startswith("data:"):
        if not comma:
            return None
        # Either alphabet: that of URLs has no + and /.
        return _unbase64(body.translate(_STANDARD)) if head.endswith(";base64") else unquote_to_bytes(body)
    content = _unbase64(text) if _BASE64.fullmatch(text) else None
    return content if content is not None and _MAGIC.match(content) else None


_STANDARD = str.maketrans("-_", "+/")


def _unbase64(text: str) -> bytes | None:
    bare = "".join(text.split()).rstrip("=")
    try:
        return base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None
