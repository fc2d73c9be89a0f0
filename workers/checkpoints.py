"""Finding a checkpoint: the driver's quick check, and the folder that a node's actors load from.

A checkpoint is a folder that holds the three repositories as the Hugging Face Hub lays them out. `demo` names the small
one that each node builds once into its cache folder.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from filelock import FileLock

from manifests.errors import CheckpointError
from workers import demo_checkpoint

DEMO = "demo"
PRIOR, DECODER, INPAINT = "kandinsky-2-1-prior", "kandinsky-2-1", "kandinsky-2-1-inpaint"
#: Components that each repository must hold.
COMPONENTS = {
    PRIOR: ("prior", "image_encoder", "text_encoder", "tokenizer", "scheduler"),
    DECODER: ("unet", "movq", "text_encoder", "tokenizer", "scheduler"),
    INPAINT: ("unet", "movq", "text_encoder", "tokenizer", "scheduler"),
}


def repositories(tasks: Iterable[str]) -> tuple[str, ...]:
    """The repositories that these tasks load."""
    tasks = set(tasks)
    decoders = [DECODER] if tasks - {"inpaint"} else []
    return (PRIOR, *decoders, *([INPAINT] if "inpaint" in tasks else []))


def check(checkpoint: str, tasks: Iterable[str]) -> None:
    """Look whether the checkpoint has what the tasks need, without opening any weights.

    Raises:
        CheckpointError: a repository or component is missing; the text says which and where it was looked for.
    """
    if checkpoint == DEMO:
        return
    folder = Path(checkpoint)
    if not folder.is_dir():
        raise CheckpointError(
            f"--checkpoint {checkpoint}: no such folder; give 'demo' or a folder that holds {PRIOR}, {DECODER} and "
            f"{INPAINT} as the Hugging Face Hub lays them out"
        )
    for name in repositories(tasks):
        missing = [part for part in ("model_index.json", *COMPONENTS[name]) if not (folder / name / part).exists()]
        if missing:
            raise CheckpointError(
                f"--checkpoint {checkpoint}: {name} lacks {', '.join(missing)}; download the whole repository "
                f"kandinsky-community/{name} into {folder / name}"
            )


def condition_size(checkpoint: str) -> int:
    """Edge in pixels of the square that the prior's image encoder sees; 224 for the real checkpoint and for `demo`.

    Raises:
        CheckpointError: the processor's settings are not CLIP's (shortest edge resized, then a centre crop).
    """
    if checkpoint == DEMO:
        return 224
    path = Path(checkpoint) / PRIOR / "image_processor" / "preprocessor_config.json"
    if not path.exists():
        return 224
    settings = json.loads(path.read_text())
    size, crop = settings.get("size", 224), settings.get("crop_size", 224)
    edge = size.get("shortest_edge") if isinstance(size, dict) else size
    square = {crop["height"], crop["width"]} if isinstance(crop, dict) else {crop}
    if not isinstance(edge, int) or square != {edge} or settings.get("resample", 3) != 3:
        raise CheckpointError(
            f"{path}: expected CLIP's shortest edge = crop size with bicubic resampling, got {settings}"
        )
    return edge


def cache_folder() -> Path:
    """Where nodes keep what they built or fetched: $KANDINSKY_BATCH_CACHE, else the user's cache folder."""
    root = os.environ.get("KANDINSKY_BATCH_CACHE")
    return Path(root) if root else Path.home() / ".cache" / "kandinsky-batch"


def local_folder(checkpoint: str, shapes: demo_checkpoint.ParameterShapes) -> Path:
    """Folder on this node with the three repositories; builds the demo checkpoint if this node has none yet.

    Args:
        checkpoint: `demo` or a folder.
        shapes: see `demo_checkpoint.ParameterShapes`; called only to build.
    """
    if checkpoint != DEMO:
        return Path(checkpoint)
    folder = cache_folder() / f"demo-r{demo_checkpoint.REVISION}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Several actors of a node start at once: one builds, the others wait; a killed build leaves no half folder.
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            partial = Path(tempfile.mkdtemp(prefix=".demo-", dir=folder.parent))
            try:
                demo_checkpoint.write(partial, shapes)
                partial.chmod(0o755)
                partial.rename(folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    return folder
