"""Embeddings that a manifest's rows bring along: any list of numbers, checked and brought to the prior's own type.

They are read where batches are planned for the devices, never by the driver, so a wrong one fails its row as a wrong
image does.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from manifests.batch import Batch
from manifests.embeddings.keys import VECTORS, Origin, vector_array
from manifests.errors import RowError

_LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)


def adopt(batch: Batch, origin: Origin) -> Batch:
    """The batch with its given embeddings in the type of the prior's; null where none is given.

    Rows with an embedding of another width, or with numbers that the dtype cannot hold, are `failed_to_load`.
    """
    if batch.bucket is None or not set(VECTORS) & set(batch.samples.column_names):
        return batch
    errors: dict[int, RowError] = {}
    for name in VECTORS:
        given = batch.samples.column(name) if name in batch.samples.column_names else pa.nulls(batch.samples.num_rows)
        array, wrong = _vectors(given.combine_chunks() if isinstance(given, pa.ChunkedArray) else given, origin)
        batch = replace(batch, samples=batch.drop([name]).samples.append_column(name, array))
        for row, what in wrong.items():
            errors.setdefault(row, RowError("failed_to_load", f"{name}: {what}"))
    pending = set(batch.pending)
    return batch.fail({row: error for row, error in errors.items() if row in pending})


def _vectors(given: pa.Array, origin: Origin) -> tuple[pa.Array, dict[int, str]]:
    """The column in its final type, null where nothing is given or it is wrong, and what is wrong by row."""
    rows = len(given)
    there = np.flatnonzero(given.is_valid().to_numpy(zero_copy_only=False))
    values = np.zeros((rows, origin.width), origin.dtype)
    missing = np.ones(rows, bool)
    kind = given.type
    if not any(test(kind) for test in _LISTS) or not _is_number(kind.value_type):
        what = f"is a {kind}, not a list of numbers; use a list of {origin.width} floats"
        return vector_array(values, missing), dict.fromkeys(there.tolist(), what)
    lengths = pc.list_value_length(given).fill_null(-1).to_numpy(zero_copy_only=False)
    wrong = {
        int(row): f"has {lengths[row]} numbers, but this checkpoint's embeddings have {origin.width}; use such"
        for row in there
        if lengths[row] != origin.width
    }
    fitting = there[lengths[there] == origin.width]
    matrix = _matrix(given.take(pa.array(fitting)), origin)
    finite = np.isfinite(matrix).all(axis=1)
    for row in fitting[~finite].tolist():
        wrong[row] = f"holds a null, a NaN or a number beyond {origin.dtype}; every one must be finite"
    values[fitting[finite]] = matrix[finite]
    missing[fitting[finite]] = False
    return vector_array(values, missing), wrong


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _matrix(lists: pa.Array, origin: Origin) -> npt.NDArray[Any]:
    """Lists of the right width as (rows, width) in the final dtype; what that cannot hold becomes infinite."""
    flat = pc.list_flatten(lists)
    if flat.null_count:
        flat = flat.cast(pa.float64())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        numbers = flat.to_numpy(zero_copy_only=False).astype(origin.dtype)
    return np.asarray(numbers).reshape(-1, origin.width)
