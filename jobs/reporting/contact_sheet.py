"""A contact sheet of an output: one PNG with its first images, inputs and masks beside them, captions underneath."""

from __future__ import annotations

import io
import itertools
import textwrap
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow.compute as pc
from PIL import Image, ImageDraw, ImageFont

from jobs.output.manifest_rows import ManifestRows
from jobs.output.sample import Row, read_index
from jobs.output.summary import Summary, summarize
from jobs.reporting.inputs import Source, read_inputs
from jobs.reporting.pictures import MANIFEST_BYTES, results
from manifests import storage
from manifests.errors import SUCCESS, UsageError
from workers.stages.fetching import UnusableError
from workers.stages.pixels import decode, to_rgb

#: Height of a picture, room between two of them, width of the sheet and height of a line of text, in pixels.
EDGE, GAP, WIDTH, LINE = 144, 10, 1260, 15
#: Lines of text under a picture.
MOST_LINES = 3
GROUND, INK, FAINT = (255, 255, 255), (25, 25, 25), (120, 120, 120)
#: Pillow's own font has Latin letters without accents only, so one of the system's is taken where there is one.
FONTS = ("DejaVuSans.ttf", "LiberationSans-Regular.ttf", "NotoSans-Regular.ttf", "Arial.ttf")

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class _Tile:
    """One request's pictures side by side, all `EDGE` pixels high, with what is written under them."""

    pictures: Sequence[Image.Image]
    labels: Sequence[str]
    caption: str

    @property
    def width(self) -> int:
        return sum(picture.width for picture in self.pictures) + GAP // 2 * (len(self.pictures) - 1)


def make_contact_sheet(output: str, target: str, most: int) -> str:
    """Write the sheet as PNG; returns where it is.

    Args:
        output: of a run; what is committed of it counts.
        target: a file or URL; what is there is replaced.
        most: images, at most; the first ones are shown, in the order of their keys.

    Raises:
        UsageError: no run was begun there, or it has no image yet.
        StorageError: the output cannot be read, or the sheet not be written.
    """
    summary = summarize(output)
    rows = list(itertools.islice(_rows(summary), most))
    if not rows:
        raise UsageError(f"{output} has no image yet; start it again when some shards are committed")
    by_shard: dict[int, list[str]] = defaultdict(list)
    for row in rows:
        by_shard[row["shard"]].append(row["key"])
    found = dict(results(output, by_shard))
    font, readable = _font(11)
    manifest = ManifestRows(summary.settings.get("manifest", ()), budget=MANIFEST_BYTES)
    # Fitted at once, because an input file may be large.
    inputs = {
        row["key"]: [(source.label, _input(source, content, font)) for source, content in given]
        for row, given in read_inputs(rows, manifest)
    }
    tiles = [_tile(row, inputs[row["key"]], found[row["key"]], font, readable) for row in rows if row["key"] in found]
    sink = io.BytesIO()
    _paint(tiles, font).save(sink, "PNG", optimize=True)
    storage.write_atomic(target, sink.getvalue())
    return target


def _rows(summary: Summary) -> Iterator[Row]:
    """Records of images, with their `shard`, in the order of their keys."""
    for shard in summary.stats:
        table = read_index(summary.output, shard.shard)
        for row in table.filter(pc.equal(table["status"], SUCCESS)).to_pylist():
            yield {**row, "shard": shard.shard}


def _font(size: int) -> tuple[Font, bool]:
    """A font, and whether it has more than ASCII."""
    for name in FONTS:
        try:
            return ImageFont.truetype(name, size), True
        except OSError:
            continue
    return ImageFont.load_default(size), False


def _tile(row: Row, inputs: Sequence[tuple[str, Image.Image]], content: bytes, font: Font, readable: bool) -> _Tile:
    caption = row["prompt"] or row["id"]
    if row["task"] == "img2img":
        caption += f" (strength {row['strength']:g})"
    if row["negative_prompt"]:
        caption += f" (not: {row['negative_prompt']})"
    if not (readable or caption.isascii()):
        caption = str(row["id"])
    pictures = [*(picture for _, picture in inputs), _fitted(content)]
    return _Tile(pictures, [*(label for label, _ in inputs), ""], caption)


def _input(source: Source, content: bytes | UnusableError, font: Font) -> Image.Image:
    """An input as it was given, or a card with its text or with why it cannot be shown."""
    if isinstance(content, UnusableError):
        return _card(str(content), font)
    try:
        return _fitted(content)
    except Exception:  # whatever a foreign file does, the sheet is made
        return _card(f"cannot be read: {source.location or 'what lies inline'}", font)


def _fitted(content: bytes) -> Image.Image:
    image = to_rgb(decode(content))
    return image.resize((max(1, round(image.width * EDGE / image.height)), EDGE), Image.Resampling.LANCZOS)


def _card(text: str, font: Font) -> Image.Image:
    """A condition that is a text, or the reason why a picture is not to be had."""
    card = Image.new("RGB", (EDGE, EDGE), (238, 238, 238))
    lines = textwrap.wrap(text, 20)[:6]
    place = ((EDGE - LINE * len(lines)) // 2, EDGE // 2)
    ImageDraw.Draw(card).multiline_text(
        (place[1], place[0]), "\n".join(lines), fill=INK, font=font, anchor="ma", align="center", spacing=4
    )
    return card


def _paint(tiles: Sequence[_Tile], font: Font) -> Image.Image:
    """Lay the tiles out in lines, and paint them."""
    lines: list[list[_Tile]] = [[]]
    for tile in tiles:
        if lines[-1] and sum(other.width + 2 * GAP for other in lines[-1]) + tile.width > WIDTH - 4 * GAP:
            lines.append([])
        lines[-1].append(tile)
    height = EDGE + (1 + MOST_LINES) * LINE + GAP
    sheet = Image.new("RGB", (WIDTH, height * len(lines) + 2 * GAP), GROUND)
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(lines):
        x, y = 2 * GAP, 2 * GAP + number * height
        for tile in line:
            start = x
            for picture, label in zip(tile.pictures, tile.labels, strict=True):
                sheet.paste(picture, (x, y))
                draw.text((x, y + EDGE + 2), label, fill=FAINT, font=font)
                x += picture.width + GAP // 2
            words = _wrapped(tile.caption, tile.width, font, draw)
            draw.multiline_text((start, y + EDGE + LINE * any(tile.labels) + 2), words, fill=INK, font=font, spacing=2)
            x += 2 * GAP - GAP // 2
    return sheet


def _wrapped(text: str, width: int, font: Font, draw: ImageDraw.ImageDraw) -> str:
    """The text in lines of at most `width` pixels, cut off after `MOST_LINES`."""
    letters = max(8, int(len(text) * width / max(1.0, draw.textlength(text, font))))
    while letters > 8 and any(draw.textlength(line, font) > width for line in textwrap.wrap(text, letters)):
        letters -= 1
    return "\n".join(textwrap.wrap(text, letters, max_lines=MOST_LINES, placeholder=" …"))
