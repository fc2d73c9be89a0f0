"""Does mindone compute what PyTorch computes with the exported checkpoint? Run once in each environment:

    python -m infra.demo_checkpoint.equality FOLDER/checkpoint FILE.npz      in the recipe's environment: writes FILE
    python -m infra.demo_checkpoint.equality FOLDER/checkpoint FILE.npz      in the product's: compares with FILE

The inputs are random and go in with FILE; weights are read as float32.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

#: Largest difference over the largest value that counts as equal.
LIMIT = 1e-4


def inputs() -> dict[str, Array]:
    """Random inputs of all models, float32 or int64."""
    rng = np.random.default_rng(0)
    shapes = {
        "latents": (2, 9, 16, 24),
        "states": (2, 77, 96),
        "embeddings": (2, 96),
        "pooled": (2, 96),
        "pixels": (1, 3, 128, 192),
        "square": (2, 3, 224, 224),
    }
    drawn: dict[str, Array] = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    drawn["ids"] = rng.integers(4, 500, (2, 77))
    drawn["mask"] = (np.arange(77) < np.array([[9], [30]])).astype(np.int64)
    return drawn


def outputs(
    library: Any, transformers: Any, mclip: Any, tensor: Callable[[Array], Any], folder: Path
) -> dict[str, Any]:
    """What the models of either library make of `inputs`."""
    x = {name: tensor(values) for name, values in inputs().items()}

    def load(kind: Any, part: str) -> Any:
        return kind.from_pretrained(str(folder / part))

    added = {"text_embeds": x["pooled"], "image_embeds": x["embeddings"]}
    unet = load(library.UNet2DConditionModel, "kandinsky-2-1-inpaint/unet")
    text_unet = load(library.UNet2DConditionModel, "kandinsky-2-1/unet")
    told = {"encoder_hidden_states": x["states"], "added_cond_kwargs": added, "return_dict": False}
    vq = load(library.VQModel, "kandinsky-2-1/movq")
    prior = load(library.PriorTransformer, "kandinsky-2-1-prior/prior")
    text = load(transformers.CLIPTextModelWithProjection, "kandinsky-2-1-prior/text_encoder")
    vision = load(transformers.CLIPVisionModelWithProjection, "kandinsky-2-1-prior/image_encoder")
    multilingual = load(mclip, "kandinsky-2-1/text_encoder")
    latents = x["latents"][:, :4]
    return {
        "unet, inpainting": unet(x["latents"], 500, **told)[0],
        "unet, text": text_unet(latents, 500, **told)[0],
        "movq, decoded": vq.decode(latents, force_not_quantize=True, return_dict=False)[0],
        "movq, encoded": vq.encode(x["pixels"], return_dict=False)[0],
        "prior": prior(x["embeddings"], 500, x["pooled"], x["states"], x["mask"] != 0, return_dict=False)[0],
        "clip, text": text(input_ids=x["ids"], attention_mask=x["mask"], return_dict=False)[0],
        "clip, picture": vision(pixel_values=x["square"], return_dict=False)[0],
        "mclip": multilingual(x["ids"], x["mask"])[0],
    }


def with_pytorch(folder: Path) -> dict[str, Array]:
    """`outputs` by PyTorch diffusers."""
    import diffusers
    import torch
    import transformers
    from diffusers.pipelines.kandinsky.text_encoder import MultilingualCLIP

    with torch.no_grad():
        made = outputs(diffusers, transformers, MultilingualCLIP, torch.from_numpy, folder)
    return {name: value.float().numpy() for name, value in made.items()}


def with_mindone(folder: Path) -> dict[str, Array]:
    """`outputs` by mindone on the CPU, in the way of the product."""
    from workers.device import device

    device.take("cpu")
    # Only now: at import, mindone makes tensors on the device; and the product's module mends its attention.
    import mindone.diffusers as diffusers
    import mindone.transformers as transformers
    import mindspore as ms

    from workers.kandinsky import pipelines

    made = outputs(diffusers, transformers, pipelines.MultilingualCLIP, ms.Tensor, folder)
    return {name: value.asnumpy().astype(np.float32) for name, value in made.items()}


def main() -> None:
    """Write or compare, whichever this environment can."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("file", type=Path)
    arguments = parser.parse_args()
    if importlib.util.find_spec("mindspore") is None:
        np.savez(arguments.file, **with_pytorch(arguments.checkpoint))
        return
    wanted, worst = np.load(arguments.file), 0.0
    for name, value in with_mindone(arguments.checkpoint).items():
        difference = float(np.abs(value - wanted[name]).max() / np.abs(wanted[name]).max())
        worst = max(worst, difference)
        print(f"{name:18} largest difference {difference:.1e} of the largest value")
    if not worst < LIMIT:
        raise SystemExit(f"expected less than {LIMIT:.0e}, got {worst:.1e}")


if __name__ == "__main__":
    main()
