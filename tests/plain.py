"""The reference: one image made by the plain mindone pipelines with the noise contract's generators.

Only what keeps the plain pipelines from running at all on MindSpore's CPU backend is taken from the project: the
missing kernels and the attention mask of the prior. The inpainting pipeline here has its own mask preparation.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindone.diffusers import KandinskyImg2ImgPipeline, KandinskyPipeline, KandinskyPriorPipeline
from mindone.diffusers.pipelines.kandinsky import pipeline_kandinsky_inpaint
from PIL import Image

from workers.kandinsky.noise import decoder_generator, prior_generator


def plain_inpaint_module() -> Any:
    """A second, untouched copy of mindone's inpainting module."""
    name = "mindone.diffusers.pipelines.kandinsky.plain_inpaint"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, pipeline_kandinsky_inpaint.__file__)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


class PlainPipelines:
    """mindone's four pipelines on one checkpoint folder, each loaded when first used."""

    def __init__(self, checkpoint: Path) -> None:
        self._checkpoint = checkpoint
        self._loaded: dict[str, Any] = {}

    def _get(self, pipeline: Any, repository: str) -> Any:
        if pipeline.__name__ not in self._loaded:
            loaded = pipeline.from_pretrained(str(self._checkpoint / repository), mindspore_dtype=ms.float32)
            loaded.set_progress_bar_config(disable=True)
            self._loaded[pipeline.__name__] = loaded
        return self._loaded[pipeline.__name__]

    def embed(self, row: dict[str, Any]) -> tuple[Any, Any]:
        """image_embeds and negative_image_embeds of one row; interpolation rows must have their text first."""
        pipeline = self._get(KandinskyPriorPipeline, "kandinsky-2-1-prior")
        settings = {"num_inference_steps": row["prior_steps"], "guidance_scale": row["prior_guidance_scale"]}
        generator = prior_generator(row["seed"], row["image_index"])
        if row["task"] == "interpolate":
            conditions, weights = zip(*row["conditions"], strict=True)
            interpolated: tuple[Any, Any] = pipeline.interpolate(
                list(conditions), list(weights), generator=generator, **settings
            )
            return interpolated
        embeds: tuple[Any, Any] = pipeline(
            row["prompt"], negative_prompt=row["negative_prompt"], generator=generator, **settings
        )
        return embeds[0], embeds[1]

    def make(self, row: dict[str, Any]) -> np.ndarray[Any, Any]:
        """The image of one row, uint8 (height, width, 3).

        Args:
            row: resolved settings under their manifest names; `image` and `mask` as PIL images, `conditions` as
                (text or PIL image, weight) pairs.
        """
        image_embeds, negative_image_embeds = self.embed(row)
        extra: dict[str, Any] = {}
        if row["task"] in ("text2img", "interpolate"):
            pipeline = self._get(KandinskyPipeline, "kandinsky-2-1")
        elif row["task"] == "img2img":
            pipeline = self._get(KandinskyImg2ImgPipeline, "kandinsky-2-1")
            extra = {"image": row["image"], "strength": row["strength"]}
        else:
            pipeline = self._get(plain_inpaint_module().KandinskyInpaintPipeline, "kandinsky-2-1-inpaint")
            extra = {"image": row["image"], "mask_image": row["mask"]}
        images = pipeline(
            row["prompt"],
            negative_prompt=row["negative_prompt"],
            image_embeds=image_embeds,
            negative_image_embeds=negative_image_embeds,
            height=row["height"],
            width=row["width"],
            num_inference_steps=row["steps"],
            guidance_scale=row["guidance_scale"],
            generator=decoder_generator(row["seed"], row["image_index"]),
            output_type="pil",
            **extra,
        )[0]
        picture: Image.Image = images[0]
        return np.asarray(picture)
