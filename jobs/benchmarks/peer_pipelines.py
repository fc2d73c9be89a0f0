"""The pipelines of one library, diffusers or mindone's, as the sides of `jobs.benchmarks.peers` call them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from jobs.benchmarks.peer_requests import Row


class Pipelines:
    """Those of one checkpoint folder.

    Args:
        library: has the pipelines' classes.
        checkpoint: the folder.
        settings: of `from_pretrained`.
    """

    def __init__(self, library: Any, checkpoint: Path, **settings: Any) -> None:
        def load(name: str, folder: str) -> Any:
            loaded = getattr(library, name).from_pretrained(str(checkpoint / folder), **settings)
            loaded.set_progress_bar_config(disable=True)
            return loaded

        self.prior = load("KandinskyPriorPipeline", "kandinsky-2-1-prior")
        self._decoders = {
            "text2img": load("KandinskyPipeline", "kandinsky-2-1"),
            "img2img": load("KandinskyImg2ImgPipeline", "kandinsky-2-1"),
            "inpaint": load("KandinskyInpaintPipeline", "kandinsky-2-1-inpaint"),
        }
        self._decoders["interpolate"] = self._decoders["text2img"]

    def decode(self, rows: list[Row], embeds: tuple[Any, Any], generator: Any, more: Row) -> list[Image.Image]:
        """The images of requests of one task.

        Args:
            rows: the requests.
            embeds: positive and negative image embeddings.
            generator: as the library wants it for so many rows.
            more: what the task's pipeline takes beside the rest.
        """
        first = rows[0]
        images: list[Image.Image] = self._decoders[first["task"]](
            [row["prompt"] for row in rows],
            image_embeds=embeds[0],
            negative_image_embeds=embeds[1],
            height=first["height"],
            width=first["width"],
            num_inference_steps=first["steps"],
            guidance_scale=first["guidance_scale"],
            generator=generator,
            **more,
        )[0]
        return images
