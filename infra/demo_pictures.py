"""Recipe of `manifests/examples/pictures/`: what the example manifests give to img2img, inpainting and interpolation.

    python infra/demo_pictures.py [--output manifests/examples/pictures]

They show the demo checkpoint's world (`infra/demo_checkpoint/world`), but for the sketch, which is drawn by hand in the
way in which the documents' sketch is: a few flat shapes that the checkpoint shall make a landscape of.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from infra.demo_checkpoint.world import scenes  # noqa: E402

EDGE = 128


def cat() -> Image.Image:
    """A cat with room above its head."""
    canvas = Image.new("RGB", (EDGE, EDGE), scenes.COLOURS["blue"])
    scenes.paste(canvas, "cat", (0.5 * EDGE, 0.66 * EDGE), 0.56 * EDGE)
    return canvas


def house() -> Image.Image:
    """A house on the left of a wide picture."""
    canvas = Image.new("RGB", (3 * EDGE // 2, EDGE), scenes.COLOURS["pink"])
    scenes.paste(canvas, "house", (0.42 * EDGE, 0.5 * EDGE), 0.5 * EDGE)
    return canvas


def starry_night() -> Image.Image:
    """Stars and a moon."""
    return Image.fromarray(scenes.render(scenes.Scene((), "", ("night",)), np.random.default_rng(2)))


def landscape_sketch() -> Image.Image:
    """Two grey triangles, a green strip and a yellow sun."""
    canvas = Image.new("RGB", (EDGE, EDGE), (170, 210, 240))
    draw = ImageDraw.Draw(canvas)
    draw.ellipse((98, 10, 118, 30), fill=(250, 215, 80))
    draw.polygon([(2, 98), (40, 36), (74, 98)], fill=(120, 128, 150))
    draw.polygon([(56, 98), (92, 50), (126, 98)], fill=(98, 106, 130))
    draw.rectangle((0, 97, EDGE, EDGE), fill=(80, 150, 75))
    return canvas


def box_mask(box: tuple[int, int, int, int], inside: int) -> Image.Image:
    """A rectangle of value `inside`, 0 or 255, on the other one."""
    mask = Image.new("L", (EDGE, EDGE), 255 - inside)
    ImageDraw.Draw(mask).rectangle(box, fill=inside)
    return mask


def main() -> None:
    """Write the pictures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    default = ROOT / "manifests" / "examples" / "pictures"
    parser.add_argument("--output", type=Path, default=default, help="folder to write them to")
    output: Path = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    made = {
        "cat": cat(),
        "house": house(),
        "starry-night": starry_night(),
        "landscape-sketch": landscape_sketch(),
        "above-the-cat": box_mask((22, 0, 105, 61), 255),
        "all-but-the-middle": box_mask((28, 28, 99, 99), 0),
    }
    for name, picture in made.items():
        picture.save(output / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
