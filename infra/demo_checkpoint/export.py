"""Stage 5, export: three folders as on the Hugging Face Hub, in half precision, under `checkpoint` in the folder."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import KandinskyInpaintPipeline, KandinskyPipeline, KandinskyPriorPipeline, UNet2DConditionModel
from transformers import CLIPImageProcessor

from infra.demo_checkpoint import configs, examples, prior, unet

FIRST_LAYER = "conv_in.weight"


def _inpaint_unet(folder: Path) -> UNet2DConditionModel:
    model = UNet2DConditionModel(**configs.UNET)
    model.load_state_dict(torch.load(folder / "unet.result"))
    return model.eval()


def _text_unet(inpaint: UNet2DConditionModel) -> UNet2DConditionModel:
    """The same UNet without the input channels of the picture to repaint."""
    model = UNet2DConditionModel(**{**configs.UNET, "in_channels": 4})
    state = dict(inpaint.state_dict())
    state[FIRST_LAYER] = state[FIRST_LAYER][:, :4]
    model.load_state_dict(state)
    return model.eval()


def train(folder: Path, _budget: configs.Budget) -> None:
    """Write the folders; there is nothing to train."""
    parts, target = examples.load(folder), folder / "checkpoint"
    pipeline = KandinskyPriorPipeline(
        prior=prior.load(folder, parts.encoders),
        image_encoder=parts.encoders.vision,
        text_encoder=parts.encoders.text,
        tokenizer=parts.tokens.clip,
        scheduler=prior.scheduler(),
        image_processor=CLIPImageProcessor(size={"shortest_edge": 224}, crop_size={"height": 224, "width": 224}),
    )
    pipeline.to(torch.float16).save_pretrained(target / "kandinsky-2-1-prior")
    # The library keeps these two under other names than those that it reads.
    parts.encoders.mclip.config.update({"transformerDimSize": configs.EMBEDDING, "imageDimSize": configs.EMBEDDING})
    inpaint = _inpaint_unet(folder)
    for name, kind, model in (
        ("kandinsky-2-1", KandinskyPipeline, _text_unet(inpaint)),
        ("kandinsky-2-1-inpaint", KandinskyInpaintPipeline, inpaint),
    ):
        shared = {"text_encoder": parts.encoders.mclip, "tokenizer": parts.tokens.xlmr, "movq": parts.movq}
        decoder = kind(**shared, unet=model, scheduler=unet.schedule())
        decoder.to(torch.float16).save_pretrained(target / name)
    record = {stage: json.loads((folder / f"{stage}.json").read_text()) for stage in ("movq", "clip", "prior", "unet")}
    (target / "training.json").write_text(json.dumps(record, indent=1) + "\n")
    (folder / "export.result").touch()
