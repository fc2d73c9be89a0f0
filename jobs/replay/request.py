"""From a record back to a request: its row as a manifest would give it, with what is to be different, planned anew.

The record has all that an image depends on, except inputs that lay inline in the manifest and embeddings that its row
brought along; these are read from the manifest, where it still is.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.replay.recorded import Recorded
from manifests.batch import Batch
from manifests.config import RunConfig
from manifests.errors import KandinskyBatchError, UsageError
from manifests.planning.ids import NO_REPEATS
from manifests.planning.layout import lay_out
from manifests.planning.samples import cut_samples, request_table
from manifests.records import CONDITION_TYPE, GIVEN_EMBEDDINGS, IMAGE_TYPE
from manifests.requests import files, reading
from manifests.requests.columns import cast_requests
from manifests.requests.files import Piece
from manifests.requests.reading import Fragment
from manifests.requests.schema import REQUEST_FIELDS, REQUEST_NAMES
from manifests.requests.validation import resolve

#: Columns of a request that `--set` changes; the others name a row rather than say what its image is.
SETTABLE: tuple[str, ...] = tuple(name for name in REQUEST_NAMES if name not in ("id", "num_images"))

#: What a record of each task has of the inputs that may lie inline in the manifest.
_INPUTS = {"img2img": ("image",), "inpaint": ("image", "mask"), "interpolate": ("conditions",)}


@dataclass(frozen=True)
class _FromManifest:
    """What only the manifest's row has.

    Attributes:
        columns: `image`, `mask` and `conditions` as the manifest gives them; empty where it is not to be had.
        embeddings: one row with those of GIVEN_EMBEDDINGS that the manifest has; None: it has none.
        trouble: why it is not to be had; "" where it is.
    """

    columns: Mapping[str, Any] = field(default_factory=dict)
    embeddings: pa.Table | None = None
    trouble: str = ""


def parse_changes(words: Sequence[str]) -> dict[str, str | None]:
    """The values of `--set NAME=VALUE …`; a NAME alone is null, as a row that leaves it out.

    Raises:
        UsageError: there is no such setting.
    """
    changes: dict[str, str | None] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if name not in SETTABLE:
            near = difflib.get_close_matches(name, SETTABLE, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"settings are {', '.join(SETTABLE)}"
            raise UsageError(f"--set {word}: {name!r} is no setting of a row; {hint}")
        changes[name] = value if equals else None
    return changes


def request_batch(recorded: Recorded, changes: Mapping[str, str | None], rows: int = 1) -> Batch:
    """The batch of the one sample, as the plan gives it to the first stage.

    Args:
        changes: of `parse_changes`. Relative locations are meant from the working folder.
        rows: copies of the sample in the batch.

    Raises:
        UsageError: a value cannot be used, or an input is in neither the record nor the manifest.
    """
    config, row = recorded.config, recorded.row
    known = _from_manifest(recorded)
    table = pa.table({**_columns(row, known, changes), **{name: [value] for name, value in changes.items()}})
    resolved = resolve([table], config)
    if resolved.errors:
        raise UsageError(f"{'--set' if changes else row['key']}: {resolved.errors[0]}")
    fragment = Fragment((table,), known.embeddings, str(Path.cwd()))
    job = (config.seed, row["checkpoint"] or config.checkpoint)
    requests = request_table(resolved, fragment, [row["id"]], {}, row["manifest_row"], job)
    (sample,) = cut_samples(requests, np.array([0]), np.array([row["image_index"]], np.int32), [row["key"]], [1])
    ((bucket, _),) = lay_out(config, resolved, NO_REPEATS).buckets
    return Batch(recorded.shard, 0, bucket, sample.take(np.zeros(rows, np.int64)))


def _columns(row: Mapping[str, Any], known: _FromManifest, changes: Mapping[str, str | None]) -> dict[str, pa.Array]:
    """The request's columns, one value each, without those that change."""
    special = {"image", "mask", "conditions", "num_images"}
    values: dict[str, pa.Array] = {
        one.name: pa.array([row[one.name]], one.type)
        for one in REQUEST_FIELDS
        if one.name not in special and one.name not in changes
    }
    for name in _INPUTS.get(row["task"], ()):
        if name in changes:
            continue
        if name == "conditions":
            values[name] = pa.array([_conditions(row, known)], pa.list_(CONDITION_TYPE))
        else:
            values[name] = pa.array([_image(name, row[f"{name}_path"], known.columns.get(name), known)], IMAGE_TYPE)
    return values


def _conditions(row: Mapping[str, Any], known: _FromManifest) -> list[dict[str, Any]]:
    recorded = row["conditions"] or []
    given = known.columns.get("conditions") or [{}] * len(recorded)
    return [
        condition
        if condition["text"] is not None
        else {**condition, "image": _image(f"conditions[{i}].image", condition["image"], given[i].get("image"), known)}
        for i, condition in enumerate(recorded)
    ]


def _image(
    column: str, path: str | None, given: Mapping[str, Any] | None, known: _FromManifest
) -> dict[str, bytes | str | None]:
    inline = (given or {}).get("bytes")
    if inline is None and path is None:
        raise UsageError(
            f"{column}: its bytes lay inline in the manifest, and {known.trouble or 'its row has none any more'}; "
            f"give an image with --set {column}=FILE"
        )
    return {"bytes": inline, "path": path}


def _from_manifest(recorded: Recorded) -> _FromManifest:
    try:
        return _read_row(recorded.config, recorded.row)
    except KandinskyBatchError as error:
        return _FromManifest(trouble=f"that cannot be read ({error})")


def _read_row(config: RunConfig, row: Mapping[str, Any]) -> _FromManifest:
    manifest = files.open_manifest(config.manifest)
    extras = pa.schema([one for one in manifest.extras if one.name in GIVEN_EMBEDDINGS])
    if not len(extras) and not any(file.inline_bytes or "conditions" in file.columns for file in manifest.files):
        return _FromManifest(trouble="the manifest holds none any more")
    place = row["manifest_row"]
    for file in manifest.files:
        if place < file.rows:
            break
        place -= file.rows
    else:
        return _FromManifest(trouble=f"that has {manifest.rows} rows now")
    with reading.Reader(extras=extras if len(extras) else None) as reader:
        fragment = reader.read((Piece(file.url, place, place + 1, file.constants),))
    given = cast_requests(fragment.tables).columns
    values = {name: given[name][0].as_py() for name in ("id", "prompt", "image", "mask", "conditions")}
    if values["id"] not in (None, row["id"]) or (values["prompt"] or "") != (row["prompt"] or ""):
        return _FromManifest(trouble="its row is another one now")
    return _FromManifest(values, fragment.extras)
