"""What MoVQ alone makes of the pictures that are repainted: the part of a difference that is not the UNet's."""

from __future__ import annotations

from pathlib import Path

import mindspore as ms
import numpy as np
from mindone.diffusers import VQModel

from tests.semantics import requests
from workers.kandinsky import pipelines  # noqa: F401  (brings the CPU kernels that MoVQ needs)


def round_trip(checkpoint: Path) -> dict[int, np.ndarray]:
    """Number of a canvas -> uint8 (128, 128, 3), encoded and decoded as the inpainting pipeline does, unquantised."""
    movq = VQModel.from_pretrained(
        str(checkpoint / "kandinsky-2-1-inpaint"), subfolder="movq", mindspore_dtype=ms.float32
    )
    found = {}
    for number, (picture, _) in enumerate(requests.canvases()):
        pixels = ms.Tensor((picture.astype(np.float32) / 127.5 - 1).transpose(2, 0, 1)[None])
        decoded = movq.decode(movq.encode(pixels)[0], force_not_quantize=True)[0].asnumpy()[0]
        found[number] = ((decoded.clip(-1, 1) + 1) * 127.5).round().astype(np.uint8).transpose(1, 2, 0)
    return found
