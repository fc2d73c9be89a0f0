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

from jobs.run.watching import Watcher
from manifests.commit import sealed_shards, staged_parts
from tests.ray.conftest import ROOT, SMALL, Job, images_of
from workers.checkpoints.locations import DECODER, INPAINT, PRIOR

pytestmark = [pytest.mark.ray, pytest.mark.models]

Ended = subprocess.CompletedProcess[str]


def index_rows(output: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """Every row of the output's indexes by id and image."""
    tables = [pq.read_table(path) for path in sorted(output.glob("*.parquet"))]
    return {(row["id"], row["image_index"]): row for table in tables for row in table.to_pylist()}


def shard_bytes(output: Path) -> dict[str, bytes]:
    """The committed files by name."""
    return {path.name: path.read_bytes() for path in output.iterdir() if path.is_file() and path.name[0].isdigit()}


def test_every_request_is_written_or_failed_with_its_reason(finished: tuple[Path, Ended]) -> None:
    output, ended = finished
    assert ended.returncode == 3, ended.stderr
    rows = index_rows(output)
    status = {name: row["status"] for (name, _), row in rows.items()}
    assert len(rows) == 11
    assert {name for name, value in status.items() if value != "success"} == {"lost", "wrong"}
    assert status["wrong"] == "failed_to_validate"
    assert "width" in rows["wrong", 0]["error_message"]
    assert status["lost"] == "failed_to_load"
    assert "no-such.png" in rows["lost", 0]["error_message"]
    assert {row["task"] for row in rows.values() if row["status"] == "success"} == {
        "text2img",
        "img2img",
        "inpaint",
        "interpolate",
    }


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
    assert (report["requests"], report["written"], report["failed"]) == (10, 9, 2)
    assert report["failed_by_status"] == {"failed_to_load": 1, "failed_to_validate": 1}
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
        "text2img": (6, 6, 0),
        "img2img": (2, 2, 1),
        "inpaint": (1, 1, 0),
        "interpolate": (1, 1, 0),
        "invalid": (1, 1, 1),
    }
    assert facts.sealed == facts.shards == len(sealed_shards(str(output)))
    assert [pool.name for pool in facts.pools] == ["prior", "decoder"]
    assert {failure.id for failure in facts.failures} == {"lost", "wrong"}


def test_the_person_is_told_what_failed_and_where_the_output_is(finished: tuple[Path, Ended]) -> None:
    output, ended = finished
    assert "9 images written, 2 failed" in ended.stdout
    assert "no-such.png" in ended.stdout
    assert f"output: {output}" in ended.stdout
    assert "Traceback" not in ended.stderr
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


def test_a_bound_of_pixels_changes_calls_and_no_image(
    make_job: Callable[[Sequence[dict[str, Any]]], Job], tmp_path: Path
) -> None:
    sizes = [(64, 64)] * 5 + [(64, 128)] * 5
    rows = [
        {**SMALL, "task": "text2img", "prompt": f"cat {n}", "seed": n, "height": height, "width": width}
        for n, (height, width) in enumerate(sizes)
    ]
    job = make_job(rows)
    options: dict[str, tuple[str, ...]] = {"plain": (), "bounded": ("--batch-pixels", str(4 * 64 * 64))}
    for output, more in options.items():
        ended = job.run(tmp_path / output, "--batch-size", "4", "--shard-size", "100", *more)
        assert ended.returncode == 0, ended.stderr
    # Four and one of each size; the wider ones are two, two and one of a call with a bound.
    outputs = [tmp_path / "plain", tmp_path / "bounded"]
    assert [json.loads((output / "_run" / "plan.json").read_text())["batches"] for output in outputs] == [4, 5]
    plain, bounded = map(images_of, outputs)
    assert sorted(plain) == sorted(bounded)
    assert len(plain) == len(rows)
    # The CPU's matrix products round by the rows they have: to the bit only where a call has as many as before.
    worst = {key: np.abs(plain[key].astype(int) - bounded[key]).max() for key in plain}
    assert [worst[key] for key in sorted(worst)[:5]] == [0] * 5
    assert max(worst.values()) <= 1


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
    assert "other content (it had 10 requests, 10 images; now 1 requests, 1 images)" in ended.stderr.splitlines()[-1]


def test_a_missing_checkpoint_is_refused_before_anything_starts(mixed_job: Job, tmp_path: Path) -> None:
    ended = mixed_job.run(tmp_path / "out", "--checkpoint", str(tmp_path / "nothing"))
    assert ended.returncode == 2
    assert "no such folder" in ended.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()
