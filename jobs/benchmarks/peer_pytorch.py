"""One side of `jobs.benchmarks.peers`: PyTorch diffusers, one request at a time or in batches of one task.

    PYTHON -m jobs.benchmarks.peer_pytorch CHECKPOINT MANIFEST FOLDER BATCH

Runs on an interpreter that has torch and diffusers, never on the project's.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jobs.benchmarks import peer_requests
from jobs.benchmarks.peer_pipelines import Pipelines
from jobs.benchmarks.peer_requests import Row


class PyTorch:
    """diffusers' pipelines of one checkpoint folder on the CPU."""

    def __init__(self, checkpoint: Path) -> None:
        import diffusers
        import torch

        torch.set_grad_enabled(False)
        diffusers.logging.set_verbosity_error()
        diffusers.logging.disable_progress_bar()

        self._torch = torch
        self._pipelines = Pipelines(diffusers, checkpoint, torch_dtype=torch.float32)

    def make(self, rows: list[Row]) -> list[Image.Image]:
        """The images of requests of one task."""
        first = rows[0]
        generators = [self._torch.Generator().manual_seed(row["seed"]) for row in rows]
        embeds = self._embeds(rows, generators)
        more: Row = {}
        if first["task"] == "img2img":
            more = {"image": [row["image"] for row in rows], "strength": first["strength"]}
        if first["task"] == "inpaint":
            pictures = np.stack([np.asarray(row["image"], np.float32) / 127.5 - 1 for row in rows])
            masks = np.stack([np.asarray(row["mask"], np.float32)[None] / 255 for row in rows])
            more["image"] = self._torch.from_numpy(pictures.transpose(0, 3, 1, 2).copy())
            more["mask_image"] = self._torch.from_numpy(masks)
        return self._pipelines.decode(rows, embeds, generators, more)

    def _embeds(self, rows: list[Row], generators: list[Any]) -> tuple[Any, Any]:
        first = rows[0]
        given = {"num_inference_steps": first["prior_steps"], "guidance_scale": first["prior_guidance_scale"]}
        if first["task"] != "interpolate":
            found = self._pipelines.prior([row["prompt"] for row in rows], generator=generators, **given)
            return found.image_embeds, found.negative_image_embeds
        pairs = []
        for row, generator in zip(rows, generators, strict=True):
            conditions, weights = zip(*row["conditions"], strict=True)
            pairs.append(
                self._pipelines.prior.interpolate(list(conditions), list(weights), generator=generator, **given)
            )
        return tuple(self._torch.cat(side) for side in zip(*(pair.to_tuple() for pair in pairs), strict=True))


def main(checkpoint: Path, manifest: Path, folder: Path, batch: int) -> None:
    """Make all requests of the manifest."""
    rows, models = peer_requests.read(manifest), PyTorch(checkpoint)
    for some in peer_requests.batches(rows, batch) if batch > 1 else ([row] for row in rows):
        peer_requests.save(folder, some, models.make(some))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
