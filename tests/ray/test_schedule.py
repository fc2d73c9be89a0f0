"""Pools and phases through the real job and the real models: the same bytes, and the run's record says which it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.ray.conftest import SMALL, Job, images_of, picture
from tests.ray.test_pipeline import index_rows, shard_bytes

pytestmark = [pytest.mark.ray, pytest.mark.models]

#: Every task, two shapes, a negative prompt, an image that the decoder misses and one that the prior does.
ROWS: list[dict[str, Any]] = [
    *({"id": f"text-{i}", "task": "text2img", "prompt": f"a cat {i}", "seed": i} for i in range(4)),
    {"id": "wide", "task": "text2img", "prompt": "a dog", "seed": 9, "width": 128},
    {"id": "not", "task": "text2img", "prompt": "a dog", "negative_prompt": "a cat", "seed": 9},
    {"id": "img", "task": "img2img", "prompt": "oil", "image": picture("red"), "strength": 1.0},
    {"id": "lost", "task": "img2img", "prompt": "oil", "image": {"bytes": None, "path": "no.png"}, "strength": 1.0},
    {"id": "paint", "task": "inpaint", "prompt": "a hat", "image": picture("blue"), "mask": picture("white", "L")},
    {
        "id": "mix",
        "task": "interpolate",
        "conditions": [{"text": "a", "weight": 0.5}, {"image": picture("red"), "weight": 0.5}],
    },
    {
        "id": "lost-mix",
        "task": "interpolate",
        "conditions": [{"text": "a", "weight": 0.5}, {"image": {"bytes": None, "path": "no.png"}, "weight": 0.5}],
    },
    {"id": "wrong", "task": "text2img", "prompt": "a cat", "width": 65},
]

#: In phases it is in one call of the prior with the row whose image is lost, in pools alone. Calls of other sizes may
#: round otherwise, on some CPUs and not on others: the noise contract allows one level.
BESIDE_LOST = "img"


def test_both_schedules_make_the_same_bytes(
    make_job: Callable[[Sequence[dict[str, Any]]], Job], tmp_path: Path
) -> None:
    job = make_job([{**SMALL, **row} for row in ROWS])
    reports = {}
    for schedule in ("pools", "phases"):
        ended = job.run(tmp_path / schedule, "--schedule", schedule)
        assert ended.returncode == 3, ended.stderr
        assert f"schedule: {schedule} (--schedule {schedule})" in ended.stderr
        reports[schedule] = json.loads((tmp_path / schedule / "_run" / "run.json").read_text())
        assert reports[schedule]["schedule"] == schedule
    assert reports["pools"]["failed_by_status"] == {"failed_to_load": 2, "failed_to_validate": 1}
    assert reports["phases"]["failed_by_status"] == reports["pools"]["failed_by_status"]
    pools, phases = (shard_bytes(tmp_path / schedule) for schedule in ("pools", "phases"))
    assert pools.keys() == phases.keys()
    rows, rows_in_phases = (index_rows(tmp_path / schedule) for schedule in ("pools", "phases"))
    beside = rows[BESIDE_LOST, 0]["key"]
    assert {name.split(".")[0].split("_")[0] for name in pools if pools[name] != phases[name]} <= {beside[:5]}
    unequal = {place for place, row in rows.items() if row["sha256"] != rows_in_phases[place]["sha256"]}
    assert unequal <= {(BESIDE_LOST, 0)}
    made, in_phases = (images_of(tmp_path / schedule)[beside].astype(int) for schedule in ("pools", "phases"))
    assert abs(made - in_phases).max() <= 1
    times = json.loads((tmp_path / "phases" / "_run" / "times.json").read_text())
    assert all({"prior", "decoder"} <= bucket["seconds"].keys() for bucket in times["buckets"])
    pools_did, phases_did = (reports[schedule]["achieved"] for schedule in ("pools", "phases"))
    assert pools_did["decoder"]["tflop"] == pytest.approx(phases_did["decoder"]["tflop"]), "the same work"
    # Phases load images in their second half, so the prior has embedded the row whose image is lost.
    assert pools_did["prior"]["tflop"] < phases_did["prior"]["tflop"] < 1.2 * pools_did["prior"]["tflop"]
    assert pools_did["prior"]["of_peak"] is None, "of this CPU's peak nothing is known"
