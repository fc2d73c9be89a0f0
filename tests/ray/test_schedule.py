"""Pools and phases through the real job and the real models: the same bytes, and the run's record says which it was."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.ray.conftest import Job, images_of
from tests.ray.test_pipeline import index_rows, shard_bytes

pytestmark = [pytest.mark.ray, pytest.mark.models]

#: In phases they are in one call of the prior with a row whose image is lost, in pools alone. Calls of other sizes may
#: round otherwise, on some CPUs and not on others: the noise contract allows one level.
BESIDE_LOST = ("img", "paint")


def test_both_schedules_make_the_same_bytes(
    mixed_job: Job, finished: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    outputs = {"pools": finished[0], "phases": tmp_path / "phases"}
    ended = mixed_job.run(outputs["phases"], "--schedule", "phases")
    assert ended.returncode == 3, ended.stderr
    assert "schedule: phases (--schedule phases)" in ended.stderr
    assert "schedule: pools (" in finished[1].stderr
    reports = {name: json.loads((output / "_run" / "run.json").read_text()) for name, output in outputs.items()}
    assert {name: report["schedule"] for name, report in reports.items()} == {"pools": "pools", "phases": "phases"}
    assert reports["phases"]["failed_by_status"] == reports["pools"]["failed_by_status"]
    pools, phases = map(shard_bytes, outputs.values())
    assert pools.keys() == phases.keys()
    rows, rows_in_phases = map(index_rows, outputs.values())
    beside = {rows[name, 0]["key"] for name in BESIDE_LOST}
    unequal = {name.split(".")[0].split("_")[0] for name in pools if pools[name] != phases[name]}
    assert unequal <= {key[:5] for key in beside}
    unequal_rows = {place for place, row in rows.items() if row["sha256"] != rows_in_phases[place]["sha256"]}
    assert unequal_rows <= {(name, 0) for name in BESIDE_LOST}
    made, in_phases = map(images_of, outputs.values())
    for key in beside:
        assert abs(made[key].astype(int) - in_phases[key].astype(int)).max() <= 1
    times = json.loads((outputs["phases"] / "_run" / "times.json").read_text())
    assert all({"prior", "decoder"} <= bucket["seconds"].keys() for bucket in times["buckets"])
    pools_did, phases_did = (report["achieved"] for report in reports.values())
    assert pools_did["decoder"]["tflop"] == pytest.approx(phases_did["decoder"]["tflop"]), "the same work"
    # Phases load images in their second half, so the prior has embedded the rows whose images are lost.
    assert pools_did["prior"]["tflop"] < phases_did["prior"]["tflop"] < 1.2 * pools_did["prior"]["tflop"]
    assert pools_did["prior"]["of_peak"] is None, "of this CPU's peak nothing is known"
