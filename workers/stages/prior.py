"""Prior stage (device pool): gives every sample of a batch its CLIP image embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from manifests.batch import Batch, Bucket
from manifests.config import RunConfig
from manifests.errors import RowError
from workers.checkpoints.locations import PRIOR, condition_size, local_folder
from workers.device import device
from workers.embeddings.lookup import filled, given_rows, to_embed
from workers.embeddings.origin import fingerprints
from workers.fault_tolerance.guard import PROBE_BUCKET, Guard
from workers.fault_tolerance.isolation import call_or_isolate
from workers.kandinsky.batch_shape import FullCalls
from workers.kandinsky.graph_choice import NOTHING, GraphChoice
from workers.kandinsky.noise import prior_generator
from workers.kandinsky.warm_up import WarmUp, shortest

Row = dict[str, Any]
#: image_embeds and negative_image_embeds of one sample, each (width,), and whether CLIP cut its prompt; None where it
#: was not looked at.
Embedded = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], bool | None]


class Prior:
    """One actor of the prior pool; holds the prior's repository on its device.

    Args:
        config: `checkpoint`, `call_limit`, `graph_compiler` and `attention` are read here.
        kind: what the actor runs on, as the driver chose it.
        attempts: the run's attempts actor (workers/fault_tolerance/attempts.py), if it has one.
        graphs: what is compiled.

    Attributes:
        weights: the prior's repository -> its fingerprint (workers/embeddings/origin.py).
    """

    def __init__(
        self, config: RunConfig, kind: device.DeviceKind, attempts: Any = None, graphs: GraphChoice = NOTHING
    ) -> None:
        self._guard = Guard("prior", "failed_to_embed", config.device_timeout, attempts)
        with self._guard.starting() as facts:
            device.take(kind, "prior", device.DeviceOptions.of(config, "prior"))
            from workers.kandinsky import attention, graph, pipelines

            self._kandinsky = pipelines
            compiled = graph.Graphs.of(graphs, config, kind) if graphs.prior else None
            self._warm_up = WarmUp(self._guard, compiled)
            self._limit = config.call_limit
            # What an image is scored by, in the decoder's actor.
            self._keeps_conditions = "clip_similarity" in config.score_names
            self._dtype = np.dtype(device.number_type(kind))
            folder = local_folder(config.checkpoint, pipelines.parameter_shapes, [PRIOR])
            self.weights = facts["weights"] = fingerprints(folder, [PRIOR])
            self._condition_size = condition_size(str(folder))
            self._attention = attention.AttentionSwitch(config.attention, kind, graphs.prior)
            calls = FullCalls.of(config, kind, graphs)
            self._model = pipelines.PriorModel(folder, device.dtype(kind), calls, compiled, self._attention)
            facts["switches"] = self._attention.record

    def __call__(self, block: pa.Table) -> pa.Table:
        """Add `image_embeds`, `negative_image_embeds` and `prompt_truncated` to the rows of a block that lack them."""
        batch = Batch.from_block(block)
        bucket = batch.bucket
        if bucket is not None and to_embed(batch):
            rows = self._limit.of(bucket.height, bucket.width)
            shape = (rows, bucket.has_negative, bucket.prior_guidance_scale > 1)
            self._warm_up.before(batch, shape, lambda: self._blank(bucket))
            batch = self._guard.run(batch, lambda rows: self.embed(rows, bucket), self.probe)
            self._warm_up.report()
        return (batch if self._keeps_conditions else batch.drop(["condition_inputs"])).to_block()

    def embed(self, batch: Batch, bucket: Bucket) -> Batch:
        """The batch with its embeddings; samples whose embeddings are not finite, or that raise, are failed.

        Rows that have theirs keep them.
        """
        pending = to_embed(batch)
        rows = batch.rows(("seed", "image_index", "prompt", "negative_prompt", "condition_inputs"), pending)
        compute = self._interpolate if bucket.task == "interpolate" else self._embed_prompts
        # Rows that bring an embedding, and want none of a text beside it, need no prior run.
        simple = [] if bucket.has_negative else given_rows(batch, pending)
        sampled = [row for row in pending if row not in simple]
        results, errors = (
            call_or_isolate(lambda positions: compute([rows[i] for i in positions], bucket), sampled, "failed_to_embed")
            if sampled
            else ({}, {})
        )
        if simple:
            results |= {
                row: (zero, zero, None) for row, zero in zip(simple, self._model.zeros(len(simple)), strict=True)
            }
        # The type that the store holds, whatever the last operator gave.
        results = {row: (r[0].astype(self._dtype), r[1].astype(self._dtype), r[2]) for row, r in results.items()}
        for position, (positive, negative, _) in results.items():
            if not (np.isfinite(positive).all() and np.isfinite(negative).all()):
                errors[position] = RowError("failed_to_embed", "the prior gave embeddings that are not finite numbers")
        # What is not finite must not reach the store either.
        results = {row: result for row, result in results.items() if row not in errors}
        if results:
            kind = pa.list_(pa.from_numpy_dtype(self._dtype), self._model.width)
            truncated = {i: r[2] for i, r in results.items() if r[2] is not None}
            batch = filled(batch, "image_embeds", kind, {i: r[0] for i, r in results.items()})
            batch = filled(batch, "negative_image_embeds", kind, {i: r[1] for i, r in results.items()})
            batch = filled(batch, "prompt_truncated", pa.bool_(), truncated)
            batch = batch.add("embedding_truncated", pa.bool_(), truncated)
        return batch.fail(errors)

    def probe(self) -> None:
        """A small call that is known to be good."""
        self._blank(PROBE_BUCKET)

    def _blank(self, bucket: Bucket) -> None:
        self._model.embed([""], [""] if bucket.has_negative else None, [prior_generator(0, 0)], shortest(bucket))

    def _embed_prompts(self, rows: Sequence[Row], bucket: Bucket) -> list[Embedded]:
        prompts = [row["prompt"] for row in rows]
        negatives = [row["negative_prompt"] for row in rows] if bucket.has_negative else None
        generators = [prior_generator(row["seed"], row["image_index"]) for row in rows]
        embeds = self._model.embed(prompts, negatives, generators, bucket)
        return list(zip(*embeds, self._model.is_truncated(prompts), strict=True))

    def _interpolate(self, rows: Sequence[Row], bucket: Bucket) -> list[Embedded]:
        negatives = [
            (row["negative_prompt"], prior_generator(row["seed"], row["image_index"], len(row["condition_inputs"])))
            for row in rows
            if bucket.has_negative
        ]
        embeds = self._model.interpolate(
            [self._conditions(row) for row in rows],
            negatives or None,
            bucket,
            self._limit.of(bucket.height, bucket.width),
        )
        return list(zip(*embeds, [self._cuts_a_text(row) for row in rows], strict=True))

    def _conditions(self, row: Row) -> list[Any]:
        edge = self._condition_size
        return [
            self._kandinsky.Condition(
                weight=condition["weight"],
                text=condition["text"],
                generator=prior_generator(row["seed"], row["image_index"], index),
                image=None
                if condition["pixels"] is None
                else Image.fromarray(np.frombuffer(condition["pixels"], np.uint8).reshape(edge, edge, 3)),
            )
            for index, condition in enumerate(row["condition_inputs"])
        ]

    def _cuts_a_text(self, row: Row) -> bool:
        texts = [condition["text"] for condition in row["condition_inputs"] if condition["text"] is not None]
        return bool(texts) and any(self._model.is_truncated(texts))
