"""Scores through the real job, with phases and copies, and after the fact on two actors, through kills and retries."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manifests.embeddings import kept_clip
from manifests.embeddings.clip_retrieval import read_folder
from tests.proof import wrong_with
from tests.ray.conftest import ROOT, Job
from tests.ray.mixed_rows import GOOD, picture
from tests.ray.test_pipeline import index_rows

pytestmark = [pytest.mark.ray, pytest.mark.models]

SCORES = ("clip_similarity", "clip_similarity_source", "prior_fidelity")

Rows = dict[tuple[str, int], dict[str, Any]]


@dataclass(frozen=True)
class Scoring:
    """`jobs/score.py`, and the rest of a person's commands, on copies of one finished output."""

    job: Job

    def score(self, output: Path, environment: dict[str, str], *more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(output, *more), env=environment, capture_output=True, text=True)

    def command(self, output: Path, *more: str) -> list[str]:
        script = [sys.executable, str(ROOT / "jobs" / "score.py"), "--output", str(output)]
        return [*script, "--scores", "all", "--keep-clip", *more]


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
def scoring(mixed_job: Job) -> Scoring:
    return Scoring(mixed_job)


@pytest.fixture(scope="module")
def plain(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> Path:
    """Finished without scores; who changes something takes a copy."""
    return finished[0]


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
    found, meant = index_rows(tmp_path / "out"), index_rows(one)
    assert_near(found, meant)
    again, first = found["again", 0], found["text-1", 0]
    assert [again[name] for name in (*SCORES, "image_phash")] == [first[name] for name in (*SCORES, "image_phash")]
    assert found["missing file", 0]["image_phash"] is None
    keys = {row["key"]: place for place, row in found.items()}
    pieces = list(read_folder(str(tmp_path / "out" / kept_clip.FOLDER)))
    kept = {
        keys[key]: vector
        for metadata, matrix, _ in pieces
        for key, vector in zip(metadata["key"].to_pylist(), matrix, strict=True)
    }
    assert kept.keys() == {place for place, row in found.items() if row["status"] == "success"}
    assert {name for name, _ in kept} == GOOD.keys()
    assert np.array_equal(kept["again", 0], kept["text-1", 0])
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
    manifest = shutil.copy(scoring.job.manifest, tmp_path)
    (tmp_path / "gone.png").write_bytes(picture("red")["bytes"])
    ended = replace(scoring.job, manifest=Path(manifest)).run(output, "--retry-errors")
    assert ended.returncode == 3, ended.stderr
    found, before = index_rows(output), index_rows(one)
    late = [("missing file", 0), ("missing condition", 0)]
    kept = [
        key for metadata, _, _ in read_folder(str(output / kept_clip.FOLDER)) for key in metadata["key"].to_pylist()
    ]
    for place in late:
        assert found[place]["status"] == "success"
        assert all(found[place][name] is not None for name in ("clip_similarity", "prior_fidelity", "image_phash"))
        assert found[place]["key"] in kept
    assert found["missing file", 0]["clip_similarity_source"] is not None
    # Rows that were tried again in vain may be told of in other words: the manifest has moved.
    others = [place for place, row in before.items() if row["status"] != "failed_to_load"]
    assert {place: found[place] for place in others} == {place: before[place] for place in others}
    assert len(kept) == sum(row["status"] == "success" for row in found.values())
    assert wrong_with(output, manifest) == []
