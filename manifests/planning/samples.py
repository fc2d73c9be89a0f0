"""The sample table of a window: every column that travels, filled from resolved requests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from manifests.errors import REJECTED, SUCCESS
from manifests.planning.ids import derive_seed
from manifests.planning.image_locations import resolve_locations, unwrap_texts
from manifests.records import (
    CONDITION_TYPE,
    GIVEN_EMBEDDINGS,
    IMAGE_TYPE,
    RECORD_FIELDS,
    RECORD_NAMES,
    SOURCE_FIELDS,
    WORKING_NAMES,
    extra_column_name,
)
from manifests.requests import casting
from manifests.requests.reading import Fragment
from manifests.requests.schema import SETTINGS, TASKS
from manifests.requests.validation import Resolved, has_image, list_lengths, tidy

#: Columns that differ between the samples of one request.
_PER_SAMPLE = ("key", "image_index")


def sample_schema(extras: pa.Schema) -> pa.Schema:
    """The columns of every batch of a run: the record, what the device work needs, and the manifest's others.

    Args:
        extras: the manifest's other columns; those whose names are taken get the prefix `manifest_`.
    """
    taken = {*RECORD_NAMES, *WORKING_NAMES} - {*GIVEN_EMBEDDINGS}
    fields = []
    for field in extras:
        name = extra_column_name(field.name)
        # The prefix alone may meet a column that already had it.
        while name in taken or (name != field.name and name in extras.names):
            name = f"manifest_{name}"
        taken.add(name)
        fields.append(pa.field(name, field.type))
    return pa.schema([*RECORD_FIELDS, *SOURCE_FIELDS, *fields])


def request_table(
    resolved: Resolved,
    fragment: Fragment,
    ids: Sequence[str],
    errors: Mapping[int, str],
    first_row: int,
    job: tuple[int, str],
) -> pa.Table:
    """One row per request with every column of the sample table but those that differ between its samples.

    Args:
        resolved: the validated requests.
        fragment: the same rows as read, with inline images and the other columns.
        ids: final ids.
        errors: row -> why it is not made; all other rows are.
        first_row: row of the manifest of the first request.
        job: the job's seed and its checkpoint.
    """
    rows, given = resolved.rows, resolved.given.columns
    failed = np.zeros(rows, bool)
    failed[list(errors)] = True
    task = {name: resolved.tasks == index for index, name in enumerate(TASKS)}
    uses_image = (task["img2img"] | task["inpaint"]) & ~_unusable(resolved, "image")
    uses_mask = task["inpaint"] & ~_unusable(resolved, "mask")
    prompt = _prompts(resolved, task["interpolate"])
    uses_conditions = task["interpolate"] & ~_unusable(resolved, "conditions")
    conditions = _conditions(resolved, uses_conditions, fragment.bases)
    image = _image(given["image"], uses_image, fragment.bases)
    mask = _image(given["mask"], uses_mask, fragment.bases)
    polarity = pc.fill_null(tidy(given["mask_polarity"]), "white")
    columns: dict[str, Any] = {
        "id": pa.array(ids, pa.string()),
        "task": pa.array([None if index < 0 else TASKS[index] for index in resolved.tasks], pa.string()),
        "status": pc.if_else(pa.array(failed), REJECTED, SUCCESS),
        "error_message": pa.array([errors.get(row) for row in range(rows)], pa.string())
        if errors
        else pa.nulls(rows, pa.string()),
        "manifest_row": pa.array(np.arange(first_row, first_row + rows)),
        "seed": _seeds(given["seed"], ids, failed, job[0]),
        "caption": _captions(prompt, conditions),
        "prompt": prompt,
        "negative_prompt": given["negative_prompt"],
        "image_path": pc.struct_field(image, "path"),
        "mask_path": pc.struct_field(mask, "path"),
        "mask_polarity": _where(task["inpaint"] & ~_unusable(resolved, "mask_polarity"), polarity),
        "conditions": _without_bytes(conditions),
        "prompt_truncated": pa.nulls(rows, pa.bool_()),
        "sha256": pa.nulls(rows, pa.string()),
        "checkpoint": pa.array(np.full(rows, job[1], object), pa.string()),
        "image": _where(~failed & uses_image, image),
        "mask": _where(~failed & uses_mask, mask),
        "condition_sources": _where(~failed & uses_conditions, conditions),
    }
    columns.update(_settings(resolved))
    extras = fragment.extras
    schema = sample_schema(extras.schema if extras is not None else pa.schema([]))
    names = [*(name for name in RECORD_NAMES if name not in _PER_SAMPLE), *(f.name for f in SOURCE_FIELDS)]
    own = [columns[name].cast(schema.field(name).type) for name in names]
    others = [] if extras is None else [casting.plain(column) for column in extras.columns]
    fields = [field for field in schema if field.name not in _PER_SAMPLE]
    return pa.table([*own, *others], schema=pa.schema(fields))


def cut_samples(
    requests: pa.Table,
    rows: npt.NDArray[np.int64],
    image_index: npt.NDArray[np.int32],
    keys: Sequence[str],
    sizes: Sequence[int],
    same_as: Sequence[str | None] | None = None,
) -> Iterator[pa.Table]:
    """Sample tables of consecutive batches, in the columns of `sample_schema`, and `same_as` where it is given.

    Args:
        requests: what `request_table` gave.
        rows, image_index, keys: request, image number and key of each sample, of all batches together.
        sizes: samples of each batch.
        same_as: key of the sample whose image each gets, None where it is made.
    """
    added = {"key": pa.array(keys, pa.string()), "image_index": pa.array(image_index)}
    sources = [field.name for field in SOURCE_FIELDS]
    # One take for all batches is much faster than one each; only inline images are copied batch by batch, so
    # that many images made from one never lie in memory together.
    light = requests.drop_columns(sources).take(pa.array(rows))
    heavy = requests.select([name for name in sources if requests.column(name).null_count < len(requests)])
    schema = pa.schema([*RECORD_FIELDS, *(f for f in requests.schema if f.name not in RECORD_NAMES)])
    start = 0
    for size in sizes:
        part = light.slice(start, size)
        images = heavy.take(pa.array(rows[start : start + size]))
        columns = []
        for field in schema:
            if field.name in added:
                columns.append(added[field.name].slice(start, size))
            elif field.name in sources:
                there = field.name in heavy.column_names
                columns.append(images.column(field.name) if there else pa.nulls(size, field.type))
            else:
                columns.append(part.column(field.name))
        table = pa.table(columns, schema=schema)
        yield (
            table
            if same_as is None
            else table.append_column("same_as", pa.array(same_as[start : start + size], pa.string()))
        )
        start += size


def _unusable(resolved: Resolved, column: str) -> npt.NDArray[np.bool_]:
    flags = np.zeros(resolved.rows, bool)
    flags[list(resolved.unusable.get(column, ()))] = True
    return flags


def _where(keep: npt.NDArray[np.bool_], array: pa.Array) -> pa.Array:
    """The array with null wherever `keep` is false."""
    if keep.all():
        return array
    if not keep.any():
        return pa.nulls(len(array), array.type)
    return array.take(pa.array(np.arange(len(array)), mask=~keep))


def _settings(resolved: Resolved) -> dict[str, pa.Array]:
    columns = {}
    for name in SETTINGS:
        values = resolved.settings[name]
        hidden = _unusable(resolved, name) | (resolved.tasks < 0)
        columns[name] = pa.array(values, mask=hidden | np.isnan(values))
    return columns


def _seeds(given: pa.Array, ids: Sequence[str], failed: npt.NDArray[np.bool_], job_seed: int) -> pa.Array:
    """Given seeds, and derived ones for the rows that lack one and are made."""
    missing = ~casting.present(given)
    if not missing.any():
        return given
    seeds = given.fill_null(0).to_numpy().copy()
    for row in np.flatnonzero(missing & ~failed):
        seeds[row] = derive_seed(job_seed, ids[row])
    return pa.array(seeds, mask=missing & failed)


def _prompts(resolved: Resolved, interpolate: npt.NDArray[np.bool_]) -> pa.Array:
    prompt = resolved.given.columns["prompt"]
    usable = interpolate & ~_unusable(resolved, "prompt")
    return pc.if_else(pc.and_(pa.array(usable), prompt.is_null()), "", prompt)


def _image(image: pa.Array, used: npt.NDArray[np.bool_], bases: str | pa.Array) -> pa.Array:
    """IMAGE_TYPE with resolved paths, null where the task uses none."""
    if not used.any():
        return pa.nulls(len(image), IMAGE_TYPE)
    data, path = unwrap_texts(image.field("bytes"), _where(used, image.field("path")))
    path = resolve_locations(path, bases)
    if data.null_count == len(data):
        # Rows without inline images are most manifests; there is nothing to copy.
        data = pa.nulls(len(data), pa.binary())
    return pa.StructArray.from_arrays([data, path], fields=list(IMAGE_TYPE), mask=pa.array(~used))


def _conditions(resolved: Resolved, used: npt.NDArray[np.bool_], bases: str | pa.Array) -> pa.Array:
    """list<CONDITION_TYPE> with resolved paths and every weight, null where the task uses none."""
    array = resolved.given.columns["conditions"]
    if not used.any():
        return pa.nulls(len(array), pa.list_(CONDITION_TYPE))
    array = _where(used, array)
    lengths = list_lengths(array)
    parents = np.repeat(np.arange(len(array)), lengths)
    values = array.flatten()
    equal = pa.array(1.0 / lengths[parents] if len(parents) else np.empty(0))
    weight = pc.coalesce(values.field("weight"), equal)
    image = values.field("image")
    value_bases = bases if isinstance(bases, str) else bases.take(pa.array(parents))
    image = _image(image, has_image(image), value_bases)
    struct = pa.StructArray.from_arrays([values.field("text"), image, weight], fields=list(CONDITION_TYPE))
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), struct, mask=array.is_null())


def _without_bytes(conditions: pa.Array) -> pa.Array:
    """The conditions for the index: images as their locations."""
    kind = RECORD_FIELDS[RECORD_NAMES.index("conditions")].type
    if conditions.null_count == len(conditions):
        return pa.nulls(len(conditions), kind)
    values = conditions.flatten()
    path = pc.struct_field(values, ["image", "path"])
    struct = pa.StructArray.from_arrays(
        [values.field("text"), path, values.field("weight")], fields=list(kind.value_type)
    )
    offsets = np.concatenate([[0], np.cumsum(list_lengths(conditions))]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), struct, mask=conditions.is_null())


def _captions(prompt: pa.Array, conditions: pa.Array) -> pa.Array:
    """The prompt, or the condition texts where it is empty."""
    rows = casting.positions(pc.and_(pc.fill_null(pc.equal(prompt, ""), False), conditions.is_valid()))
    if not len(rows):
        return prompt
    captions = prompt.to_pylist()
    for row in rows:
        texts = [condition["text"] for condition in conditions[int(row)].as_py()]
        captions[row] = ", ".join(text for text in texts if text)
    return pa.array(captions, pa.string())
