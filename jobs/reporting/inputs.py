"""What a row's image was made from: source and mask, or conditions, read from where they lie or out of the manifest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.output.manifest_rows import Given, ManifestRows
from manifests import storage
from workers.stages.fetching import FETCH_THREADS, UnusableError, fetch

#: Seconds that reading one of them may take.
LIMIT_S = 15.0

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Source:
    """One of a row's inputs, before anybody looks at it.

    Attributes:
        label: what it is: source, mask, or the weight of a condition.
        location: of its file; None where it has none.
        text: of a condition that is no picture; None for a picture.
    """

    label: str
    location: str | None
    text: str | None = None


def sources(row: Row) -> list[Source]:
    """The inputs of a row: source and mask, or conditions with their weights."""
    found: list[Source] = []
    if row["task"] == "interpolate":
        found += [Source(f"{one['weight']:g}", one["image"], one["text"]) for one in row["conditions"] or ()]
    if row["task"] in ("img2img", "inpaint"):
        found.append(Source("source", row["image_path"]))
    if row["task"] == "inpaint":
        found.append(Source("mask", row["mask_path"]))
    return found


def read_inputs(
    rows: Sequence[Row], manifest: ManifestRows
) -> Iterator[tuple[Row, list[tuple[Source, bytes | UnusableError]]]]:
    """The files of the rows' inputs, a few rows at a time; of what cannot be shown as a picture the words instead.

    Args:
        manifest: asked for what lay inline, and for what is not where its row says.

    Yields:
        rows in the manifest's order, each with its inputs.
    """
    ordered = sorted(rows, key=lambda row: (row["manifest_row"], row["image_index"]))
    for start in range(0, len(ordered), FETCH_THREADS):
        some = [(row, sources(row)) for row in ordered[start : start + FETCH_THREADS]]
        files = fetch({one.location for _, found in some for one in found if one.location}, LIMIT_S)
        for row, found in some:
            given: list[Given] = []
            yield row, [(source, _content(row, place, files, manifest, given)) for place, source in enumerate(found)]


def read_input(row: Row, place: int, manifest: ManifestRows) -> bytes | UnusableError:
    """The file of one of a row's inputs, as of `read_inputs`."""
    location = sources(row)[place].location
    return _content(row, place, fetch({location}, LIMIT_S) if location else {}, manifest, [])


def _content(
    row: Row, place: int, files: Mapping[str, bytes | UnusableError], manifest: ManifestRows, given: list[Given]
) -> bytes | UnusableError:
    """One input; `given` keeps the manifest's row for the next one of the same row."""
    source = sources(row)[place]
    if source.text is not None:
        return UnusableError(source.text)
    found = files[source.location] if source.location else None
    if isinstance(found, bytes):
        return found
    if not given:
        given.append(manifest.row(row))
    inline = _inline(row, place, given[0])
    if inline is not None:
        return inline
    if found is not None:
        return UnusableError(f"cannot be read: {source.location} {found}")
    words = storage.shortened(given[0].trouble or "its row has none any more")
    return UnusableError(f"it lay inline in the manifest, and {words}")


def _inline(row: Row, place: int, given: Given) -> bytes | None:
    """The bytes that the manifest's row holds."""
    if row["task"] == "interpolate":
        conditions = given.columns.get("conditions") or ()
        image = conditions[place]["image"] if place < len(conditions) else None
    else:
        image = given.columns.get(("image", "mask")[place])
    content: bytes | None = (image or {}).get("bytes")
    return content
