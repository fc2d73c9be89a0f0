"""One block = one batch: the row that Ray Data carries from stage to stage, and how it is opened and closed.

Ray Data may split and merge blocks at row borders only, so a batch that is one row can never be torn. Its samples
travel inside that row as one Arrow table in IPC form. What the stages read, add and drop there:

    stage    reads                                       adds                                         drops
    plan                                                 RECORD_FIELDS, SOURCE_FIELDS, other columns
    inputs   image, mask, condition_sources              image_pixels, mask_pixels, condition_inputs  SOURCE_FIELDS
    prior    prompt, negative_prompt, condition_inputs   image_embeds, negative_image_embeds          condition_inputs
             (rows without both embeddings)
    decoder  prompt, negative_prompt, *_embeds, *_pixels pixels                                       *_embeds, *_pixels
    scores   pixels, image_embeds, *_pixels, …           columns of manifests/scores.py
    encode   pixels, every record column                 encoded                                      pixels

Pixels are raw uint8, row-major: `image_pixels` and `pixels` are (height, width, 3) RGB, `mask_pixels` is
(height, width) with 255 = repaint; a condition's image is (size, size, 3) RGB, cropped the way CLIP wants it.
Embeddings are fixed-size lists of float32 or float16, as wide as the prior's embedding_dim. With an embedding store the
plan's step puts in those that are known, and new ones stay until the part (workers/embeddings/storing.py).
Where calls are short several batches travel as one row (`pack`), because the engine moves some thirty rows a second.
With `dump_latents` the decoder also adds `latents`: the bytes of a .npy file, (4, height / 8, width / 8) in the model's
dtype, which stays until the shard.
With `dedupe` the plan also adds `same_as`, the key of another sample of the batch whose image the sample gets: stages
pass it by, and encode copies the pixels first (`Batch.with_copies`).
With `keep_clip` the scores' step also adds `clip_embeds` (manifests/embeddings/kept_clip.py), until the shard.
With `scores` the prior leaves `condition_inputs` to the decoder's actor, which scores what it has made.
A stage works only on samples whose `status` is "success", and sets `status` and `error_message` where it fails one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from manifests.errors import SUCCESS, RowError
from manifests.scores import BY_CLIP

#: `condition_inputs`: an interpolation's conditions with decoded images, raw RGB of (size, size, 3).
CONDITION_INPUT_TYPE = pa.list_(
    pa.struct([pa.field("text", pa.string()), pa.field("pixels", pa.binary()), pa.field("weight", pa.float64())])
)

#: What a copy takes from its original.
COPIED: tuple[str, ...] = ("status", "error_message", "prompt_truncated", "pixels", "latents", "clip_embeds", *BY_CLIP)

#: Under which a block's schema has its bucket's shape.
SHAPE_KEY = b"shape"


def bucket_words(task: str, width: int, height: int, steps: int) -> str:
    """What a person calls a bucket, in reports and metrics alike."""
    return f"{task} {width} x {height}, {steps} steps"


class Bucket(BaseModel):
    """What one device call must share. `strength` is None outside img2img."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    height: int
    width: int
    steps: int
    guidance_scale: float
    prior_steps: int
    prior_guidance_scale: float
    strength: float | None
    has_negative: bool

    @property
    def words(self) -> str:
        """What a person calls it; buckets that differ in guidance, strength or prior settings alone share it."""
        return bucket_words(self.task, self.width, self.height, self.steps)

    @property
    def shape(self) -> str:
        """What a decoder is compiled and loaded for, beside the number of rows; equal for what can share that."""
        model = "text2img" if self.task == "interpolate" else self.task
        return f"{model} {self.width}x{self.height}{' guided' if self.guidance_scale > 1 else ''}"


#: The column of a row that holds several batches.
_PACK = "pack"


def pack(blocks: Sequence[pa.Table]) -> pa.Table:
    """Several blocks of one batch each as one row, which nothing can tear either."""
    sink = pa.BufferOutputStream()
    table = pa.concat_tables(blocks)
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return pa.table({_PACK: pa.array([sink.getvalue().to_pybytes()], pa.large_binary())})


def unpack(block: pa.Table) -> list[pa.Table]:
    """The blocks of one batch each in a block of any number of rows, packed or not."""
    if _PACK not in block.column_names:
        return [block.slice(row, 1) for row in range(block.num_rows)]
    packs = (pa.ipc.open_stream(buffer.as_buffer()).read_all() for buffer in block.column(_PACK))
    return [table.slice(row, 1) for table in packs for row in range(table.num_rows)]


def on_each(block: pa.Table, work: Callable[[pa.Table], pa.Table]) -> pa.Table:
    """A stage's work on each batch of a block, which stays packed if it is."""
    made = [work(each) for each in unpack(block)]
    return pack(made) if _PACK in block.column_names else pa.concat_tables(made)


@dataclass(frozen=True)
class Batch:
    """Samples of one bucket that one device call makes, with their place in the plan.

    Attributes:
        shard: number of the shard the samples belong to.
        index: position of the batch in its shard, from 0.
        bucket: what the samples share; None for rows that failed validation and travel for their records only.
        samples: one row per sample, columns as in the table at the top of this file.
        seconds: how long each stage so far worked on it, by the stage's name.
    """

    shard: int
    index: int
    bucket: Bucket | None
    samples: pa.Table
    seconds: Mapping[str, float] = field(default_factory=dict)

    def to_block(self) -> pa.Table:
        """The batch as a table of one row, which is what travels through Ray Data."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self.samples.schema) as writer:
            writer.write_table(self.samples)
        bucket = None if self.bucket is None else self.bucket.model_dump_json()
        # The driver sees a block's schema and not its rows, and hands batches out by shape (jobs/engine/affinity.py).
        metadata = {} if self.bucket is None else {SHAPE_KEY: self.bucket.shape.encode()}
        return pa.table(
            {
                "shard": pa.array([self.shard], pa.int64()),
                "batch": pa.array([self.index], pa.int32()),
                "bucket": pa.array([bucket], pa.string()),
                "seconds": pa.array([json.dumps(dict(self.seconds))], pa.string()),
                "samples": pa.Array.from_buffers(
                    pa.large_binary(),
                    1,
                    [None, pa.array([0, sink.tell()], pa.int64()).buffers()[1], sink.getvalue()],
                ),
            },
            metadata=metadata,
        )

    @classmethod
    def from_block(cls, block: pa.Table) -> Batch:
        """Open a block of exactly one row; the samples share the block's memory."""
        if block.num_rows != 1:
            raise ValueError(f"a block must be one batch, got {block.num_rows} rows")
        bucket = block.column("bucket")[0].as_py()
        samples = pa.ipc.open_stream(block.column("samples")[0].as_buffer()).read_all()
        return cls(
            shard=block.column("shard")[0].as_py(),
            index=block.column("batch")[0].as_py(),
            bucket=None if bucket is None else Bucket.model_validate_json(bucket),
            samples=samples.combine_chunks(),
            seconds=json.loads(block.column("seconds")[0].as_py()),
        )

    @property
    def pending(self) -> list[int]:
        """Positions of the samples to work on: those that no stage has failed and that are not copied from others."""
        copies = self._originals()
        statuses = enumerate(self.samples.column("status").to_pylist())
        return [i for i, status in statuses if status == SUCCESS and i not in copies]

    def _originals(self) -> dict[int, int]:
        """Position of each copy -> that of its original; one whose original is not here is worked on like any other."""
        if "same_as" not in self.samples.column_names:
            return {}
        places = {key: place for place, key in enumerate(self.samples.column("key").to_pylist())}
        same_as = enumerate(self.samples.column("same_as").to_pylist())
        return {i: places[key] for i, key in same_as if key in places}

    def with_copies(self) -> Batch:
        """The batch with what became of each original copied to those that are to be the same."""
        originals = self._originals()
        rows = pa.array([originals.get(i, i) for i in range(self.samples.num_rows)], pa.int64())
        samples = self.samples
        for name in COPIED if originals else ():
            if name in samples.column_names:
                place = samples.schema.get_field_index(name)
                samples = samples.set_column(place, samples.schema.field(name), samples.column(name).take(rows))
        return replace(self, samples=samples).drop(["same_as"])

    def values(self, column: str, positions: Sequence[int]) -> list[Any]:
        """Python values of a column at the given positions."""
        return self.samples.column(column).take(pa.array(positions, pa.int64())).to_pylist()

    def rows(self, columns: Sequence[str], positions: Sequence[int]) -> dict[int, dict[str, Any]]:
        """Python values of several columns, by position and then by column."""
        values = [self.values(column, positions) for column in columns]
        return {
            i: dict(zip(columns, row, strict=True)) for i, row in zip(positions, zip(*values, strict=True), strict=True)
        }

    def add(self, column: str, kind: pa.DataType, values: Mapping[int, Any]) -> Batch:
        """The batch with a column added or replaced; positions that `values` lacks become null."""
        array = pa.array([values.get(i) for i in range(self.samples.num_rows)], kind)
        position = self.samples.schema.get_field_index(column)
        if position < 0:
            return replace(self, samples=self.samples.append_column(column, array))
        # Keeping the declared field keeps its description in the index.
        return replace(self, samples=self.samples.set_column(position, self.samples.schema.field(column), array))

    def took(self, stage: str, seconds: float) -> Batch:
        """The batch with the time that a stage worked on it."""
        return replace(self, seconds={**self.seconds, stage: seconds})

    def drop(self, columns: Sequence[str]) -> Batch:
        """The batch without those of the columns that it has."""
        return replace(self, samples=self.samples.drop_columns([c for c in columns if c in self.samples.column_names]))

    def fail(self, errors: Mapping[int, RowError]) -> Batch:
        """The batch with the samples at these positions marked as failed, each with its own reason."""
        if not errors:
            return self
        rows = range(self.samples.num_rows)
        status = dict(zip(rows, self.samples.column("status").to_pylist(), strict=True))
        message = dict(zip(rows, self.samples.column("error_message").to_pylist(), strict=True))
        status.update({i: error.status for i, error in errors.items()})
        message.update({i: error.message for i, error in errors.items()})
        return self.add("status", pa.string(), status).add("error_message", pa.string(), message)
