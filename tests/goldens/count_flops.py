"""Count the FLOPs and parameters of every model with PyTorch, for `tests/data/flops.json`.

    python tests/goldens/count_flops.py

Runs in the environment of the goldens (make.py says how that is made). The models lie on the `meta` device, so the
published sizes need no memory. Their configs are workers/kandinsky/architecture.py's, and stand beside the counts.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import PriorTransformer, UNet2DConditionModel, VQModel
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    XLMRobertaConfig,
    XLMRobertaModel,
)

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "tests" / "data" / "flops.json"

CLIP_TEXT = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
CLIP_IMAGE = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
XLMR = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
TEXTS = {
    "clip_text": {**CLIP_TEXT, "projection_dim": 768, "vocab_size": 49408, "max_position_embeddings": 77},
    "clip_image": {**CLIP_IMAGE, "projection_dim": 768, "image_size": 224, "patch_size": 14},
    "multilingual_text": {**XLMR, "vocab_size": 250002, "transformerDimSize": 1024, "imageDimSize": 768},
}


def sizes() -> Any:
    """workers/kandinsky/architecture.py, without the packages around it, which are not in this environment."""
    spec = importlib.util.spec_from_file_location("architecture", ROOT / "workers" / "kandinsky" / "architecture.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def count(model: torch.nn.Module, call: Callable[[], Any]) -> dict[str, int]:
    """FLOPs of one call, and the model's parameters."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call()
    return {"flops": counter.get_total_flops(), "parameters": sum(p.numel() for p in model.parameters())}


def unet(config: dict[str, Any], height: int, width: int) -> dict[str, int]:
    model = UNet2DConditionModel(**config)
    text = torch.empty(1, 77, config["encoder_hid_dim"])
    added = {
        "image_embeds": torch.empty(1, config["cross_attention_dim"]),
        "text_embeds": torch.empty(1, config["cross_attention_dim"]),
    }
    latents = torch.empty(1, config["in_channels"], height, width)
    return count(model, lambda: model(latents, torch.tensor(1), text, added_cond_kwargs=added))


def movq(config: dict[str, Any], height: int, width: int) -> dict[str, dict[str, int]]:
    model = VQModel(**config)
    scale = 2 ** (len(config["block_out_channels"]) - 1)
    latents = torch.empty(1, config["latent_channels"], height, width)
    pixels = torch.empty(1, 3, height * scale, width * scale)
    return {
        "movq_decode": count(model, lambda: model.decode(latents, force_not_quantize=True)),
        "movq_encode": count(model, lambda: model.encode(pixels)),
    }


def prior(config: dict[str, Any]) -> dict[str, int]:
    model = PriorTransformer(**config)
    width = config["embedding_dim"]
    one, texts = torch.empty(1, width), torch.empty(1, config["num_embeddings"], width)
    return count(model, lambda: model(one, torch.tensor(1), one, texts, torch.ones(1, config["num_embeddings"])))


def texts() -> dict[str, dict[str, int]]:
    tokens = torch.zeros(1, 77, dtype=torch.long)
    clip = CLIPTextModelWithProjection(CLIPTextConfig(**TEXTS["clip_text"]))
    vision = CLIPVisionModelWithProjection(CLIPVisionConfig(**TEXTS["clip_image"]))
    shape = XLMRobertaConfig(**XLMR, vocab_size=250002, attn_implementation="eager")
    multilingual = XLMRobertaModel(shape, add_pooling_layer=False)
    linear = torch.nn.Linear(1024, 768)
    # Another implementation of attention looks into the mask, and a tensor without values cannot be looked into.
    mask = torch.ones(1, 77)
    return {
        "clip_text": count(clip, lambda: clip(tokens)),
        "clip_image": count(vision, lambda: vision(torch.empty(1, 3, 224, 224))),
        "multilingual_text": count(
            torch.nn.ModuleList([multilingual, linear]),
            lambda: linear(multilingual(tokens, attention_mask=mask).last_hidden_state[:, 0]),
        ),
    }


def main() -> int:
    """Count and write."""
    torch.set_default_device("meta")
    architecture = sizes()
    cases: list[dict[str, Any]] = []

    def add(model: str, config: dict[str, Any], counted: dict[str, int], **arguments: int) -> None:
        cases.append({"model": model, "config": config, "arguments": arguments, **counted})

    for name, size in (("full", architecture.FULL), ("middle", architecture.MIDDLE)):
        add("prior_step", size["PriorTransformer"], prior(size["PriorTransformer"]))
        for height, width in ((64, 64), (96, 96), (64, 96)):
            place = {"height": height, "width": width}
            unets = [size["UNet2DConditionModel"]]
            if name == "full":
                unets.append(architecture.FULL_INPAINT_UNET)
            for config in unets:
                add("unet_step", config, unet(config, height, width), **place)
            for model, counted in movq(size["VQModel"], height, width).items():
                add(model, size["VQModel"], counted, **place)
    for model, counted in texts().items():
        add(model, TEXTS[model], counted)
    made = {"by": f"torch {torch.__version__}, FlopCounterMode", "cases": cases}
    OUT.write_text(json.dumps(made, indent=1) + "\n")
    print(f"{len(cases)} counts in {OUT}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
