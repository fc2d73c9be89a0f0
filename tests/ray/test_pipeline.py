"""The whole line with real Ray and real models: what is written, what is said, and that starting again goes on."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from jobs.monitoring.facts import NEWEST
from jobs.run.watching import Watcher
from manifests.commit import sealed_shards, staged_parts
from tests.ray.conftest import ROOT, SMALL, Job, images_of
from tests.ray.mixed_rows import BAD, GOOD
from workers.checkpoints.locations import DECODER, INPAINT, PRIOR

pytestmark = [pytest.mark.ray, pytest.mark.models]

Ended = subprocess.CompletedProcess[str]

#: That are made of the mixed rows.
IMAGES = sum(columns.get("num_images", 1) for columns in GOOD.values())


def index_rows(output: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """Every row of the output's indexes by id and image, without those whose id another one has had before."""
    tables = [pq.read_table(path) for path in sorted(output.glob("*.parquet"))]
    rows = [row for table in tables for row in table.to_pylist()]
    return {(row["id"], row["image_index"]): row for row in reversed(rows)}


def shard_bytes(output: Path) -> dict[str, bytes]:
    """The committed files by name."""
    return {path.name: path.read_bytes() for path in output.iterdir() if path.is_file() and path.name[0].isdigit()}


def test_every_request_is_written_or_failed_with_its_reason(finished: tuple[Path, Ended]) -> None:
    output, ended = finished
    assert ended.returncode == 3, ended.stderr
    rows = index_rows(output)
    assert len(rows) == IMAGES + len(BAD)
    made = {name: row["task"] for (name, _), row in rows.items() if row["status"] == "success"}
    assert made.keys() == GOOD.keys()
    assert set(made.values()) == {"text2img", "img2img", "inpaint", "interpolate"}
    failed = {name: row for (name, _), row in rows.items() if row["status"] != "success"}
    assert failed.keys() == BAD.keys()
    for name, (_, status, words) in BAD.items():
        assert failed[name]["status"] == status
        assert all(word in failed[name]["error_message"] for word in words), failed[name]["error_message"]


def test_an_id_that_is_taken_is_a_row_of_its_own(finished: tuple[Path, Ended]) -> None:
    rows = [row for path in finished[0].glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    assert len(rows) == IMAGES + len(BAD) + 1
    (second,) = (row for row in rows if row["id"] == "text-0" and row["status"] != "success")
    assert second["status"] == "failed_to_validate"
    assert "already used" in second["error_message"]


def test_every_successful_row_has_its_image_in_the_tar(finished: tuple[Path, Ended]) -> None:
    output, _ = finished
    members: set[str] = set()
    for path in output.glob("*.tar"):
        with tarfile.open(path) as tar:
            members |= set(tar.getnames())
    keys = {row["key"] for row in index_rows(output).values() if row["status"] == "success"}
    assert {name for name in members if name.endswith(".png")} == {f"{key}.png" for key in keys}


def test_the_run_files_tell_what_happened(finished: tuple[Path, Ended]) -> None:
    output, _ = finished
    assert (output / "_SUCCESS").exists()
    assert staged_parts(str(output)) == {}
    report = json.loads((output / "_run" / "run.json").read_text())
    assert (report["requests"], report["written"], report["failed"]) == (26, 13, 14)
    assert report["failed_by_status"] == {"failed_to_load": 4, "failed_to_validate": 10}
    assert report["device"] == "cpu"
    assert report["versions"]["ray"]
    plan = json.loads((output / "_run" / "plan.json").read_text())
    assert plan["shards"] == len(sealed_shards(str(output)))
    assert json.loads((output / "_run" / "config.json").read_text())["batch_size"] == 2


def test_the_last_status_says_what_came_of_every_task_and_who_made_it(finished: tuple[Path, Ended]) -> None:
    output, _ = finished
    state = Watcher(str(output)).look()
    assert state.state == "done"
    (share,) = state.shares
    facts = share.status.facts
    counts = {count.name: (count.done, count.total, count.failed) for count in facts.counts}
    assert counts == {
        "text2img": (9, 9, 0),
        "img2img": (3, 3, 2),
        "inpaint": (2, 2, 1),
        "interpolate": (3, 3, 1),
        "invalid": (10, 10, 10),
    }
    assert facts.sealed == facts.shards == len(sealed_shards(str(output)))
    assert [pool.name for pool in facts.pools] == ["prior", "decoder"]
    assert len(facts.failures) == NEWEST
    assert {failure.id for failure in facts.failures} <= {*BAD, "text-0"}


def test_the_person_is_told_what_failed_and_where_the_output_is(finished: tuple[Path, Ended]) -> None:
    output, ended = finished
    assert "13 images written, 14 failed" in ended.stdout
    assert "gone.png" in ended.stdout
    assert f"output: {output}" in ended.stdout
    assert "Traceback" not in ended.stderr + ended.stdout
    assert "planning" in ended.stderr
    # Nothing but the run's own lines: no library talks in between.
    assert [line for line in ended.stderr.splitlines() if not line.startswith("[")] == []


def test_an_image_is_made_again_from_its_record_without_ray(
    finished: tuple[Path, Ended], clean_environment: dict[str, str], tmp_path: Path
) -> None:
    output, _ = finished
    (key,) = [row["key"] for (name, image), row in index_rows(output).items() if (name, image) == ("text-0", 1)]
    script = [sys.executable, str(ROOT / "jobs" / "redo.py"), "--output", str(output), "--key", key, "--device", "cpu"]
    ended = subprocess.run(script, cwd=tmp_path, env=clean_environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert "identical: its pixels are those of the stored image" in ended.stdout
    assert np.array_equal(np.asarray(Image.open(tmp_path / f"{key}.png")), images_of(output)[key])
    weights = [device["weights"] for device in json.loads((output / "_run" / "run.json").read_text())["devices"]]
    assert {name for each in weights for name in each} == {PRIOR, DECODER, INPAINT}


def test_starting_again_finds_nothing_to_do_and_ends_the_same(mixed_job: Job, finished: tuple[Path, Ended]) -> None:
    output, _ = finished
    before = shard_bytes(output)
    report = (output / "_run" / "run.json").read_bytes()
    again = mixed_job.run(output)
    assert again.returncode == 3
    assert "nothing to do" in again.stderr
    assert shard_bytes(output) == before
    assert (output / "_run" / "run.json").read_bytes() == report


def test_other_settings_or_another_manifest_under_the_same_output_are_refused(
    mixed_job: Job, finished: tuple[Path, Ended], make_job: Callable[[Sequence[dict[str, Any]]], Job]
) -> None:
    output, _ = finished
    ended = mixed_job.run(output, "--seed", "7")
    assert ended.returncode == 2
    assert "--seed was 0 and is 7" in ended.stderr.splitlines()[-1]
    other = make_job([{**SMALL, "id": "x", "task": "text2img", "prompt": "x"}])
    ended = other.run(output)
    assert ended.returncode == 2
    assert "other content (it had 26 requests, 17 images; now 1 requests, 1 images)" in ended.stderr.splitlines()[-1]


def test_a_missing_checkpoint_is_refused_before_anything_starts(mixed_job: Job, tmp_path: Path) -> None:
    ended = mixed_job.run(tmp_path / "out", "--checkpoint", str(tmp_path / "nothing"))
    assert ended.returncode == 2
    assert "no such folder" in ended.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()
