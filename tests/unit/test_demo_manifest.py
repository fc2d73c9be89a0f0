"""The demo manifest: what is committed is what the recipe makes, every row is valid and every image opens."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from manifests.config import RunConfig
from manifests.requests.validation import resolve
from workers.stages.masks import fit_mask
from workers.stages.pixels import decode

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "manifests" / "examples"

Row = dict[str, Any]


@pytest.fixture(scope="module")
def table() -> pa.Table:
    return pq.read_table(EXAMPLES / "demo.parquet")


@pytest.fixture(scope="module")
def rows(table: pa.Table) -> list[Row]:
    return list(table.to_pylist())


def content(source: Row) -> bytes:
    return bytes(source["bytes"]) if source["bytes"] is not None else (EXAMPLES / source["path"]).read_bytes()


def images_of(row: Row) -> list[Row]:
    sources = [row["image"], row["mask"], *(c["image"] for c in row["conditions"] or [])]
    return [source for source in sources if source is not None]


def test_the_recipe_makes_the_committed_manifest(table: pa.Table, tmp_path: Path) -> None:
    made = tmp_path / "demo.parquet"
    subprocess.run([sys.executable, ROOT / "infra" / "demo_manifest.py", "--output", made], check=True)
    again = pq.read_table(made)
    assert again.schema.equals(table.schema, check_metadata=True)
    assert again.drop_columns(["mask"]).equals(table.drop_columns(["mask"]))
    # Another zlib may pack a mask differently; its pixels are what counts.
    for ours, theirs in zip(again.column("mask").to_pylist(), table.column("mask").to_pylist(), strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            assert Image.open(io.BytesIO(content(ours))) == Image.open(io.BytesIO(content(theirs)))


def test_the_recipe_makes_the_committed_pictures(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "infra" / "demo_pictures.py", "--output", tmp_path], check=True)
    committed = sorted((EXAMPLES / "pictures").glob("*.png"))
    assert [path.name for path in committed] == sorted(path.name for path in tmp_path.iterdir())
    assert all(Image.open(path) == Image.open(tmp_path / path.name) for path in committed)


def test_every_row_is_valid(table: pa.Table) -> None:
    config = RunConfig(manifest=("demo.parquet",), output="out")
    assert resolve([table], config).errors == {}


def test_it_shows_every_feature(rows: list[Row]) -> None:
    assert sum(row["num_images"] or 1 for row in rows) >= 24
    assert {row["task"] for row in rows} == {"text2img", "img2img", "inpaint", "interpolate"}
    assert len({row["id"] for row in rows}) == len(rows)
    assert {"", None} < {row["negative_prompt"] for row in rows}
    assert {row["seed"] is None for row in rows} == {True, False}
    assert {row["width"] > row["height"] for row in rows} == {True, False}
    assert any(row["width"] < row["height"] for row in rows)
    assert {row["mask_polarity"] for row in rows} == {"black", None}
    assert {row["image"]["bytes"] is None for row in rows if row["image"]} == {True, False}
    assert {0.3, 0.6, 1.0} <= {row["strength"] for row in rows}
    assert [0.3, 0.3, 0.4] in [[c["weight"] for c in row["conditions"] or []] for row in rows]
    assert {row["dataset"] for row in rows} == {"demo"}


def test_every_image_opens_and_every_mask_repaints_a_part(rows: list[Row]) -> None:
    for row in rows:
        for source in images_of(row):
            decode(content(source))
        if row["mask"] is not None:
            polarity = row["mask_polarity"] or "white"
            mask = fit_mask(decode(content(row["mask"])), row["width"], row["height"], polarity)
            assert 0.05 < np.mean(mask >= 128) < 0.6, row["id"]


def test_it_is_small_and_says_where_the_pictures_are_from() -> None:
    assert sum(path.stat().st_size for path in EXAMPLES.rglob("*") if path.is_file()) < 300_000
    for folder in ("photos", "pictures"):
        licence = (EXAMPLES / folder / "LICENSE.md").read_text()
        files = [path for path in (EXAMPLES / folder).iterdir() if path.suffix != ".md"]
        assert len(files) >= 3
        assert all(f"`{path.name}`" in licence for path in files)
