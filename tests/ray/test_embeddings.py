"""The embedding store in real runs: nothing known is embedded again, nothing damaged decoded, images stay the same."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.ray.conftest import SMALL, Job, images_of
from tests.ray.mixed_rows import picture
from tests.ray.test_pipeline import index_rows, shard_bytes

pytestmark = [pytest.mark.ray, pytest.mark.models]

Ended = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def larger_job(make_job: Callable[[Sequence[dict[str, Any]]], Job]) -> Job:
    """The prompts of the mixed job at another size, in another cluster than the one that the store was filled in."""
    prompts = ["a cat", "a dog", "a fox", "a hen", "an owl"]
    rows = [{"id": f"text-{i}", "task": "text2img", "prompt": prompt, "seed": i} for i, prompt in enumerate(prompts)]
    rows[0]["num_images"] = 2
    rows += [{"id": "img", "task": "img2img", "prompt": "a cat", "seed": 0, "image": picture("red"), "strength": 1.0}]
    return make_job([{**SMALL, **row, "width": 128} for row in rows])


@pytest.fixture(scope="module")
def without_store(larger_job: Job, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What it makes without a store."""
    output = tmp_path_factory.mktemp("plain") / "out"
    ended = larger_job.run(output, "--embeddings", "none")
    assert ended.returncode == 0, ended.stderr
    assert not (output / "_run" / "embeddings").exists()
    assert report_of(output)["embedded"] == 7
    return output


@pytest.fixture
def store(finished: tuple[Path, Ended], tmp_path: Path) -> Path:
    """A copy of the store that the mixed job filled at another size, in another cluster."""
    return Path(shutil.copytree(finished[0] / "_run" / "embeddings", tmp_path / "store"))


def report_of(output: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((output / "_run" / "run.json").read_text())
    return report


def assert_same_images(output: Path, other: Path) -> None:
    """As far as batches promise it: a sample in another batch rounds otherwise, so by one level of 255."""
    rows = index_rows(output)
    assert rows.keys() == index_rows(other).keys()
    assert {row["status"] for row in rows.values()} == {"success"}
    ours, theirs = images_of(output), images_of(other)
    assert ours.keys() == theirs.keys()
    for key, image in ours.items():
        assert np.abs(image.astype(int) - theirs[key]).max() <= 1, key


def largest(folder: Path) -> list[Path]:
    return sorted(folder.iterdir(), key=lambda path: path.stat().st_size, reverse=True)


def flip(path: Path) -> None:
    """One byte in the middle of what is mostly vectors."""
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 8
    path.write_bytes(data)


def test_images_made_of_the_store_of_another_job_equal_those_made_without_it(
    larger_job: Job, store: Path, without_store: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    ended = larger_job.run(output, "--embeddings", str(store))
    assert ended.returncode == 0, ended.stderr
    assert "the embeddings of 7 of 7 images are known: no prior is started" in ended.stderr
    report = report_of(output)
    assert report["embedded"] == 0
    assert {device["stage"] for device in report["devices"]} == {"decoder"}
    assert_same_images(output, without_store)
    # These were embedded in the same batches at both sizes, so they are the same to the last bit.
    assert shard_bytes(output)["00000.tar"] == shard_bytes(without_store)["00000.tar"]


def test_what_the_store_lacks_or_has_lost_is_computed_again(
    larger_job: Job, store: Path, without_store: Path, tmp_path: Path
) -> None:
    # One part is not in the index any more, of another one all vectors are damaged: some batches go by the prior at
    # once, others only when their embeddings turn out to be wrong.
    for path in largest(store / "index")[1:]:
        path.unlink()
    flip(largest(store / "parts")[0])
    ended = larger_job.run(tmp_path / "out", "--embeddings", str(store))
    assert ended.returncode == 0, ended.stderr
    assert 0 < report_of(tmp_path / "out")["embedded"] <= 7
    assert_same_images(tmp_path / "out", without_store)


def test_prior_and_decoder_run_as_two_jobs_and_a_damaged_store_is_mended(
    larger_job: Job, store: Path, without_store: Path, tmp_path: Path
) -> None:
    flip(largest(store / "parts")[0])
    output = tmp_path / "out"
    ended = larger_job.run(output, "--embeddings", str(store), "--stage", "prior")
    assert ended.returncode == 0, ended.stderr
    report = json.loads((output / "_run" / "prior.json").read_text())
    assert 0 < report["embedded"] < 7
    assert report["embedded"] + report["known"] == report["images"] == 7
    assert [device["stage"] for device in report["devices"]] == ["prior"]
    assert report["compilations"] == []
    assert f"{report['embedded']} embeddings computed" in ended.stdout
    assert not list(output.glob("*.parquet"))
    ended = larger_job.run(output, "--embeddings", str(store), "--stage", "decode")
    assert ended.returncode == 0, ended.stderr
    assert report_of(output)["embedded"] == 0
    assert_same_images(output, without_store)
