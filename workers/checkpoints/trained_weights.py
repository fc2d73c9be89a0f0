"""The checkpoint `demo`: a Kandinsky 2.1 of eight million parameters that draws; `demo/README.md` is its model card.

The package holds the prior's and the inpainting repository as the Hugging Face Hub lays them out, in half precision.
The text-to-image repository is the inpainting one but for the UNet's first layer, which lacks the channels of the
picture to repaint; so it is made of that where the checkpoint is laid out.
"""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file, save_file

FOLDER = Path(__file__).parent / "demo"
_PRIOR, _DECODER, _INPAINT = "kandinsky-2-1-prior", "kandinsky-2-1", "kandinsky-2-1-inpaint"
#: Of the prior and of the decoder.
TOKENIZERS = (FOLDER / _PRIOR / "tokenizer", FOLDER / _INPAINT / "tokenizer")
_FIRST_LAYER, _CHANNELS = "conv_in.weight", 4


@functools.cache
def revision() -> str:
    """Changes whenever the laid out files would, so that an older cache is not taken for the present one."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for file in sorted(path for name in (_PRIOR, _INPAINT) for path in (FOLDER / name).rglob("*") if path.is_file()):
        digest.update(file.relative_to(FOLDER).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def config_of(repository: str, component: str) -> Mapping[str, Any]:
    """The settings of a component, as `write` lays it out."""
    source = _INPAINT if repository == _DECODER else repository
    config: dict[str, Any] = json.loads((FOLDER / source / component / "config.json").read_bytes())
    return {**config, "in_channels": _CHANNELS} if (repository, component) == (_DECODER, "unet") else config


def write(folder: Path) -> None:
    """Lay the three repositories out in an existing empty folder: 30 MB."""
    for source, name in ((_PRIOR, _PRIOR), (_INPAINT, _INPAINT), (_INPAINT, _DECODER)):
        shutil.copytree(FOLDER / source, folder / name)
    unet = folder / _DECODER / "unet"
    (unet / "config.json").write_text(json.dumps(config_of(_DECODER, "unet"), indent=2) + "\n")
    weights = load_file(unet / "diffusion_pytorch_model.safetensors")
    weights[_FIRST_LAYER] = weights[_FIRST_LAYER][:, :_CHANNELS].copy()
    save_file(weights, unet / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
