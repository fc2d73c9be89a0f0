"""One side of `jobs.benchmarks.peers`: mindone's pipelines in a loop, as their documents show them.

    python -m jobs.benchmarks.peer_loop CHECKPOINT MANIFEST FOLDER

MindSpore's CPU backend lacks kernels that Kandinsky needs, and the prior fails on it for its mask: those two are taken
from this project, as nothing would run otherwise. All else is theirs.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jobs.benchmarks import peer_requests
from jobs.benchmarks.peer_requests import Row
from workers.device import device


class Loop:
    """The documents' pipelines of one checkpoint folder on this process's CPU."""

    def __init__(self, checkpoint: Path) -> None:
        device.take("cpu")
        from mindone import diffusers

        # For what it mends in mindone; the pipelines below are mindone's own.
        import workers.kandinsky.pipelines  # noqa: F401

        def load(pipeline: Any, folder: str) -> Any:
            loaded = pipeline.from_pretrained(str(checkpoint / folder))
            loaded.set_progress_bar_config(disable=True)
            return loaded

        self._prior = load(diffusers.KandinskyPriorPipeline, "kandinsky-2-1-prior")
        self._decoders = {
            "text2img": load(diffusers.KandinskyPipeline, "kandinsky-2-1"),
            "img2img": load(diffusers.KandinskyImg2ImgPipeline, "kandinsky-2-1"),
            "inpaint": load(diffusers.KandinskyInpaintPipeline, "kandinsky-2-1-inpaint"),
        }
        self._decoders["interpolate"] = self._decoders["text2img"]

    def make(self, row: Row) -> Image.Image:
        """The image of one request."""
        return self.make_many([row])[0]

    def make_many(self, rows: list[Row]) -> list[Image.Image]:
        """The images of requests of one task; only text-to-image takes more than one."""
        first, prompts = rows[0], [row["prompt"] for row in rows]
        given: Row = {"num_inference_steps": first["prior_steps"], "guidance_scale": first["prior_guidance_scale"]}
        given["generator"] = np.random.default_rng(first["seed"])
        if first["task"] == "interpolate":
            conditions, weights = zip(*first["conditions"], strict=True)
            embeds = self._prior.interpolate(list(conditions), list(weights), **given)
        else:
            embeds = self._prior(prompts, **given)
        more = {name: first[name] for name in ("image", "strength") if first[name] is not None}
        if first["mask"] is not None:
            more["mask_image"] = first["mask"]
        images: list[Image.Image] = self._decoders[first["task"]](
            prompts,
            image_embeds=embeds[0],
            negative_image_embeds=embeds[1],
            height=first["height"],
            width=first["width"],
            num_inference_steps=first["steps"],
            guidance_scale=first["guidance_scale"],
            generator=np.random.default_rng(first["seed"]),
            **more,
        )[0]
        return images


def main(checkpoint: Path, manifest: Path, folder: Path) -> None:
    """Make all requests of the manifest, one after the other."""
    rows, loop = peer_requests.read(manifest), Loop(checkpoint)
    for row in rows:
        peer_requests.save(folder, [row], [loop.make(row)])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
