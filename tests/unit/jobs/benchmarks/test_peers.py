"""`jobs/benchmark.py peers`: its arithmetic, its requests, and one small run of the sides that need no PyTorch."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs import benchmark
from jobs.benchmarks import child, peer_requests, peers
from jobs.benchmarks.peers import peer
from manifests.config import RunConfig
from manifests.errors import UsageError
from manifests.planning.plan import plan


def test_what_the_long_run_takes_more_is_the_rate_and_the_rest_of_the_short_one_the_start() -> None:
    found = peer((8, 40), (12.0, 28.0))
    assert found.rate == pytest.approx(2.0)
    assert found.start == pytest.approx(8.0)


def test_mixed_requests_are_of_all_tasks_in_turns_and_batches_of_one(tmp_path: Path) -> None:
    manifest = tmp_path / "m.parquet"
    peer_requests.write_manifest(manifest, peer_requests.MIXED, 10, edge=64, steps=2)
    rows = peer_requests.read(manifest)
    assert [row["task"] for row in rows[:5]] == [*peer_requests.TASKS, "text2img"]
    batches = list(peer_requests.batches(rows, 2))
    assert sorted(row["id"] for batch in batches for row in batch) == sorted(row["id"] for row in rows)
    assert all(len({row["task"] for row in batch}) == 1 and len(batch) <= 2 for batch in batches)
    assert [kind for kind, _ in rows[3]["conditions"]] == [rows[3]["prompt"], rows[3]["conditions"][1][0]]
    assert rows[2]["mask"].mode == "L"


def test_requests_of_several_tasks_fit_into_one_run(tmp_path: Path) -> None:
    manifests = []
    for task in peer_requests.TASKS:
        manifests.append(str(tmp_path / f"{task}.parquet"))
        peer_requests.write_manifest(Path(manifests[-1]), task, 2, edge=64, steps=2)
    planned = plan(RunConfig(manifest=tuple(manifests), output=str(tmp_path / "out"), checkpoint="random"))
    assert (planned.samples, planned.tasks) == (8, ("img2img", "inpaint", "interpolate", "text2img"))


@pytest.mark.parametrize(
    "options",
    [["--requests", "8", "9"], ["--requests", "3", "40"], ["--edge", "100"], ["--torch-python", "/bin/false"]],
)
def test_numbers_that_measure_nothing_are_refused(options: list[str]) -> None:
    with pytest.raises(UsageError, match="option"):
        benchmark.main(["peers", *options])


@pytest.mark.parametrize(
    ("beside", "sides"),
    [
        (["documents"], ["documents' loop", peers.OURS]),
        (["pytorch-batches", "ray-data"], ["plain Ray Data", "PyTorch in batches of 4", peers.OURS]),
        (list(peers.BESIDE), [words.format(batch=4) for words in peers.BESIDE.values()] + [peers.OURS]),
    ],
)
def test_the_job_is_held_against_what_is_asked_for(
    beside: list[str], sides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "has_pytorch", lambda python: True)
    assert list(peers._sides(beside, "python-with-torch", 4)) == sides


# Six commands, each of which loads all models.
@pytest.mark.nightly
@pytest.mark.models
@pytest.mark.ray
def test_every_side_makes_every_image_and_is_one_cell_of_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--requests", "4", "8", "--edge", "64", "--steps", "2", "--tasks", "mixed"]
    assert benchmark.main(["peers", *options]) == 0
    head, _, row = capsys.readouterr().out.splitlines()[-3:]
    assert head.startswith("| requests | documents' loop | plain Ray Data | this job |")
    assert row.startswith("| mixed | ")
    assert len(row.split("|")) == len(head.split("|"))
