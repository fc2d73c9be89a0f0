"""What an export holds, opened by the tools that it is for: datasets, webdataset, pandas, Pillow."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyexiv2
import pytest
import webdataset
from PIL import Image

from jobs.exporting.job import export
from tests.unit.jobs.exporting.outputs import make_output, wish


def images(output: str) -> dict[str, bytes]:
    """Every image of an output, by key, as webdataset reads it."""
    tars = sorted(str(path) for path in Path(output).glob("*.tar"))
    return {sample["__key__"]: sample["png"] for sample in webdataset.WebDataset(tars, shardshuffle=False)}


def silent(_: str) -> None:
    pass


@pytest.fixture
def cache(tmp_path: Path) -> str:
    return str(tmp_path / "cache")


def test_a_folder_holds_the_files_as_they_are_and_opens_as_an_image_folder(
    output: str, tmp_path: Path, cache: str
) -> None:
    to = tmp_path / "to"
    done = export(wish(output, to, "folder"), silent)
    stored = images(output)
    assert done.contents.images == len(stored) == 9
    table = pd.read_parquet(to / "metadata.parquet")
    assert list(table.file_name) == [f"{key}.png" for key in stored]
    assert {path.stem: path.read_bytes() for path in to.glob("*.png")} == stored
    assert sorted(path.name for path in to.iterdir()) == sorted([".export", "metadata.parquet", *table.file_name])
    opened = datasets.load_dataset("imagefolder", data_dir=str(to), split="train", cache_dir=cache)
    found = {row["key"]: np.asarray(row["image"]) for row in opened}
    assert found.keys() == stored.keys()
    for key, file in stored.items():
        assert (found[key] == np.asarray(Image.open(io.BytesIO(file)))).all()


def test_what_the_hub_reads_opens_by_its_card_with_images_and_all_columns(
    output: str, tmp_path: Path, cache: str
) -> None:
    to = tmp_path / "to"
    export(wish(output, to, "huggingface", shuffle=1), silent)
    opened = datasets.load_dataset(str(to), split="train", cache_dir=cache)
    assert isinstance(opened.features["image"], datasets.Image)
    stored = images(output)
    assert sorted(opened["key"]) == sorted(stored)
    assert opened["key"] != sorted(stored)
    for row in opened:
        assert (np.asarray(row["image"]) == np.asarray(Image.open(io.BytesIO(stored[row["key"]])))).all()
    table = pd.read_parquet(to / "data")
    index = pd.concat(pd.read_parquet(path) for path in Path(output).glob("0*.parquet")).set_index("key")
    for row in table.to_dict("records"):
        assert hashlib.sha256(row["image"]["bytes"]).hexdigest() == row["sha256"] == index.sha256[row["key"]]
        assert (row["rating"], row["seed"], row["id"]) == tuple(index.loc[row["key"]][["rating", "seed", "id"]])
    streamed = datasets.load_dataset(str(to), split="train", streaming=True)
    assert [row["key"] for row in streamed] == opened["key"][:]


def test_a_filtered_copy_opens_as_the_output_itself_does(output: str, tmp_path: Path, cache: str) -> None:
    to = tmp_path / "to"
    export(wish(output, to, where="image_index = 0"), silent)
    stored = {key: file for key, file in images(output).items() if key in set(images(str(to)))}
    assert images(str(to)) == stored
    tables = [pd.read_parquet(path) for path in sorted(to.glob("*.parquet"))]
    assert [key for table in tables for key in table.key] == list(stored)
    assert all((table.image_index == 0).all() for table in tables)
    opened = datasets.load_dataset("webdataset", data_files=str(to / "*.tar"), split="train", cache_dir=cache)
    assert opened.num_rows == len(stored)


@pytest.mark.parametrize("layout", ["folder", "huggingface", "webdataset"])
def test_smaller_images_say_what_they_are_and_what_they_were(output: str, tmp_path: Path, layout: str) -> None:
    to = tmp_path / "to"
    export(wish(output, to, layout, resize=32), silent)
    tables = sorted((to / "data").glob("*") if layout == "huggingface" else to.glob("*.parquet"))
    table = pd.concat([pd.read_parquet(path) for path in tables])
    assert set(table.width) == {64}
    assert set(table.height) == {32}
    assert set(table.original_width) == {128}
    stored = images(output)
    files: dict[str, bytes]
    if layout == "folder":
        files = {path.stem: path.read_bytes() for path in to.glob("*.png")}
    elif layout == "huggingface":
        files = {row["key"]: row["image"]["bytes"] for row in table.to_dict("records")}
    else:
        files = images(str(to))
    for row in table.to_dict("records"):
        file, image = files[row["key"]], Image.open(io.BytesIO(files[row["key"]]))
        assert image.size == (64, 32)
        assert hashlib.sha256(file).hexdigest() == row["sha256"]
        assert hashlib.sha256(stored[row["key"]]).hexdigest() == row["original_sha256"]
        meant = Image.open(io.BytesIO(stored[row["key"]])).resize((64, 32), Image.Resampling.BICUBIC)
        assert image.tobytes() == meant.tobytes()
        assert "Size: 64x32" in image.info["parameters"]
        with pyexiv2.ImageData(file) as marked:
            assert marked.read_xmp()["Xmp.iptcExt.DigitalSourceType"].endswith("/trainedAlgorithmicMedia")


def test_nothing_is_made_larger_and_no_mark_is_added(tmp_path: Path) -> None:
    output = make_output(tmp_path, image_format="webp", mark=False)
    export(wish(output, tmp_path / "to", "folder", resize=4000), silent)
    files = sorted((tmp_path / "to").glob("*.webp"))
    assert len(files) == 9
    for file in files:
        assert Image.open(file).size == (128, 64)
        with pyexiv2.Image(str(file)) as image:
            assert image.read_xmp() == {}


def card(to: Path) -> tuple[dict[str, Any], str]:
    from huggingface_hub import DatasetCard

    loaded = DatasetCard.load(to / "README.md")
    return loaded.data.to_dict(), loaded.text


def test_the_card_has_what_the_hub_and_a_person_look_for(output: str, tmp_path: Path) -> None:
    to = tmp_path / "to"
    export(
        wish(output, to, "huggingface", licence="cc0-1.0", title="Cats", name="me/cats", where="rating < 9 | 1"), silent
    )
    data, text = card(to)
    assert data["license"] == "cc0-1.0"
    assert data["pretty_name"] == "Cats"
    assert data["task_categories"] == ["text-to-image"]
    assert data["size_categories"] == ["n<1K"]
    assert data["configs"][0]["data_files"] == [{"split": "train", "path": "data/train-*.parquet"}]
    assert 'load_dataset("me/cats", split="train")' in text
    assert "9 images" in text
    assert "| 9 | text2img, 128 x 64, 100 steps, guidance 4 |" in text
    assert "- rows where `rating < 9 | 1`" in text
    assert "| `seed` | uint64 | seed of the request" in text
    assert "| `rating` | double | a column of the manifest |" in text
    assert "trainedAlgorithmicMedia" in text
    samples = sorted((to / "samples").iterdir())
    assert len(samples) == 8
    for sample in samples:
        assert f"(samples/{sample.name})" in text
        with pyexiv2.Image(str(sample)) as image:
            assert image.read_xmp()
    # Nothing tells how this machine's folders are named.
    assert str(tmp_path) not in (to / "README.md").read_text() + (to / ".export" / "export.json").read_text()
