"""Decoder stage (device pool): turns the embeddings of a batch into pixels."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from manifests.batch import Batch, Bucket
from manifests.config import RunConfig
from manifests.errors import RowError
from workers.checkpoints.locations import local_folder, repositories
from workers.device import device
from workers.embeddings.origin import fingerprints
from workers.embeddings.storing import only_new
from workers.fault_tolerance.guard import PROBE_BUCKET, Guard
from workers.fault_tolerance.isolation import call_or_isolate
from workers.kandinsky.batch_shape import FullCalls
from workers.kandinsky.graph_choice import NOTHING, GraphChoice
from workers.kandinsky.noise import decoder_generator
from workers.kandinsky.warm_up import WarmUp, shortest
from workers.scoring.scorer import STAGE, make_scorer

Row = dict[str, Any]
#: Pixels uint8 (height, width, 3), latents (4, height / 8, width / 8), whether XLM-R cut the prompt.
Made = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], bool]

_COLUMNS = (
    "seed",
    "image_index",
    "prompt",
    "negative_prompt",
    "prompt_truncated",
    "image_embeds",
    "negative_image_embeds",
    "image_pixels",
    "mask_pixels",
)


class Decoder:
    """One actor of the decoder pool; holds the decoder's repositories on its device.

    Args:
        config: `checkpoint`, `call_limit`, `graph_compiler`, `attention`, `dump_latents` and scores are read here.
        kind: what the actor runs on, as the driver chose it.
        attempts: the run's attempts actor (workers/fault_tolerance/attempts.py), if it has one.
        graphs: what is compiled.
        tasks: what the run makes; the first one's weights are loaded at once, others when they come.

    Attributes:
        weights: repositories of the tasks -> their fingerprints (workers/embeddings/origin.py).
    """

    def __init__(
        self,
        config: RunConfig,
        kind: device.DeviceKind,
        attempts: Any = None,
        graphs: GraphChoice = NOTHING,
        tasks: Sequence[str] = (),
    ) -> None:
        self._guard = Guard("decoder", "failed_to_generate", config.device_timeout, attempts)
        with self._guard.starting() as facts:
            device.take(kind, "decoder", device.DeviceOptions.of(config, "decoder"))
            from workers.kandinsky import attention, graph, pipelines

            self._kandinsky = pipelines
            self._choice = graphs
            compiled = graph.Graphs.of(graphs, config, kind) if graphs.compiles_decoder else None
            self._warm_up = WarmUp(self._guard, compiled)
            self._dump_latents = config.dump_latents
            # The first one is the prior's, whose CLIP scores images.
            wanted = repositories(tasks) if config.asks_clip else repositories(tasks)[1:]
            folder = local_folder(config.checkpoint, pipelines.parameter_shapes, wanted)
            self.weights = facts["weights"] = fingerprints(folder, wanted)
            self._attention = attention.AttentionSwitch(config.attention, kind, graphs.compiles_decoder)
            calls = FullCalls.of(config, kind, graphs)
            self._model = pipelines.DecoderModel(folder, device.dtype(kind), calls, compiled, self._attention)
            for task in tasks[:1]:
                self._model.load(task)
            facts["switches"] = self._attention.record
            guard = replace(self._guard, stage=STAGE)
            self._scorer = make_scorer(config, folder, device.dtype(kind), calls.clip, guard)

    def __call__(self, block: pa.Table) -> pa.Table:
        """Add `pixels` and scores to a batch of one block and drop what they were made from, except new embeddings."""
        batch = Batch.from_block(block)
        bucket = batch.bucket
        if bucket is not None and batch.pending:
            if not self._model.is_loaded(bucket.task):
                with self._guard.starting() as facts:
                    facts["weights"] = self.weights
                    self._model.load(bucket.task)
                    facts["switches"] = self._attention.record
            width = batch.samples.schema.field("image_embeds").type.list_size
            if self._choice.decodes(bucket):
                self._warm_up.before(batch, bucket.shape, lambda: self._blank(bucket, width))
            batch = self._guard.run(
                batch, lambda rows: self.decode(rows, bucket), lambda: self.probe(bucket.task, width)
            )
            self._warm_up.report()
            if self._scorer is not None:
                batch = self._scorer(batch)
        return only_new(batch.drop(["image_pixels", "mask_pixels", "condition_inputs"])).to_block()

    def decode(self, batch: Batch, bucket: Bucket) -> Batch:
        """The batch with its pixels; samples with latents that are not finite, or that raise, are failed."""
        pending = batch.pending
        rows = batch.rows(_COLUMNS, pending)
        results, errors = call_or_isolate(
            lambda positions: self._make([rows[i] for i in positions], bucket), pending, "failed_to_generate"
        )
        for position, (_, latents, _) in results.items():
            if not np.isfinite(latents).all():
                errors[position] = RowError(
                    "failed_to_generate",
                    "the decoder's latents are not finite numbers; a lower guidance_scale or another seed may help",
                )
        pixels = {i: made[0].tobytes() for i, made in results.items() if i not in errors}
        truncated = {i: made[2] or bool(rows[i]["prompt_truncated"]) for i, made in results.items()}
        batch = batch.add("pixels", pa.large_binary(), pixels).add("prompt_truncated", pa.bool_(), truncated)
        if self._dump_latents:
            latent_files = {i: _npy(results[i][1]) for i in pixels}
            batch = batch.add("latents", pa.large_binary(), latent_files)
        return batch.fail(errors)

    def probe(self, task: str, width: int) -> None:
        """A small call of the task's pipeline that is known to be good; `width` is that of an embedding."""
        self._blank(PROBE_BUCKET.model_copy(update={"task": task}), width)

    def _blank(self, bucket: Bucket, width: int) -> None:
        pixels = bytes(bucket.height * bucket.width)
        blank = dict.fromkeys(("image_embeds", "negative_image_embeds"), [0.0] * width)
        row = {"seed": 0, "image_index": 0, "prompt": "", "negative_prompt": None, **blank}
        self._make([{**row, "image_pixels": pixels * 3, "mask_pixels": pixels}], shortest(bucket))

    def _make(self, rows: Sequence[Row], bucket: Bucket) -> list[Made]:
        size = (bucket.height, bucket.width)
        prompts = [row["prompt"] for row in rows]
        inputs = self._kandinsky.DecoderInputs(
            prompts=prompts,
            # To the decoder a missing negative prompt and an empty one are the same.
            negatives=[row["negative_prompt"] or "" for row in rows],
            generators=[decoder_generator(row["seed"], row["image_index"]) for row in rows],
            image_embeds=np.array([row["image_embeds"] for row in rows], np.float32),
            negative_image_embeds=np.array([row["negative_image_embeds"] for row in rows], np.float32),
            images=_images(rows, "image_pixels", (*size, 3)) if bucket.task in ("img2img", "inpaint") else (),
            masks=_images(rows, "mask_pixels", size) if bucket.task == "inpaint" else (),
        )
        decoded = self._model.decode(inputs, bucket)
        truncated = self._model.is_truncated(bucket.task, prompts)
        return list(zip(decoded.pixels, decoded.latents, truncated, strict=True))


def _npy(array: np.ndarray[Any, Any]) -> bytes:
    sink = io.BytesIO()
    np.save(sink, array, allow_pickle=False)
    return sink.getvalue()


def _images(rows: Sequence[Row], column: str, shape: tuple[int, ...]) -> list[Image.Image]:
    return [Image.fromarray(np.frombuffer(row[column], np.uint8).reshape(shape)) for row in rows]
