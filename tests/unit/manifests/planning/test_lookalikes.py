"""Columns that look like a request column and are not used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from manifests.config import RunConfig
from manifests.planning.lookalikes import meant
from manifests.planning.plan import plan
from manifests.planning.sources import describe
from manifests.requests.schema import REQUEST_NAMES


@pytest.mark.parametrize(
    ("column", "name"),
    [
        *(("Seed", "seed"), (" seed", "seed"), ("SEED", "seed"), ("negative prompt", "negative_prompt")),
        *(("guidanceScale", "guidance_scale"), ("Mask-Polarity", "mask_polarity"), ("numImages", "num_images")),
        *(("cfg", "guidance_scale"), ("step", "steps"), ("num_inference_steps", "steps"), ("text", "prompt")),
        *(("init_image", "image"), ("denoising_strength", "strength"), ("num_images_per_prompt", "num_images")),
        *(("promt", "prompt"), ("heigth", "height"), ("negativ_prompt", "negative_prompt"), ("widht", "width")),
        *(("images", "image"), ("strenght", "strength")),
    ],
)
def test_a_name_near_a_request_column_or_known_from_another_tool_is_told(column: str, name: str) -> None:
    assert meant(column, ["task"]) == name


@pytest.mark.parametrize(
    "column",
    [*REQUEST_NAMES, "image_embeds", "weight", "lang", "url", "image_id", "tag", "seen", "title", "stage", "sha256"],
)
def test_ordinary_names_are_left_alone(column: str) -> None:
    assert meant(column, []) is None


def test_a_caption_beside_a_prompt_is_a_column_of_its_own_and_another_spelling_never_is() -> None:
    assert meant("caption", ["caption", "prompt"]) is None
    assert meant("Prompt", ["Prompt", "prompt"]) == "prompt"


def lines(folder: Path, *tables: dict[str, Any]) -> list[str]:
    for number, table in enumerate(tables):
        pq.write_table(pa.table(table), folder / f"{number}.parquet")
    return describe(plan(RunConfig(manifest=(str(folder),), output="out")).sources)


def test_what_is_ordinary_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "_SUCCESS").touch()
    table = {"task": ["text2img"], "prompt": ["x"], "lang": ["en"]}
    assert lines(tmp_path, table, table) == [
        "2 files, 2 rows; columns task, prompt; kept for the index lang; 1 marker left out"
    ]


def test_what_is_not_used_is_told_with_the_way_to_have_it_used(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    first = {"task": ["text2img"], "prompt": ["x"], "Seed": [1], "cfg": [4.0]}
    second = {"task": ["text2img"], "prompt": ["x"], "guidance_scale": [4.0]}
    assert lines(tmp_path, first, second)[1:] == [
        "column 'Seed' in 1 file is not used; did you mean seed?",
        "column 'cfg' in 1 file is not used; did you mean guidance_scale?",
        "to rename: python jobs/make_manifest.py --parquet MANIFEST --output NEW --map Seed=seed",
        f"left out, 1 not one of .parquet, .parq, .pq: {tmp_path}/notes.txt",
    ]
