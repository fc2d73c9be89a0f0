"""From a record back to a request: its row as a manifest would give it, with what is to be different, planned anew.

The record has all that an image depends on, except inputs that lay inline in the manifest and embeddings that its row
brought along; these are read from the manifest, where it still is.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from jobs.output.manifest_rows import Given, ManifestRows
from jobs.replay.recorded import Recorded
from manifests.batch import Batch
from manifests.errors import UsageError
from manifests.planning.ids import NO_REPEATS
from manifests.planning.layout import lay_out
from manifests.planning.samples import cut_samples, request_table
from manifests.records import CONDITION_TYPE, IMAGE_TYPE
from manifests.requests.reading import Fragment
from manifests.requests.schema import REQUEST_FIELDS, REQUEST_NAMES
from manifests.requests.validation import resolve

#: Columns of a request that `--set` changes; the others name a row rather than say what its image is.
SETTABLE: tuple[str, ...] = tuple(name for name in REQUEST_NAMES if name not in ("id", "num_images"))

#: What a record of each task has of the inputs that may lie inline in the manifest.
_INPUTS = {"img2img": ("image",), "inpaint": ("image", "mask"), "interpolate": ("conditions",)}


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
    known = ManifestRows(config.manifest, embeddings=True).row(row)
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


def _columns(row: Mapping[str, Any], known: Given, changes: Mapping[str, str | None]) -> dict[str, pa.Array]:
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


def _conditions(row: Mapping[str, Any], known: Given) -> list[dict[str, Any]]:
    recorded = row["conditions"] or []
    given = known.columns.get("conditions") or [{}] * len(recorded)
    return [
        condition
        if condition["text"] is not None
        else {**condition, "image": _image(f"conditions[{i}].image", condition["image"], given[i].get("image"), known)}
        for i, condition in enumerate(recorded)
    ]


def _image(
    column: str, path: str | None, given: Mapping[str, Any] | None, known: Given
) -> dict[str, bytes | str | None]:
    inline = (given or {}).get("bytes")
    if inline is None and path is None:
        raise UsageError(
            f"{column}: its bytes lay inline in the manifest, and {known.trouble or 'its row has none any more'}; "
            f"give an image with --set {column}=FILE"
        )
    return {"bytes": inline, "path": path}
