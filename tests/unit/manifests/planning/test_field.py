"""Manifests from the field that were read wrongly once (tests/data/field): each through plan and batches."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from manifests.config import RunConfig
from manifests.planning.plan import Plan, plan, window_batches

FIELD = Path(__file__).resolve().parents[3] / "data" / "field"


def read(location: str) -> tuple[Plan, list[dict[str, Any]]]:
    job = RunConfig(manifest=(str(FIELD / location),), output="out")
    planned = plan(job)
    batches = [batch for window in planned.windows for batch in window_batches(job, window)]
    samples = pa.concat_tables(batch.samples for batch in batches).sort_by("manifest_row")
    return planned, samples.to_pylist()


def column(location: str, name: str) -> list[Any]:
    return [row[name] for row in read(location)[1]]


@pytest.mark.parametrize(
    ("location", "name", "values"),
    [
        ("03-hive-partition-columns-dropped/hive", "steps", [2] * 4 + [3] * 4),
        ("03-hive-partition-columns-dropped/hive", "lang", ["de", "de", "en", "en"] * 2),
        ("03-hive-partition-columns-dropped/hive_task", "task", ["img2img"] * 2 + ["text2img"] * 2),
        ("05-extra-columns-changed-silently/round", "tweet_id", [1234567890123456789, 9007199254740993, 1, None]),
        ("07-files-left-out-silently/sparkglob/*.parquet", "prompt", ["in folder", "in file"]),
        ("12-numbers-written-as-text/text_numbers.parquet", "height", [*[128] * 3, *[512] * 6, *[128] * 3, None, None]),
        ("13-ordinary-types-refused/duck_uuid.parquet", "status", ["success"] * 3),
        ("13-ordinary-types-refused/img_binary.parquet", "status", ["success"] * 2),
        ("13-ordinary-types-refused/cond_json.parquet", "status", ["success"]),
        ("14-near-miss-columns-ignored/task_words.parquet", "task", ["text2img"] * 2 + [None, "text2img", None, None]),
        ("19-ray-tensor-columns/raytensor.parquet", "feat", [[1.0] * 12] * 2),
    ],
)
def test_a_column_is_read_as_it_was_meant(location: str, name: str, values: list[Any]) -> None:
    assert sorted(map(str, column(location, name))) == sorted(map(str, values))
    if "*" not in location:
        assert column(location, name) == values


def test_a_prompt_that_is_not_utf8_fails_its_row_by_name() -> None:
    planned, _ = read("04-extra-column-not-utf8-run-never-ends/badutf8.parquet")
    [problem] = planned.problems
    assert (problem.column, problem.rows) == ("prompt", (0, 1))
    assert "is not text; use a string in UTF-8" in problem.example


def test_columns_that_are_not_used_are_told() -> None:
    planned, _ = read("14-near-miss-columns-ignored/nearmiss.parquet")
    assert {like.column: like.meant for like in planned.sources.lookalikes} == {
        "Seed": "seed",
        "num_inference_steps": "steps",
        "step": "steps",
        "cfg": "guidance_scale",
        "Height": "height",
        "WIDTH": "width",
        "negative prompt": "negative_prompt",
    }


def test_the_fingerprint_does_not_know_what_a_process_has_imported() -> None:
    program = (
        "import sys, importlib; [importlib.import_module(name) for name in sys.argv[2:]]; "
        "from manifests.config import RunConfig; from manifests.planning.plan import plan; "
        "planned = plan(RunConfig(manifest=(sys.argv[1],), output='out')); print(planned.fingerprint, planned.schema)"
    )
    manifest = FIELD / "19-ray-tensor-columns" / "raytensor.parquet"
    bare, beside = (
        subprocess.run(
            [sys.executable, "-c", program, manifest, *imported],
            cwd=FIELD.parents[2],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for imported in ((), ("ray.data",))
    )
    assert bare == beside
    assert "feat: large_list<item: float>" in bare
