"""Scores through the real job, with phases and copies, and after the fact on two actors, through kills and retries."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from manifests.embeddings import kept_clip
from manifests.embeddings.clip_retrieval import read_folder
from tests.proof import wrong_with
from tests.ray.conftest import ROOT, SMALL, Job
from tests.ray.mixed_rows import picture

pytestmark = [pytest.mark.ray, pytest.mark.models]

#: "again" is "cat" under another id; "lost" has no image until somebody puts it there.
ROWS: list[dict[str, Any]] = [
    {"id": "cat", "task": "text2img", "prompt": "a cat", "seed": 1},
    *({"id": f"text-{i}", "task": "text2img", "prompt": f"a dog {i}", "seed": i} for i in range(4)),
    {"id": "again", "task": "text2img", "prompt": "a cat", "seed": 1},
    {"id": "img", "task": "img2img", "prompt": "oil", "image": picture("red"), "strength": 1.0},
    {"id": "lost", "task": "img2img", "prompt": "oil", "image": {"bytes": None, "path": "late.png"}, "strength": 1.0},
    {
        "id": "mix",
        "task": "interpolate",
        "conditions": [{"text": "a", "weight": 0.5}, {"image": picture("red"), "weight": 0.5}],
    },
]

SCORES = ("clip_similarity", "clip_similarity_source", "prior_fidelity")

Rows = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Scoring:
    """`jobs/score.py`, and the rest of a person's commands, on copies of one finished output."""

    job: Job

    def score(self, output: Path, environment: dict[str, str], *more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(output, *more), env=environment, capture_output=True, text=True)

    def command(self, output: Path, *more: str) -> list[str]:
        script = [sys.executable, str(ROOT / "jobs" / "score.py"), "--output", str(output)]
        return [*script, "--scores", "all", "--keep-clip", *more]


def rows_of(output: Path) -> Rows:
    return {row["id"]: row for path in sorted(output.glob("0*.parquet")) for row in pq.read_table(path).to_pylist()}


def files_of(output: Path) -> dict[str, bytes]:
    files = [*output.glob("0*"), *(output / kept_clip.FOLDER).rglob("*.*")]
    return {path.name: path.read_bytes() for path in sorted(files)}


def assert_near(found: Rows, meant: Rows, names: Sequence[str] = SCORES) -> None:
    assert found.keys() == meant.keys()
    same = [row for row in meant if found[row]["sha256"] == meant[row]["sha256"]]
    assert len(same) > len(meant) / 2
    for name in names:
        for row in meant:
            assert (found[row][name] is None) == (meant[row][name] is None), (row, name)
            # In other company an image may come out a level otherwise (tests/goldens/compare.py), and CLIP sees that.
            far = 1e-5 if found[row]["sha256"] == meant[row]["sha256"] else 1e-3
            assert found[row][name] is None or abs(found[row][name] - meant[row][name]) < far, (row, name)


@pytest.fixture(scope="module")
def scoring(make_job: Callable[[Sequence[dict[str, Any]]], Job]) -> Scoring:
    job = make_job([{**SMALL, **row} for row in ROWS])
    return Scoring(replace(job, options=("--batch-size", "2", "--shard-size", "2", "--no-report")))


@pytest.fixture(scope="module")
def plain(scoring: Scoring, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finished without scores."""
    output = tmp_path_factory.mktemp("plain") / "out"
    ended = scoring.job.run(output)
    assert ended.returncode == 3, ended.stderr
    return output


@pytest.fixture(scope="module")
def one(
    scoring: Scoring, plain: Path, tmp_path_factory: pytest.TempPathFactory, clean_environment: dict[str, str]
) -> Path:
    """Scored afterwards, in one process without Ray."""
    output = tmp_path_factory.mktemp("one") / "out"
    shutil.copytree(plain, output)
    ended = scoring.score(output, clean_environment, "--device", "cpu")
    assert ended.returncode == 0, ended.stderr
    assert "actors" not in ended.stderr
    assert wrong_with(output, scoring.job.manifest) == []
    return output


def test_phases_and_copies_are_scored_as_afterwards(scoring: Scoring, one: Path, tmp_path: Path) -> None:
    options = ("--schedule", "phases", "--dedupe", "--scores", "all", "--keep-clip")
    ended = scoring.job.run(tmp_path / "out", *options)
    assert ended.returncode == 3, ended.stderr
    found, meant = rows_of(tmp_path / "out"), rows_of(one)
    assert_near(found, meant)
    assert [found["again"][name] for name in (*SCORES, "image_phash")] == [
        found["cat"][name] for name in (*SCORES, "image_phash")
    ]
    assert found["lost"]["image_phash"] is None
    keys = {row["key"]: row["id"] for row in found.values()}
    pieces = list(read_folder(str(tmp_path / "out" / kept_clip.FOLDER)))
    kept = {
        keys[key]: vector
        for metadata, matrix, _ in pieces
        for key, vector in zip(metadata["key"].to_pylist(), matrix, strict=True)
    }
    assert kept.keys() == found.keys() - {"lost"}
    assert np.array_equal(kept["again"], kept["cat"])
    assert wrong_with(tmp_path / "out", scoring.job.manifest) == []


def test_killed_half_way_two_actors_make_the_bytes_of_one_process(
    scoring: Scoring, plain: Path, one: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    shutil.copytree(plain, output)
    shards = len(list(plain.glob("0*_stats.json")))
    environment = scoring.job.environment
    command = scoring.command(output, "--device", "cpu", "--decoder-actors", "2")
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stderr is not None
    said = ""
    for line in process.stderr:
        said += line
        if f"1 of {shards} shards" in line:
            break
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert "2 actors" in said, said
    ended = scoring.score(output, environment, "--device", "cpu", "--decoder-actors", "2")
    assert ended.returncode == 0, ended.stderr
    assert f"{shards} shards have" not in ended.stdout, "what was done is not done again"
    assert wrong_with(output, scoring.job.manifest) == []
    assert files_of(output) == files_of(one)


@pytest.mark.nightly
def test_rows_tried_again_after_scoring_are_scored_too(scoring: Scoring, one: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    shutil.copytree(one, output)
    late = scoring.job.manifest.parent / "late.png"
    late.write_bytes(picture("red")["bytes"])
    try:
        ended = scoring.job.run(output, "--retry-errors")
    finally:
        late.unlink()
    assert ended.returncode == 0, ended.stderr
    found, before = rows_of(output), rows_of(one)
    assert found["lost"]["status"] == "success"
    # The same picture and words as "img", under another seed.
    assert all(found["lost"][name] is not None for name in (*SCORES, "image_phash"))
    others = {name for name in before if name != "lost"}
    assert {name: found[name] for name in others} == {name: before[name] for name in others}
    kept = [
        key for metadata, _, _ in read_folder(str(output / kept_clip.FOLDER)) for key in metadata["key"].to_pylist()
    ]
    assert found["lost"]["key"] in kept
    assert len(kept) == len(found)
    assert wrong_with(output, scoring.job.manifest) == []
