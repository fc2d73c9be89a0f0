"""The contact sheet: every image is there with its inputs beside it, words under it, and nothing runs over the edge."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageFont

from jobs.reporting import contact_sheet, pictures
from jobs.reporting.contact_sheet import EDGE, WIDTH, make_contact_sheet
from manifests.errors import UsageError

DATA = Path(__file__).resolve().parents[3] / "data" / "output_0_1"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """A small finished output of all tasks, whose source picture and mask can be read."""
    shutil.copytree(DATA / "output", tmp_path / "output")
    for path in sorted((tmp_path / "output").glob("*.parquet")):
        index = pq.read_table(path)
        for column, file in (("image_path", "photo.png"), ("mask_path", "mask.png")):
            place = index.schema.get_field_index(column)
            paths = [value and str(DATA / file) for value in index.column(column).to_pylist()]
            index = index.set_column(place, index.schema.field(place), [pa.array(paths, pa.string())])
        pq.write_table(index, path)
    return tmp_path / "output"


def enlarged(content: bytes) -> np.ndarray:
    """An image file as the sheet shows it."""
    image = Image.open(io.BytesIO(content)).convert("RGB")
    return np.asarray(image.resize((round(image.width * EDGE / image.height), EDGE), Image.Resampling.LANCZOS))


def places(sheet: np.ndarray, picture: np.ndarray) -> int:
    """How often a picture stands in the sheet, pixel by pixel."""
    height, width, _ = picture.shape
    down, across = (sheet.shape[axis] - picture.shape[axis] + 1 for axis in (0, 1))
    # Some pixels first, which are quick to compare at all places.
    some = [(y, x) for y in (0, height // 2, height - 1) for x in (0, width // 2, width - 1)]
    alike = [(sheet[y : y + down, x : x + across] == picture[y, x]).all(-1) for y, x in some]
    ys, xs = np.where(np.logical_and.reduce(alike))
    return sum(np.array_equal(sheet[y : y + height, x : x + width], picture) for y, x in zip(ys, xs, strict=True))


def shown(output: Path, most: int = 100) -> np.ndarray:
    target = output.parent / "sheet.png"
    assert make_contact_sheet(str(output), str(target), most) == str(target)
    return np.asarray(Image.open(target).convert("RGB"))


def test_every_image_stands_there_once_with_its_source_and_mask(output: Path) -> None:
    sheet = shown(output)
    assert sheet.shape[1] == WIDTH
    keys: dict[int, list[str]] = {}
    for path in sorted(output.glob("*.parquet")):
        table = pq.read_table(path, columns=["key", "status"]).to_pylist()
        keys[int(path.stem)] = [row["key"] for row in table if row["status"] == "success"]
    results = dict(pictures.results(str(output), keys))
    assert len(results) == 6
    assert [places(sheet, enlarged(content)) for content in results.values()] == [1] * 6
    # One image to image and one inpainting request: the source twice, the mask once.
    assert places(sheet, enlarged((DATA / "photo.png").read_bytes())) == 2
    assert places(sheet, enlarged((DATA / "mask.png").read_bytes())) == 1


def test_only_so_many_images_are_shown_and_the_first_ones(output: Path) -> None:
    assert shown(output, 1).shape[0] < shown(output).shape[0]
    with pytest.raises(UsageError, match="no run was begun"):
        make_contact_sheet(str(output.parent), str(output.parent / "x.png"), 5)


def test_an_input_that_is_gone_is_told_and_the_sheet_is_made(output: Path, tmp_path: Path) -> None:
    for path in output.glob("*.parquet"):
        index = pq.read_table(path)
        place = index.schema.get_field_index("image_path")
        gone = [value and str(tmp_path / "gone.png") for value in index.column("image_path").to_pylist()]
        pq.write_table(index.set_column(place, index.schema.field(place), [pa.array(gone, pa.string())]), path)
    sheet = shown(output)
    assert places(sheet, enlarged((DATA / "photo.png").read_bytes())) == 0
    assert places(sheet, enlarged((DATA / "mask.png").read_bytes())) == 1


def test_without_a_font_for_its_letters_a_caption_is_the_id(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    wrapped = contact_sheet._wrapped
    monkeypatch.setattr(contact_sheet, "FONTS", ("no such font.ttf",))
    monkeypatch.setattr(contact_sheet, "_wrapped", lambda text, *rest: written.append(text) or wrapped(text, *rest))
    path = output / "00000.parquet"
    index = pq.read_table(path)
    place = index.schema.get_field_index("prompt")
    pq.write_table(index.set_column(place, index.schema.field(place), [["кот"] * index.num_rows]), path)
    shown(output)
    made = [row["id"] for row in index.to_pylist() if row["status"] == "success"]
    assert made
    assert set(made) <= set(written)
    assert all(text.isascii() for text in written)


def test_long_captions_are_cut_and_stay_under_their_picture() -> None:
    font = ImageFont.load_default(11)
    draw = contact_sheet.ImageDraw.Draw(Image.new("RGB", (9, 9)))
    for text in ("a cat " * 60, "x" * 300, "short", ""):
        lines = contact_sheet._wrapped(text, EDGE, font, draw).split("\n")
        assert len(lines) <= contact_sheet.MOST_LINES
        assert all(draw.textlength(line, font) <= EDGE for line in lines)
