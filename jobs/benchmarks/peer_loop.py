"""One side of `jobs.benchmarks.peers`: mindone's pipelines in a loop, as their documents show them.

    python -m jobs.benchmarks.peer_loop CHECKPOINT MANIFEST FOLDER

MindSpore's CPU backend lacks kernels that Kandinsky needs, and the prior fails on it for its mask: those two are taken
from this project, as nothing would run otherwise. All else is theirs.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from jobs.benchmarks import peer_requests
from jobs.benchmarks.peer_pipelines import Pipelines
from jobs.benchmarks.peer_requests import Row
from workers.device import device


class Loop:
    """The documents' pipelines of one checkpoint folder on this process's CPU."""

    def __init__(self, checkpoint: Path) -> None:
        device.take("cpu")
        from mindone import diffusers

        # For what it mends in mindone; the pipelines below are mindone's own.
        import workers.kandinsky.pipelines  # noqa: F401

        self._pipelines = Pipelines(diffusers, checkpoint)

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
            embeds = self._pipelines.prior.interpolate(list(conditions), list(weights), **given)
        else:
            embeds = self._pipelines.prior(prompts, **given)
        more = {name: first[name] for name in ("image", "strength") if first[name] is not None}
        if first["mask"] is not None:
            more["mask_image"] = first["mask"]
        return self._pipelines.decode(rows, (embeds[0], embeds[1]), np.random.default_rng(first["seed"]), more)


def main(checkpoint: Path, manifest: Path, folder: Path) -> None:
    """Make all requests of the manifest, one after the other."""
    rows, loop = peer_requests.read(manifest), Loop(checkpoint)
    for row in rows:
        peer_requests.save(folder, [row], [loop.make(row)])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
