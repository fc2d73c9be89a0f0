"""What other programs write: the table of types in manifests/README.md, row by row, by the program where it is here."""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from manifests.config import RunConfig
from manifests.planning.plan import plan, window_batches

CONDITIONS = [{"text": "a cat", "weight": 0.25}, {"image": {"path": "/b.png"}, "weight": 0.75}]
UUID = uuid.UUID(int=2**127 + 7)


def png() -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (8, 8)).save(sink, "PNG")
    return sink.getvalue()


def made(path: Path) -> list[dict[str, Any]]:
    """The samples of a manifest, all of which can be made, as a run's read tasks give them."""
    job = RunConfig(manifest=(str(path),), output="out")
    planned = plan(job)
    assert planned.rejected == 0, planned.problems
    batches = [batch for window in planned.windows for batch in window_batches(job, window)]
    return list(pa.concat_tables(batch.samples for batch in batches).sort_by("manifest_row").to_pylist())


def by_polars(path: Path, **columns: Any) -> None:
    pl.DataFrame(columns).write_parquet(path)


def by_pandas(path: Path, **columns: Any) -> None:
    pd.DataFrame(columns).to_parquet(path)


def by_arrow(path: Path, **columns: Any) -> None:
    pq.write_table(pa.table(columns), path)


def by_duckdb(path: Path, select: str) -> None:
    duckdb.connect().sql(f"copy ({select}) to '{path}'")


NUMBERS: list[tuple[str, Callable[[Path], None]]] = [
    ("pandas int64", lambda p: by_pandas(p, task=["text2img"] * 2, prompt=["x"] * 2, steps=[7, 7], seed=[3, 3])),
    (
        "pandas float64",
        lambda p: by_pandas(p, task=["text2img"] * 2, prompt=["x"] * 2, steps=[7, np.nan], seed=[3.0, 3]),
    ),
    (
        "pandas Int64 and category",
        lambda p: by_pandas(
            p,
            task=pd.Categorical(["text2img"] * 2),
            prompt=["x"] * 2,
            steps=pd.array([7, None], dtype="Int64"),
            seed=pd.Categorical([3, 3]),
        ),
    ),
    (
        "Polars numbers, Categorical and Enum",
        lambda p: by_polars(
            p,
            task=pl.Series(["text2img"] * 2, dtype=pl.Enum(["text2img"])),
            prompt=pl.Series(["x"] * 2, dtype=pl.Categorical),
            steps=pl.Series([7, None], dtype=pl.UInt8),
            seed=pl.Series([3, 3]).cast(pl.Decimal(20, 0)),
        ),
    ),
    (
        "Polars text",
        lambda p: by_polars(p, task=["text2img"] * 2, prompt=["x"] * 2, steps=["7.0", ""], seed=["3", "+3"]),
    ),
    (
        "DuckDB numbers and ENUM",
        lambda p: by_duckdb(
            p,
            "select unnest(['text2img', 'text2img'])::enum('text2img') task, 'x' prompt, 7::utinyint steps, "
            "3::decimal(38, 0) seed",
        ),
    ),
    (
        "DuckDB HUGEINT",
        lambda p: by_duckdb(p, "select 'text2img' task, 'x' prompt, 7::hugeint steps, 3::uhugeint seed"),
    ),
    (
        "Spark short, decimal",
        lambda p: by_arrow(
            p,
            task=["text2img"] * 2,
            prompt=["x"] * 2,
            steps=pa.array([7, None], pa.int16()),
            seed=pa.array([3, 3]).cast(pa.decimal128(20, 0)),
        ),
    ),
    (
        "datasets ClassLabel-free features",
        lambda p: datasets.Dataset.from_dict(
            {"task": ["text2img"], "prompt": ["x"], "steps": [7], "seed": [3]}
        ).to_parquet(p),
    ),
    (
        "Ray Data, NumPy columns",
        lambda p: by_arrow(
            p, task=["text2img"], prompt=["x"], steps=pa.array(np.array([7], "f4")), seed=pa.array(np.array([3], "u8"))
        ),
    ),
]


@pytest.mark.parametrize("write", [pytest.param(write, id=name) for name, write in NUMBERS])
def test_numbers_and_words(tmp_path: Path, write: Callable[[Path], None]) -> None:
    write(tmp_path / "m.parquet")
    first, *others = made(tmp_path / "m.parquet")
    assert (first["task"], first["prompt"], first["steps"], first["seed"]) == ("text2img", "x", 7, 3)
    assert {row["steps"] for row in others} <= {7, 100}
    assert {row["seed"] for row in others} <= {3}


IDS: list[tuple[str, Callable[[Path], None], str]] = [
    ("DuckDB UUID", lambda p: by_duckdb(p, f"select '{UUID}'::uuid id, 'text2img' task, 'x' prompt"), str(UUID)),
    (
        "Arrow uuid",
        lambda p: by_arrow(p, id=pa.array([UUID.bytes], pa.uuid()), task=["text2img"], prompt=["x"]),
        str(UUID),
    ),
    ("pandas string", lambda p: by_pandas(p, id=["a"], task=["text2img"], prompt=["x"]), "a"),
    ("Polars String", lambda p: by_polars(p, id=["a"], task=["text2img"], prompt=["x"]), "a"),
    ("numbers", lambda p: by_polars(p, id=[2**63 - 1], task=["text2img"], prompt=["x"]), str(2**63 - 1)),
]


@pytest.mark.parametrize(("write", "expected"), [pytest.param(write, text, id=name) for name, write, text in IDS])
def test_ids(tmp_path: Path, write: Callable[[Path], None], expected: str) -> None:
    write(tmp_path / "m.parquet")
    assert made(tmp_path / "m.parquet")[0]["id"] == expected


def by_datasets(path: Path) -> None:
    features = datasets.Features(
        {"task": datasets.Value("string"), "prompt": datasets.Value("string"), "image": datasets.Image()}
    )
    rows = {"task": ["img2img"], "prompt": ["x"], "image": [{"bytes": png(), "path": None}]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(path)


IMAGES: list[tuple[str, Callable[[Path], None]]] = [
    ("datasets Image", by_datasets),
    ("pandas bytes", lambda p: by_pandas(p, task=["img2img"], prompt=["x"], image=[png()])),
    ("Polars Binary", lambda p: by_polars(p, task=["img2img"], prompt=["x"], image=[png()])),
    ("Polars Struct", lambda p: by_polars(p, task=["img2img"], prompt=["x"], image=[{"bytes": png(), "path": None}])),
    (
        "Polars List(UInt8)",
        lambda p: by_polars(p, task=["img2img"], prompt=["x"], image=pl.Series([list(png())], dtype=pl.List(pl.UInt8))),
    ),
    ("DuckDB BLOB", lambda p: by_duckdb(p, f"select 'img2img' task, 'x' prompt, unhex('{png().hex()}') image")),
    ("Spark binary", lambda p: by_arrow(p, task=["img2img"], prompt=["x"], image=pa.array([png()], pa.binary()))),
    ("large_binary", lambda p: by_arrow(p, task=["img2img"], prompt=["x"], image=pa.array([png()], pa.large_binary()))),
    (
        "list<uint8>",
        lambda p: by_arrow(p, task=["img2img"], prompt=["x"], image=pa.array([list(png())], pa.list_(pa.uint8()))),
    ),
]


@pytest.mark.parametrize("write", [pytest.param(write, id=name) for name, write in IMAGES])
def test_images_that_lie_inline(tmp_path: Path, write: Callable[[Path], None]) -> None:
    write(tmp_path / "m.parquet")
    [row] = made(tmp_path / "m.parquet")
    assert row["image"]["bytes"] == png()


LOCATIONS: list[tuple[str, Callable[[Path], None]]] = [
    ("Polars String", lambda p: by_polars(p, task=["img2img"], prompt=["x"], image=["/a.png"])),
    ("old writers' binary", lambda p: by_arrow(p, task=["img2img"], prompt=["x"], image=pa.array([b"/a.png"]))),
    (
        "DuckDB struct",
        lambda p: by_duckdb(p, "select 'img2img' task, 'x' prompt, {'bytes': null::blob, 'path': '/a.png'} image"),
    ),
]


@pytest.mark.parametrize("write", [pytest.param(write, id=name) for name, write in LOCATIONS])
def test_images_by_their_location(tmp_path: Path, write: Callable[[Path], None]) -> None:
    write(tmp_path / "m.parquet")
    [row] = made(tmp_path / "m.parquet")
    assert row["image"] == {"bytes": None, "path": "/a.png"}


LISTS: list[tuple[str, Callable[[Path], None]]] = [
    ("Polars List(Struct)", lambda p: by_polars(p, task=["interpolate"], conditions=[CONDITIONS])),
    ("Polars JSON text", lambda p: by_polars(p, task=["interpolate"], conditions=[json.dumps(CONDITIONS)])),
    ("pandas list of dict", lambda p: by_pandas(p, task=["interpolate"], conditions=[CONDITIONS])),
    ("DuckDB JSON", lambda p: by_duckdb(p, f"select 'interpolate' task, '{json.dumps(CONDITIONS)}'::json conditions")),
    (
        "DuckDB list of struct",
        lambda p: by_duckdb(
            p,
            "select 'interpolate' task, [{'text': 'a cat', 'image': null, 'weight': 0.25}, "
            "{'text': null, 'image': '/b.png', 'weight': 0.75}] conditions",
        ),
    ),
    ("string", lambda p: by_arrow(p, task=["interpolate"], conditions=[json.dumps(CONDITIONS)])),
    (
        "large_string",
        lambda p: by_arrow(p, task=["interpolate"], conditions=pa.array([json.dumps(CONDITIONS)], pa.large_string())),
    ),
]


@pytest.mark.parametrize("write", [pytest.param(write, id=name) for name, write in LISTS])
def test_conditions(tmp_path: Path, write: Callable[[Path], None]) -> None:
    write(tmp_path / "m.parquet")
    [row] = made(tmp_path / "m.parquet")
    assert row["conditions"] == [
        {"text": "a cat", "image": None, "weight": 0.25},
        {"text": None, "image": "/b.png", "weight": 0.75},
    ]


def test_the_driver_reads_no_image_where_every_row_has_one(tmp_path: Path) -> None:
    """What the footer says is enough, and driver and read tasks agree also where some rows have none."""
    for values in ([png(), png()], [png(), None], [None, png()]):
        rows = {"id": ["a", "b"], "task": ["img2img"] * 2, "prompt": ["x"] * 2}
        pq.write_table(pa.table({**rows, "image": pa.array(values, pa.large_binary())}), tmp_path / "m.parquet")
        job = RunConfig(manifest=(str(tmp_path),), output="out")
        planned = plan(job)
        batches = [batch for window in planned.windows for batch in window_batches(job, window)]
        samples = pa.concat_tables(batch.samples for batch in batches).sort_by("manifest_row").to_pylist()
        assert [row["image"] and row["image"]["bytes"] for row in samples] == values
        assert planned.rejected == values.count(None)
