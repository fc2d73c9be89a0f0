"""What the checkpoint's own CLIP says of images, on the device that made them.

A step of its own behind the decoder's, with its own guard and time: a call that hangs or kills its process is tried
again and then row by row as everywhere, but a row that cannot be scored keeps its image and has no scores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image

from manifests.batch import Batch, Bucket
from manifests.config import RunConfig
from manifests.embeddings import kept_clip
from manifests.scores import AESTHETIC, BY_CLIP
from workers.checkpoints.locations import condition_size
from workers.fault_tolerance.guard import Guard
from workers.fault_tolerance.isolation import call_or_isolate
from workers.scoring.aesthetic import Predictor, kept
from workers.scoring.columns import cosines

Row = dict[str, Any]
Vector = npt.NDArray[Any]

#: Name of the step where times and lost processes are told.
STAGE = "scores"

#: What rows are scored by, as far as the batch has it.
_READ = ("prompt", "pixels", "image_pixels", "image_embeds", "condition_inputs")

Encode = Callable[[Sequence[Any]], Vector]


class Scorer:
    """Scores batches that have their pixels.

    Args:
        names: of scores; those of BY_CLIP are given.
        keep: also add `clip_embeds` (manifests/embeddings/kept_clip.py).
        predictor: of AESTHETIC, where that is among the names.
        model: `workers.kandinsky.pipelines.ClipModel`, loaded.
        guard: of the step.
        condition_size: edge in pixels of the images in `condition_inputs`.

    Attributes:
        names: of the scores that it computes.
    """

    def __init__(
        self,
        names: Sequence[str],
        model: Any,
        guard: Guard,
        condition_size: int,
        keep: bool = False,
        predictor: Predictor | None = None,
    ) -> None:
        self.names = tuple(name for name in BY_CLIP if name in names)
        self._keep, self._predictor = keep, predictor
        self._model, self._guard, self._edge = model, guard, condition_size

    def __call__(self, batch: Batch) -> Batch:
        """Add a column for each score to a batch with a bucket; no sample is failed by it."""
        if not batch.pending:
            return batch
        scored = self._guard.run(batch, self.score)
        samples = scored.samples
        for name in ("status", "error_message"):
            place = samples.schema.get_field_index(name)
            samples = samples.set_column(place, samples.schema.field(place), batch.samples.column(name))
        return replace(scored, samples=samples)

    def of(self, names: Sequence[str], keep: bool) -> Scorer:
        """The same model for other scores."""
        return Scorer(names, self._model, self._guard, self._edge, keep, self._predictor)

    def score(self, batch: Batch) -> Batch:
        """The same without the guard."""
        bucket, pending = batch.bucket, batch.pending
        assert bucket is not None
        rows = batch.rows([name for name in _READ if name in batch.samples.column_names], pending)
        results, _ = call_or_isolate(
            lambda positions: self._scores([rows[i] for i in positions], bucket), pending, "failed_to_generate"
        )
        for name in self.names:
            batch = batch.add(name, pa.float32(), {i: result[name] for i, result in results.items()})
        if self._keep:
            vectors = {i: result[kept_clip.COLUMN] for i, result in results.items()}
            column = kept_clip.column_of(vectors, batch.samples.num_rows)
            if column is not None:
                batch = replace(batch, samples=batch.samples.append_column(kept_clip.COLUMN, column))
        return batch

    def _scores(self, rows: Sequence[Row], bucket: Bucket) -> list[Mapping[str, Any]]:
        size = (bucket.height, bucket.width, 3)
        images = self._images([_picture(row.get("pixels"), size) for row in rows])
        found: dict[str, Sequence[Any]] = {kept_clip.COLUMN: [kept_clip.unit(image) for image in images]}
        if "clip_similarity" in self.names:
            if bucket.task == "interpolate":
                found["clip_similarity"] = self._to_conditions(images, rows)
            else:
                # An img2img without words has nothing to be like.
                found["clip_similarity"] = cosines(images, self._texts([row["prompt"] or None for row in rows]))
        if "clip_similarity_source" in self.names:
            sources = self._images([_picture(row.get("image_pixels"), size) for row in rows])
            found["clip_similarity_source"] = cosines(images, sources)
        if "prior_fidelity" in self.names:
            embeds = [row.get("image_embeds") for row in rows]
            vectors = [None if one is None else np.asarray(one, np.float32) for one in embeds]
            found["prior_fidelity"] = cosines(images, vectors)
        if AESTHETIC in self.names and self._predictor is not None:
            found[AESTHETIC] = [self._predictor(image) for image in images]
        return [{name: values[i] for name, values in found.items()} for i in range(len(rows))]

    def _to_conditions(self, images: Sequence[Vector | None], rows: Sequence[Row]) -> list[float | None]:
        """Of each image the weighted mean of its likeness to what it is between."""
        conditions = [(i, one) for i, row in enumerate(rows) for one in row.get("condition_inputs") or ()]
        texts = self._texts([one["text"] for _, one in conditions])
        edge = (self._edge, self._edge, 3)
        pictures = self._images([_picture(one["pixels"], edge) for _, one in conditions])
        others = [picture if text is None else text for text, picture in zip(texts, pictures, strict=True)]
        likeness = cosines([images[i] for i, _ in conditions], others)
        found: list[float | None] = []
        for i in range(len(rows)):
            mine = [(value, one["weight"]) for value, (row, one) in zip(likeness, conditions, strict=True) if row == i]
            weight = sum(weight for _, weight in mine)
            known = [value * weight for value, weight in mine if value is not None]
            found.append(sum(known) / weight if len(known) == len(mine) and weight > 0 else None)
        return found

    def _texts(self, texts: Sequence[str | None]) -> list[Vector | None]:
        return _where_there(texts, self._model.texts)

    def _images(self, images: Sequence[Image.Image | None]) -> list[Vector | None]:
        return _where_there(images, self._model.images)


def _where_there(items: Sequence[Any], encode: Encode) -> list[Vector | None]:
    """One call for all that are there."""
    there = [i for i, item in enumerate(items) if item is not None]
    vectors: list[Vector | None] = [None] * len(items)
    if there:
        for i, vector in zip(there, encode([items[i] for i in there]), strict=True):
            vectors[i] = vector
    return vectors


def _picture(pixels: bytes | None, shape: tuple[int, ...]) -> Image.Image | None:
    return None if pixels is None else Image.fromarray(np.frombuffer(pixels, np.uint8).reshape(shape))


def make_scorer(config: RunConfig, folder: Path, dtype: Any, rows: int | None, guard: Guard) -> Scorer | None:
    """A scorer with the checkpoint's CLIP loaded; None where nothing needs it.

    Args:
        config: what is scored, and whether embeddings are kept.
        folder: the checkpoint's on this node, with the prior's repository.
        dtype: MindSpore dtype of the weights.
        rows: of every call, where the device compiles for each number of them.
    """
    if not config.asks_clip:
        return None
    from workers.kandinsky.pipelines import ClipModel

    model = ClipModel(folder, dtype, rows)
    predictor = kept(config.output) if AESTHETIC in config.score_names else None
    return Scorer(config.score_names, model, guard, condition_size(str(folder)), config.keep_clip, predictor)
