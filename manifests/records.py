"""The sample table: one row per image to make, its columns declared once, from the plan to the index.

A request (manifest row) becomes `num_images` samples. What every sample carries is `RECORD_FIELDS`: these are
the columns of the output index `NNNNN.parquet`, followed by the manifest's other columns. The inputs of the
device work travel beside them in `SOURCE_FIELDS` and are dropped on the way.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

#: In the schema of every manifest that this program has made.
MANIFEST_MARK: Mapping[bytes, bytes] = {b"kandinsky_batch": b"manifest"}

#: An image as a manifest may give it: inline bytes, a location, or both (Hugging Face `Image` layout).
IMAGE_TYPE = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])

#: One condition of an interpolation: either `text` or `image` is set; weights are used as given.
CONDITION_TYPE = pa.struct(
    [pa.field("text", pa.string()), pa.field("image", IMAGE_TYPE), pa.field("weight", pa.float64())]
)

#: The same for the index, without inline bytes.
CONDITION_RECORD_TYPE = pa.struct(
    [pa.field("text", pa.string()), pa.field("image", pa.string()), pa.field("weight", pa.float64())]
)


def _field(name: str, kind: pa.DataType, description: str, nullable: bool = True) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"description": description})


#: Columns of the index, in order. `failed_to_validate` rows hold null where the manifest's value was unusable.
RECORD_FIELDS: tuple[pa.Field, ...] = (
    _field("key", pa.string(), "name of the sample's files: shard number, then row in the shard, zero-padded"),
    _field("id", pa.string(), "the request's id"),
    _field("image_index", pa.int32(), "which of the request's num_images this is, from 0"),
    _field("task", pa.string(), "text2img, img2img, inpaint or interpolate"),
    _field("status", pa.string(), "success, or failed_to_ and the stage that failed"),
    _field("error_message", pa.string(), "why it failed; null on success"),
    _field("manifest_row", pa.int64(), "row of the manifest, from 0, counted over all its files in order"),
    _field("seed", pa.uint64(), "seed of the request; with image_index it fixes the noise (README)"),
    _field("caption", pa.string(), "the prompt, or the condition texts where the prompt is empty"),
    _field("prompt", pa.string(), "prompt as given to prior and decoder"),
    _field("negative_prompt", pa.string(), "negative prompt; null: the zero-image embedding was used"),
    _field("height", pa.int32(), "pixels"),
    _field("width", pa.int32(), "pixels"),
    _field("steps", pa.int32(), "decoder steps (img2img runs int(steps * strength) of them)"),
    _field("guidance_scale", pa.float64(), "decoder guidance"),
    _field("prior_steps", pa.int32(), "prior steps"),
    _field("prior_guidance_scale", pa.float64(), "prior guidance"),
    _field("strength", pa.float64(), "img2img only"),
    _field("image_path", pa.string(), "where the input image came from; null for inline bytes without a path"),
    _field("mask_path", pa.string(), "where the mask came from; null for inline bytes without a path"),
    _field("mask_polarity", pa.string(), "inpaint only: 'white' or 'black', the colour that is repainted"),
    _field("conditions", pa.list_(CONDITION_RECORD_TYPE), "interpolate only"),
    _field("prompt_truncated", pa.bool_(), "true where a tokenizer cut the prompt at 77 tokens"),
    _field("sha256", pa.string(), "of the image file's bytes, hex; null where there is no image"),
    _field("checkpoint", pa.string(), "the checkpoint the image was made with"),
)

#: What the device work needs beside the record; never part of the index.
SOURCE_FIELDS: tuple[pa.Field, ...] = (
    pa.field("image", IMAGE_TYPE),
    pa.field("mask", IMAGE_TYPE),
    pa.field("condition_sources", pa.list_(CONDITION_TYPE)),
)

RECORD_NAMES: tuple[str, ...] = tuple(field.name for field in RECORD_FIELDS)

#: Columns that stages hand to each other (table in `batch.py`); they never reach the index.
WORKING_NAMES: frozenset[str] = frozenset(field.name for field in SOURCE_FIELDS) | {
    "same_as",
    "image_pixels",
    "mask_pixels",
    "condition_inputs",
    "image_embeds",
    "negative_image_embeds",
    "embedding_key",
    "embedding_checkpoint",
    "embedding_conditions",
    "embedding_truncated",
    "pixels",
    "latents",
    "clip_embeds",
    "encoded",
}


#: Columns of a manifest that bring embeddings along. The driver never reads them; they keep their names on the way
#: to the prior and do not reach the index.
GIVEN_EMBEDDINGS: tuple[str, ...] = ("image_embeds", "negative_image_embeds")


def extra_column_name(column: str) -> str:
    """Name in the sample table of a manifest column that is not part of the request schema.

    A name that the index or a stage already uses gets the prefix `manifest_`, so that neither is lost.
    """
    if column in GIVEN_EMBEDDINGS:
        return column
    return f"manifest_{column}" if column in RECORD_NAMES or column in WORKING_NAMES else column
