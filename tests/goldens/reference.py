"""The reference: PyTorch diffusers on the golden manifest, one image at a time. Started by `make.py`.

With the checkpoint `random` all of the manifest, with `demo`, whose trained weights have other ranges, a few requests.

The pipelines are diffusers' own. Three things are put in from outside, because there is no other way:

- noise: diffusers draws with torch; here its `randn_tensor` draws from the NumPy generators of the noise contract,
  which are written out below and not imported, so that a change of the contract shows in the goldens;
- one generator per text of an interpolation, where the pipeline has one for all;
- for img2img, height and width in the order that the image processor wants (the pipeline passes them the other way
  round, which only square images survive).
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pyarrow.parquet as pq
import torch
import transformers
from diffusers import (
    KandinskyImg2ImgPipeline,
    KandinskyInpaintPipeline,
    KandinskyPipeline,
    KandinskyPriorPipeline,
    PriorTransformer,
    UNet2DConditionModel,
    VQModel,
)
from diffusers.pipelines.kandinsky.text_encoder import MCLIPConfig, MultilingualCLIP
from PIL import Image, ImageOps
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPVisionConfig, CLIPVisionModelWithProjection

from tests.goldens.weights import digests
from workers.checkpoints import random_weights, trained_weights

FOLDER = Path(__file__).resolve().parent
MANIFEST = FOLDER / "requests.parquet"
#: Requests that the demo checkpoint makes too: one of each task, with what differs in the way through the models.
FOR_DEMO = ("negative", "img2img-negative", "inpaint-black-polarity", "interpolate-text-and-two-images", "wide")

Row = dict[str, Any]


def draw(shape: Any, generator: Any = None, device: Any = None, dtype: Any = None, layout: Any = None) -> torch.Tensor:
    """diffusers' `randn_tensor` for a NumPy generator."""
    return torch.from_numpy(generator.standard_normal(tuple(shape))).to(dtype or torch.float32)


def draw_with_numpy() -> None:
    """Put `draw` wherever diffusers has imported `randn_tensor`."""
    for name, module in list(sys.modules.items()):
        if name.startswith("diffusers.") and hasattr(module, "randn_tensor"):
            module.randn_tensor = draw  # type: ignore[attr-defined]


def parameter_shapes(class_name: str, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """As `workers.kandinsky.pipelines.parameter_shapes`, from PyTorch's models."""
    settings = {name: value for name, value in config.items() if name != "model_type"}
    configured = {
        "CLIPTextModelWithProjection": (CLIPTextModelWithProjection, CLIPTextConfig),
        "CLIPVisionModelWithProjection": (CLIPVisionModelWithProjection, CLIPVisionConfig),
        "MultilingualCLIP": (MultilingualCLIP, MCLIPConfig),
    }
    if class_name in configured:
        model_class, config_class = configured[class_name]
        model = model_class(config_class(**settings))
    else:
        models = {"PriorTransformer": PriorTransformer, "UNet2DConditionModel": UNet2DConditionModel}
        model = {**models, "VQModel": VQModel}[class_name](**settings)
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


class Prior(KandinskyPriorPipeline):
    """The prior that takes its generators one by one, a fresh one per call, in the order of the calls."""

    generators: list[Any]

    def __call__(self, *arguments: Any, generator: Any = None, **settings: Any) -> Any:
        return super().__call__(*arguments, generator=self.generators.pop(0), **settings)


class HeightFirst:
    """diffusers' image processor, called by img2img with width and height swapped."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._processor, name)

    def preprocess(self, image: Any, width: int, height: int) -> torch.Tensor:
        result: torch.Tensor = self._processor.preprocess(image, height=height, width=width)
        return result


class Reference:
    """The pipelines of one checkpoint folder."""

    def __init__(self, checkpoint: Path) -> None:
        def load(pipeline: Any, name: str) -> Any:
            loaded = pipeline.from_pretrained(checkpoint / name, torch_dtype=torch.float32)
            loaded.set_progress_bar_config(disable=True)
            return loaded

        self._prior = load(Prior, "kandinsky-2-1-prior")
        self._decoders = {
            "text2img": load(KandinskyPipeline, "kandinsky-2-1"),
            "img2img": load(KandinskyImg2ImgPipeline, "kandinsky-2-1"),
            "inpaint": load(KandinskyInpaintPipeline, "kandinsky-2-1-inpaint"),
        }
        self._decoders["interpolate"] = self._decoders["text2img"]
        self._decoders["img2img"].image_processor = HeightFirst(self._decoders["img2img"].image_processor)

    def embed(self, row: Row, k: int) -> Any:
        """Positive and negative image embeddings of image `k` of a request, each (1, width)."""
        settings = {"num_inference_steps": row["prior_steps"], "guidance_scale": row["prior_guidance_scale"]}
        if row["task"] != "interpolate":
            self._prior.generators = [np.random.default_rng([row["seed"], k, 0, 0])]
            return self._prior(row["prompt"], negative_prompt=row["negative_prompt"], **settings).to_tuple()
        conditions = row["conditions"]
        # One call per text, and the last for the negative embedding.
        places = [c for c, condition in enumerate(conditions) if condition["text"] is not None] + [len(conditions)]
        self._prior.generators = [np.random.default_rng([row["seed"], k, 0, c]) for c in places]
        given = [c["text"] if c["text"] is not None else image(c["image"]) for c in conditions]
        weights = [c["weight"] for c in conditions]
        negative = row["negative_prompt"]
        return self._prior.interpolate(given, weights, negative_prior_prompt=negative, **settings).to_tuple()

    def make(self, row: Row, k: int) -> tuple[Any, Any]:
        """Latents float32 (4, height / 8, width / 8) and pixels uint8 (height, width, 3) of image `k` of a request."""
        positive, negative = self.embed(row, k)
        extra: Row = {}
        if row["task"] in ("img2img", "inpaint"):
            extra["image"] = image(row["image"])
        if row["task"] == "img2img":
            extra["strength"] = row["strength"]
        if row["task"] == "inpaint":
            mask = image(row["mask"], "L")
            extra["mask_image"] = ImageOps.invert(mask) if row["mask_polarity"] == "black" else mask
        latents: list[torch.Tensor] = []
        (pixels,) = self._decoders[row["task"]](
            row["prompt"],
            negative_prompt=row["negative_prompt"],
            image_embeds=positive,
            negative_image_embeds=negative,
            height=row["height"],
            width=row["width"],
            num_inference_steps=row["steps"],
            guidance_scale=row["guidance_scale"],
            generator=np.random.default_rng([row["seed"], k, 1, 0]),
            output_type="np",
            return_dict=False,
            callback=lambda _step, _time, value: latents.append(value),
            **extra,
        )
        return latents[-1][0].numpy(), (pixels[0] * 255).round().astype(np.uint8)


def image(source: Row, mode: str = "RGB") -> Image.Image:
    """An inline image; `convert` is what diffusers' `load_image` does."""
    return Image.open(io.BytesIO(source["bytes"])).convert(mode)


def main(folder: Path) -> None:
    """Lay both checkpoints out in the empty folder and write their goldens beside this file."""
    draw_with_numpy()
    torch.set_grad_enabled(False)
    # More threads than that only wait for each other on models this small.
    torch.set_num_threads(1)
    diffusers.logging.set_verbosity_error()
    diffusers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    for name in ("random", "demo"):
        checkpoint = folder / name
        checkpoint.mkdir()
        if name == "random":
            random_weights.write(checkpoint, parameter_shapes)
        else:
            trained_weights.write(checkpoint)
        rows = pq.read_table(MANIFEST).to_pylist()
        _make(checkpoint, [row for row in rows if name == "random" or row["id"] in FOR_DEMO], FOLDER / name)


def _make(checkpoint: Path, rows: Sequence[Row], target: Path) -> None:
    """Write images, latents and what they were made with."""
    (target / "images").mkdir(parents=True, exist_ok=True)
    reference = Reference(checkpoint)
    latents: dict[str, Any] = {}
    for row in rows:
        for k in range(row["num_images"]):
            name = f"{row['id']}-{k}"
            latents[name], pixels = reference.make(row, k)
            Image.fromarray(pixels).save(target / "images" / f"{name}.png", optimize=True)
            print(f"{name}: pixels {pixels.mean():.0f} ± {pixels.std():.0f}", flush=True)
    np.savez_compressed(target / "latents.npz", **latents)
    made_with = {
        "versions": {"torch": torch.__version__, "diffusers": diffusers.__version__, "numpy": np.__version__}
        | {"transformers": transformers.__version__},
        "weights": digests(checkpoint),
    }
    (target / "made_with.json").write_text(json.dumps(made_with, indent=2) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
