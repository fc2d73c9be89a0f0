"""Kandinsky 2.1 for whole batches, on mindone's own pipelines; the only module that imports mindone.

The pipelines run as they are: what is not right in batches is mended in the small subclasses below, each saying what
and why. Every sample of a call has its own generators (see `workers.kandinsky.noise`), so an image does not depend on
its batch. `workers.device.device.take` must have run before this module is imported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindone.diffusers import (
    KandinskyImg2ImgPipeline,
    KandinskyInpaintPipeline,
    KandinskyPipeline,
    KandinskyPriorPipeline,
    PriorTransformer,
    UNet2DConditionModel,
    VQModel,
)
from mindone.diffusers.image_processor import VaeImageProcessor
from mindone.diffusers.models.attention_processor import Attention, AttnProcessor
from mindone.diffusers.models.modeling_utils import _get_pt2ms_mappings
from mindone.diffusers.pipelines.kandinsky import pipeline_kandinsky_inpaint
from mindone.diffusers.pipelines.kandinsky.text_encoder import MCLIPConfig, MultilingualCLIP
from mindone.diffusers.utils import logging as mindone_logging
from mindone.transformers import CLIPTextModelWithProjection, CLIPVisionModelWithProjection
from mindspore import mint
from mindspore.nn.utils import no_init_parameters
from PIL import Image
from transformers import CLIPImageProcessor, CLIPTextConfig, CLIPTokenizer, CLIPVisionConfig

from manifests.batch import Bucket
from workers.checkpoints.locations import DECODER, INPAINT, PRIOR
from workers.checkpoints.same_files import same_files
from workers.kandinsky.attention import AttentionSwitch
from workers.kandinsky.batch_shape import FullCalls, filled
from workers.kandinsky.graph import Graphs

Array = np.ndarray[Any, Any]
Generators = Sequence[np.random.Generator]

#: Components that the two decoders of a checkpoint may have in common: in memory then once, and loaded once.
SHARED = ("text_encoder", "movq")

#: Longest prompt either text encoder reads, in tokens with the two specials.
MAX_TOKENS = 77

mindone_logging.set_verbosity_error()
mindone_logging.disable_progress_bar()


class _Prior(KandinskyPriorPipeline):
    """The prior with the embedding of the all-zero image, a constant of the checkpoint, computed once."""

    _zero_embed: ms.Tensor | None = None

    def get_zero_embed(self, batch_size: int = 1) -> ms.Tensor:
        if self._zero_embed is None:
            self._zero_embed = super().get_zero_embed(1)
        return self._zero_embed.tile((batch_size, 1))


class _WidthHeightProcessor(VaeImageProcessor):
    """For img2img, which passes width where the processor expects height and the other way round."""

    def preprocess(self, image: Any, width: int, height: int) -> ms.Tensor:
        return super().preprocess(image, height, width)


class _Img2Img(KandinskyImg2ImgPipeline):
    """img2img that takes non-square images and more than one row."""

    image_processor: Any

    def __init__(self, **components: Any) -> None:
        super().__init__(**components)
        self.image_processor = _WidthHeightProcessor(**dict(self.image_processor.config))

    def add_noise(self, original_samples: ms.Tensor, noise: ms.Tensor, timesteps: ms.Tensor) -> ms.Tensor:
        # The original shapes only one of its two coefficients for broadcasting: with one timestep per row it mixes
        # rows and columns. All rows of a call share the timestep, and a single coefficient broadcasts right.
        return super().add_noise(original_samples, noise, timesteps[:1])


def prepare_mask(masks: ms.Tensor) -> ms.Tensor:
    """Grow the region to repaint by its neighbours, for a batch of masks.

    The original walks every element in Python (seconds per mask). Its rule: an element becomes 0 in all channels where
    one of its neighbours above, below, left, right, above left or below right is not 1 in channel 0.

    Args:
        masks: (batch, 1, height, width), 1 = keep.

    Returns:
        A new tensor of the same shape and dtype.
    """
    array = masks.asnumpy().copy()
    hole = array[:, 0] != 1
    near = np.zeros_like(hole)
    here, there = slice(None, -1), slice(1, None)
    near[:, here] |= hole[:, there]
    near[:, there] |= hole[:, here]
    near[:, :, here] |= hole[:, :, there]
    near[:, :, there] |= hole[:, :, here]
    near[:, here, here] |= hole[:, there, there]
    near[:, there, there] |= hole[:, here, here]
    array[np.broadcast_to(near[:, None], array.shape)] = 0
    return ms.Tensor.from_numpy(array)


_attention = Attention.math_attention_op


def _attention_with_flat_mask(self: Any, query: Any, key: Any, value: Any, attn_mask: Any = None) -> Any:
    # The original flattens (batch, heads) of query, key and value but not of the mask, and fails on the prior's.
    if attn_mask is not None and attn_mask.ndim == 4 and query.ndim == 4:
        batch, heads, rows, columns = query.shape[0], query.shape[1], attn_mask.shape[-2], attn_mask.shape[-1]
        attn_mask = attn_mask.broadcast_to((batch, heads, rows, columns)).reshape(batch * heads, rows, columns)
    return _attention(self, query, key, value, attn_mask)


pipeline_kandinsky_inpaint.prepare_mask = prepare_mask
Attention.math_attention_op = _attention_with_flat_mask


def _load(pipeline: Any, folder: Path, dtype: Any, **components: Any) -> Any:
    loaded = pipeline.from_pretrained(str(folder), mindspore_dtype=dtype, **components)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def compile_model(model: Any, graphs: Graphs) -> None:
    """Have a PriorTransformer, UNet2DConditionModel or VQModel run as graphs from now on."""
    if isinstance(model, PriorTransformer):
        # mindone's default processor looks into the mask's values, which a graph does not have when it is compiled.
        model.set_attn_processor(AttnProcessor())
        graphs.compile_prior(model)
    elif isinstance(model, UNet2DConditionModel):
        graphs.compile(model, "construct", "unet")
    else:
        graphs.compile(model, "decode", "movq decode")
        graphs.compile(model, "encode", "movq encode")


def _is_truncated(tokenizer: Any, prompts: Sequence[str]) -> list[bool]:
    """Whether the text encoder does not see the end of each prompt."""
    return [len(ids) > MAX_TOKENS for ids in tokenizer(list(prompts)).input_ids]


@dataclass(frozen=True)
class Condition:
    """One condition of an interpolation: a text with its generator, or a CLIP-sized RGB image; and its weight."""

    weight: float
    text: str | None = None
    generator: np.random.Generator | None = None
    image: Image.Image | None = None


class PriorModel:
    """Text (and images) to CLIP image embeddings.

    Args:
        folder: the checkpoint's folder.
        dtype: MindSpore dtype of the weights and the embeddings.
        calls: where given, says how many rows each call has; fewer are filled up with copies.
        graphs: where given, the diffusion model is compiled there, if its choice says so.
        attention: where given, decides how the diffusion model computes it.
    """

    def __init__(
        self,
        folder: Path,
        dtype: Any,
        calls: FullCalls | None = None,
        graphs: Graphs | None = None,
        attention: AttentionSwitch | None = None,
    ) -> None:
        self._pipeline = _load(_Prior, folder / PRIOR, dtype)
        self._calls = calls
        if graphs is not None and graphs.choice.prior:
            compile_model(self._pipeline.prior, graphs)
        if attention is not None:
            attention.apply(self._pipeline.prior, "prior", masked=True)

    def _rows(self, bucket: Bucket) -> int | None:
        return None if self._calls is None else self._calls.prior(bucket)

    @property
    def width(self) -> int:
        """Elements of one embedding."""
        return int(self._pipeline.prior.config.embedding_dim)

    def is_truncated(self, prompts: Sequence[str]) -> list[bool]:
        """Whether CLIP's tokenizer cuts each prompt."""
        return _is_truncated(self._pipeline.tokenizer, prompts)

    def zeros(self, rows: int) -> Array:
        """The embedding of the all-zero image, which stands for a missing negative prompt: (rows, width)."""
        zeros: Array = self._pipeline.get_zero_embed(rows).asnumpy()
        return zeros

    def embed(
        self, prompts: Sequence[str], negatives: Sequence[str] | None, generators: Generators, bucket: Bucket
    ) -> tuple[Array, Array]:
        """Embeddings of prompts.

        Args:
            prompts: one per row.
            negatives: one per row; None for all rows: the negative embedding is that of the all-zero image.
            generators: one per row, fresh.
            bucket: gives `prior_steps` and `prior_guidance_scale`.

        Returns:
            image_embeds and negative_image_embeds, each (rows, width) in the model's dtype.
        """
        positive, negative = self._embed(list(prompts), negatives, generators, bucket)
        return positive.asnumpy(), negative.asnumpy()

    def _embed(
        self, prompts: list[str], negatives: Sequence[str] | None, generators: Generators, bucket: Bucket
    ) -> tuple[ms.Tensor, ms.Tensor]:
        size = self._rows(bucket)
        generators = filled(generators, size)
        # A negative prompt doubles the rows; the same generator serves both rows of a sample, as in a single run.
        rows = generators if negatives is None else [*generators, *generators]
        positive, negative = self._pipeline(
            filled(prompts, size),
            negative_prompt=None if negatives is None else filled(negatives, size),
            num_inference_steps=bucket.prior_steps,
            guidance_scale=bucket.prior_guidance_scale,
            generator=rows,
        )
        return positive[: len(prompts)], negative[: len(prompts)]

    def interpolate(
        self,
        rows: Sequence[Sequence[Condition]],
        negatives: Sequence[tuple[str, np.random.Generator]] | None,
        bucket: Bucket,
        batch_size: int,
    ) -> tuple[Array, Array]:
        """Weighted sums of conditions, for many rows at once: all their texts share the prior's batches.

        Args:
            rows: each row's conditions in order.
            negatives: one (negative prompt, generator) per row, or None for all rows. It guides the prior's texts, and
                its own embedding, drawn beside that of the empty prompt, is the negative embedding.
            bucket: as in `embed`.
            batch_size: texts per call of the prior, at most.

        Returns:
            As `embed`.
        """
        texts = [(r, c) for r, row in enumerate(rows) for c, condition in enumerate(row) if condition.text is not None]
        images = [
            (r, c) for r, row in enumerate(rows) for c, condition in enumerate(row) if condition.image is not None
        ]
        embedded: dict[tuple[int, int], ms.Tensor] = {}
        for start in range(0, len(texts), batch_size):
            part = texts[start : start + batch_size]
            embeds, _ = self._embed(
                [rows[r][c].text or "" for r, c in part],
                None if negatives is None else [negatives[r][0] for r, _ in part],
                [generator for r, c in part if (generator := rows[r][c].generator) is not None],
                bucket,
            )
            embedded.update({place: embeds[i : i + 1] for i, place in enumerate(part)})
        if images:
            pictures = [image for r, c in images if (image := rows[r][c].image) is not None]
            encoded = self._encode(pictures, self._rows(bucket))
            embedded.update({place: encoded[i : i + 1] for i, place in enumerate(images)})
        sums = [
            mint.sum(
                mint.cat([embedded[r, c] * condition.weight for c, condition in enumerate(row)]), dim=0, keepdim=True
            )
            for r, row in enumerate(rows)
        ]
        return mint.cat(sums).asnumpy(), self._interpolation_negatives(len(rows), negatives, bucket).asnumpy()

    def _interpolation_negatives(
        self, count: int, negatives: Sequence[tuple[str, np.random.Generator]] | None, bucket: Bucket
    ) -> ms.Tensor:
        if negatives is None:
            # The pipeline runs the whole prior on the empty prompt here and keeps only this constant.
            return self._pipeline.get_zero_embed(count)
        prompts, generators = zip(*negatives, strict=True)
        return self._embed([""] * count, prompts, generators, bucket)[1]

    def _encode(self, images: Sequence[Image.Image], rows: int | None) -> ms.Tensor:
        size = rows or len(images)
        parts = [filled(images[start : start + size], rows) for start in range(0, len(images), size)]
        encoder, processor = self._pipeline.image_encoder, self._pipeline.image_processor
        pixels = [processor(part, return_tensors="np").pixel_values for part in parts]
        return mint.cat([encoder(ms.tensor(part).to(encoder.dtype))[0] for part in pixels])[: len(images)]


class ClipModel:
    """The CLIP that the prior was trained on, without the prior: texts and images to vectors of one space.

    Args:
        folder, dtype: as of `PriorModel`.
        rows: of every call, where the device compiles for each number of them.
    """

    def __init__(self, folder: Path, dtype: Any, rows: int | None = None) -> None:
        repository, self._rows = folder / PRIOR, rows
        self._tokenizer = CLIPTokenizer.from_pretrained(repository / "tokenizer")
        self._processor = CLIPImageProcessor.from_pretrained(repository / "image_processor")
        self._text_encoder, self._image_encoder = (
            model.from_pretrained(str(repository / name), mindspore_dtype=dtype)
            for model, name in (
                (CLIPTextModelWithProjection, "text_encoder"),
                (CLIPVisionModelWithProjection, "image_encoder"),
            )
        )

    def texts(self, texts: Sequence[str]) -> Array:
        """Vectors of texts, cut at 77 tokens: (rows, width), float32, not normalised."""
        return self._in_calls(texts, self._encode_texts)

    def images(self, images: Sequence[Image.Image]) -> Array:
        """Vectors of RGB images, of which CLIP sees the largest square in the middle; as `texts`."""
        return self._in_calls(images, self._encode_images)

    def _in_calls(self, items: Sequence[Any], encode: Any) -> Array:
        size = self._rows or max(1, len(items))
        parts = [encode(filled(items[start : start + size], self._rows)) for start in range(0, len(items), size)]
        return np.concatenate(parts)[: len(items)].astype(np.float32)

    def _encode_texts(self, texts: list[str]) -> Array:
        ids = self._tokenizer(
            texts, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="np"
        ).input_ids
        vectors: Array = self._text_encoder(ms.tensor(ids))[0].asnumpy()
        return vectors

    def _encode_images(self, images: list[Image.Image]) -> Array:
        pixels = self._processor(images, return_tensors="np").pixel_values
        vectors: Array = self._image_encoder(ms.tensor(pixels).to(self._image_encoder.dtype))[0].asnumpy()
        return vectors


@dataclass(frozen=True)
class DecoderInputs:
    """What one decoder call needs; every sequence has one entry per row.

    Attributes:
        image_embeds, negative_image_embeds: (rows, width), from the prior.
        images: RGB at the bucket's size; img2img and inpaint only.
        masks: one channel at the bucket's size, 255 = repaint; inpaint only.
    """

    prompts: Sequence[str]
    negatives: Sequence[str]
    generators: Generators
    image_embeds: Array
    negative_image_embeds: Array
    images: Sequence[Image.Image] = ()
    masks: Sequence[Image.Image] = ()


@dataclass(frozen=True)
class Decoded:
    """pixels: uint8 (rows, height, width, 3); latents: (rows, 4, height / 8, width / 8) after the last step."""

    pixels: Array
    latents: Array


class DecoderModel:
    """Embeddings to images, for all tasks; loads the inpainting UNet only when a mask comes.

    Text encoder and MoVQ of both decoders are one where their files are the same.

    Args:
        folder, dtype, calls: as of `PriorModel`.
        graphs: where given, UNet and MoVQ are compiled there for the shapes of its choice.
        attention: where given, decides how UNet and MoVQ compute it.
    """

    def __init__(
        self,
        folder: Path,
        dtype: Any,
        calls: FullCalls | None = None,
        graphs: Graphs | None = None,
        attention: AttentionSwitch | None = None,
    ) -> None:
        self._folder, self._dtype, self._calls, self._graphs = folder, dtype, calls, graphs
        self._attention = attention
        self._pipelines: dict[str, Any] = {}
        #: By repository, what its pipeline was made of.
        self._components: dict[str, Mapping[str, Any]] = {}

    def is_loaded(self, task: str) -> bool:
        """Whether the task can be decoded without loading anything."""
        return task in self._pipelines

    def load(self, task: str) -> None:
        """Load what the task needs."""
        if task == "inpaint":
            # Named explicitly: the real repository's model_index.json says KandinskyPipeline.
            self._pipelines[task] = self._load(KandinskyInpaintPipeline, INPAINT)
            return
        text2img = self._load(KandinskyPipeline, DECODER)
        img2img = _Img2Img(**text2img.components)
        img2img.set_progress_bar_config(disable=True)
        self._pipelines |= {"text2img": text2img, "interpolate": text2img, "img2img": img2img}

    def _load(self, pipeline: Any, repository: str) -> Any:
        shared = self._shared(repository)
        loaded = _load(pipeline, self._folder / repository, self._dtype, **shared)
        self._components[repository] = loaded.components
        new = [name for name in ("unet", "movq") if name not in shared]
        for name in new if self._graphs is not None and self._graphs.choice.compiles_decoder else ():
            assert self._graphs is not None
            if name == "unet" or self._graphs.choice.movq:
                compile_model(loaded.components[name], self._graphs)
        for name in new if self._attention is not None else ():
            assert self._attention is not None
            self._attention.apply(loaded.components[name], f"{'inpainting ' if repository == INPAINT else ''}{name}")
        return loaded

    def _shared(self, repository: str) -> dict[str, Any]:
        """Components that another repository has as well, with the same files, and that are loaded."""
        return {
            name: components[name]
            for other, components in self._components.items()
            for name in SHARED
            if same_files(self._folder / repository / name, self._folder / other / name)
        }

    def _pipeline(self, task: str) -> Any:
        if not self.is_loaded(task):
            self.load(task)
        return self._pipelines[task]

    def is_truncated(self, task: str, prompts: Sequence[str]) -> list[bool]:
        """Whether XLM-R's tokenizer cuts each prompt."""
        return _is_truncated(self._pipeline(task).tokenizer, prompts)

    def decode(self, inputs: DecoderInputs, bucket: Bucket) -> Decoded:
        """Run the decoder's pipeline of the bucket's task once for all rows."""
        pipeline, rows = self._pipeline(bucket.task), None if self._calls is None else self._calls.decoder(bucket)
        extra: dict[str, Any] = {}
        if bucket.task in ("img2img", "inpaint"):
            extra["image"] = filled(inputs.images, rows)
        if bucket.task == "inpaint":
            extra["mask_image"] = filled(inputs.masks, rows)
        if bucket.task == "img2img":
            extra["strength"] = bucket.strength
        latents: list[ms.Tensor] = []

        def keep_last(_step: int, _timestep: Any, value: ms.Tensor) -> None:
            latents[:] = [value]

        if self._graphs is not None:
            self._graphs.on = self._graphs.choice.decodes(bucket)
        (images,) = pipeline(
            filled(inputs.prompts, rows),
            negative_prompt=filled(inputs.negatives, rows),
            # Without guidance the pipeline does not cast the embeddings itself.
            image_embeds=self._embeds(inputs.image_embeds, rows),
            negative_image_embeds=self._embeds(inputs.negative_image_embeds, rows),
            height=bucket.height,
            width=bucket.width,
            num_inference_steps=bucket.steps,
            guidance_scale=bucket.guidance_scale,
            generator=filled(inputs.generators, rows),
            output_type="np",
            callback=keep_last,
            **extra,
        )
        # Rounded as the pipelines' own conversion to PIL does; non-finite rows are failed by the caller.
        pixels = (np.nan_to_num(images[: len(inputs.prompts)]) * 255).round().astype(np.uint8)
        return Decoded(pixels=pixels, latents=latents[0].asnumpy()[: len(inputs.prompts)])

    def _embeds(self, embeds: Array, rows: int | None) -> ms.Tensor:
        return ms.tensor(np.stack(filled(embeds, rows))).to(self._dtype)


def component(class_name: str, config: Mapping[str, Any]) -> Any:
    """A model with this config and weights that are not initialised.

    Args:
        class_name: PriorTransformer, UNet2DConditionModel, VQModel, CLIPTextModelWithProjection,
            CLIPVisionModelWithProjection or MultilingualCLIP.
        config: as in the component's config.json.
    """
    settings = dict(config)
    transformers_models: dict[str, tuple[Any, Any]] = {
        "CLIPTextModelWithProjection": (CLIPTextModelWithProjection, CLIPTextConfig),
        "CLIPVisionModelWithProjection": (CLIPVisionModelWithProjection, CLIPVisionConfig),
        "MultilingualCLIP": (MultilingualCLIP, MCLIPConfig),
    }
    if class_name in transformers_models:
        model_class, config_class = transformers_models[class_name]
        settings.pop("model_type", None)
        settings = {"config": config_class(**settings)}
    else:
        diffusers_models = {"PriorTransformer": PriorTransformer, "UNet2DConditionModel": UNet2DConditionModel}
        model_class = {**diffusers_models, "VQModel": VQModel}[class_name]
    # Parameters get a shape and no memory, so that a model of the published size is made in a second.
    with no_init_parameters():
        return model_class(**settings)


def parameter_shapes(class_name: str, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name (as on the Hub) and shape of every parameter of a component; arguments as in `component`."""
    model = component(class_name, config)
    hub_names = {ours: theirs for theirs, (ours, _) in _get_pt2ms_mappings(model).items() if ours is not None}
    return {hub_names.get(name, name): tuple(p.shape) for name, p in model.parameters_and_names()}
