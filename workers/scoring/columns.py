"""The columns of scores: which a run has, what the CPU adds to them, and their place in the index."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from manifests import scores
from manifests.batch import Batch
from workers.checkpoints.locations import RANDOM, prior_setting
from workers.scoring.phash import phash

#: Score -> its column.
Columns = Mapping[str, pa.Field]


def columns_of(names: Sequence[str], checkpoint: str) -> dict[str, pa.Field]:
    """The columns of some scores by a checkpoint's CLIP.

    Raises:
        StorageError: the place of the checkpoint cannot be reached.
    """
    asks = scores.named_by_encoder(names) and checkpoint != RANDOM
    encoder = {
        name: prior_setting(checkpoint, "image_encoder", name) if asks else None for name in scores.ENCODER_SETTINGS
    }
    return scores.fields(names, encoder)


def with_scores(batch: Batch, columns: Columns) -> Batch:
    """The batch with all columns of scores, at the end and in their order; null where nothing has given one.

    Args:
        batch: scores that CLIP gave are in columns of their names, image files in `encoded`.
    """
    if "image_phash" in columns:
        there = "encoded" in batch.samples.column_names
        files = batch.samples.column("encoded").to_pylist() if there else [None] * batch.samples.num_rows
        batch = batch.add("image_phash", pa.string(), dict(enumerate(hashes(files))))
    found = {name: _column(batch, name, field) for name, field in columns.items()}
    samples = batch.drop(sorted({*columns, *(field.name for field in columns.values())})).samples
    for name, field in columns.items():
        samples = samples.append_column(field, found[name])
    return replace(batch, samples=samples)


def hashes(files: Sequence[bytes | None]) -> list[str | None]:
    """Perceptual hashes of image files, as readers will see them, and not of pixels that a codec has changed."""
    found: list[str | None] = []
    for file in files:
        if file is None:
            found.append(None)
            continue
        with Image.open(io.BytesIO(file)) as image:
            found.append(phash(image))
    return found


def numbers_only(values: Sequence[Any], field: pa.Field) -> pa.Array:
    """Values as they go into the index: what is no number is null."""
    return pa.array([None if isinstance(one, float) and not math.isfinite(one) else one for one in values], field.type)


def _column(batch: Batch, name: str, field: pa.Field) -> pa.Array:
    if name not in batch.samples.column_names:
        return pa.nulls(batch.samples.num_rows, field.type)
    return numbers_only(batch.samples.column(name).to_pylist(), field)


Vector = npt.NDArray[Any]


def cosines(one: Sequence[Vector | None], other: Sequence[Vector | None]) -> list[float | None]:
    """Of vectors in pairs; None where one is missing, and where a vector has no direction or is not finite."""
    found: list[float | None] = []
    for a, b in zip(one, other, strict=True):
        value = math.nan
        if a is not None and b is not None:
            a, b = a.astype(np.float64), b.astype(np.float64)
            length = float(np.linalg.norm(a) * np.linalg.norm(b))
            value = float(a @ b) / length if length > 0 else math.nan
        found.append(value if math.isfinite(value) else None)
    return found
