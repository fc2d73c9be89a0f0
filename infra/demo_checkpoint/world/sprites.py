"""Draw the world's objects once from the Noto Color Emoji font into one sheet, `sprites.webp`.

Only this module needs the font (Debian: fonts-noto-color-emoji). The training and the tests read the sheet.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from infra.demo_checkpoint.world.scenes import OBJECTS, SHEET, SPRITE

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
#: The only size at which the font has pictures.
FONT_SIZE = 109
EMOJI = {
    "cat": "🐱",
    "dog": "🐶",
    "frog": "🐸",
    "bird": "🐦",
    "fish": "🐠",
    "butterfly": "🦋",
    "alien": "👽",
    "robot": "🤖",
    "ghost": "👻",
    "hat": "🎩",
    "crown": "👑",
    "hamburger": "🍔",
    "pizza": "🍕",
    "apple": "🍎",
    "banana": "🍌",
    "cake": "🎂",
    "mushroom": "🍄",
    "tree": "🌳",
    "flower": "🌻",
    "car": "🚗",
    "rocket": "🚀",
    "boat": "⛵",
    "house": "🏠",
    "guitar": "🎸",
}


def draw(character: str, font: ImageFont.FreeTypeFont) -> Image.Image:
    """One emoji, cut to what is painted and fitted into a transparent square of `SPRITE` pixels."""
    canvas = Image.new("RGBA", (200, 200))
    ImageDraw.Draw(canvas).text((20, 20), character, font=font, embedded_color=True)
    painted = canvas.crop(canvas.getbbox())
    scale = SPRITE / max(painted.size)
    painted = painted.resize((round(painted.width * scale), round(painted.height * scale)), Image.Resampling.LANCZOS)
    square = Image.new("RGBA", (SPRITE, SPRITE))
    square.paste(painted, ((SPRITE - painted.width) // 2, (SPRITE - painted.height) // 2))
    return square


def main(font_file: Path) -> None:
    """Write the sheet: the objects side by side, in the order of `OBJECTS`."""
    font = ImageFont.truetype(str(font_file), FONT_SIZE)
    sheet = Image.new("RGBA", (SPRITE * len(OBJECTS), SPRITE))
    for i, name in enumerate(OBJECTS):
        sheet.paste(draw(EMOJI[name], font), (SPRITE * i, 0))
    sheet.save(SHEET, quality=88, method=6)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FONT)
