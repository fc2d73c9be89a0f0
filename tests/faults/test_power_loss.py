"""A loss of power at any moment: nothing that was relied on is lost, and the job goes on to the same bytes.

`python -m tests.faults power` tries many more states than there is time for here.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import ROOT, QuickJob
from tests.faults.simulation.disk import Disk, Record
from tests.faults.simulation.engine import Engine, generate
from tests.faults.simulation.power import OUTPUT, STORIES, Story, config_for, first_run, retried_rows, shard_files
from tests.unit.finished_run import write_manifest

pytestmark = pytest.mark.faults

#: Of each story, states that are tried with a start of the job; all of them are looked at.
RESUMED = 40

#: Uncertain changes are combined in at most so many ways at each crash point.
MOST = 64


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Story:
    return first_run(tmp_path_factory.mktemp("first"))


def check(story: Story, folder: Path, resumed: int, seed: int = 1) -> int:
    """Look at every state of a story, start the job again on some; returns how many states there are."""
    crashes = list(story.crashes(seed, MOST))
    for at, state in crashes:
        assert story.lost_promises(at, state) == [], f"after operation {at} (seed {seed})"
        assert story.half_done(state) == [], f"after operation {at} (seed {seed})"
    for at, state in random.Random(seed).sample(crashes, min(resumed, len(crashes))):
        assert story.resumed(state, folder / "again") == [], f"after operation {at} (seed {seed})"
    return len(crashes)


@pytest.mark.parametrize("tell", STORIES, ids=lambda tell: tell.__name__)
def test_whatever_a_loss_of_power_leaves_the_job_goes_on_to_the_same_bytes(
    tell: Callable[[Path], Story], tmp_path: Path
) -> None:
    assert check(tell(tmp_path), tmp_path, RESUMED) > 100


def findings(story: Story, without: Callable[[dict[str, str]], bool]) -> tuple[set[str], set[str]]:
    """What is lost, and what is half done, in some state of a story in which some operations did not happen."""
    story.disk = Disk([operation for operation in story.record.operations if not without(operation)])
    crashes = list(story.crashes(1, MOST))
    lost = {path for at, state in crashes for path in story.lost_promises(at, state)}
    return lost, {name for _, state in crashes for name in story.half_done(state)}


def is_folder(operation: dict[str, str]) -> bool:
    return not operation["path"].endswith(".tmp")


def test_a_folder_whose_name_is_not_synced_would_be_found(tmp_path: Path) -> None:
    lost, _ = findings(
        first_run(tmp_path), lambda each: each["op"] == "sync" and each["path"] == f"{OUTPUT}/_run/parts"
    )
    assert lost
    assert all(path.startswith(f"{OUTPUT}/_run/parts/") for path in lost)


def test_a_shard_whose_names_are_not_synced_would_be_found(tmp_path: Path) -> None:
    _, half = findings(first_run(tmp_path), lambda each: each["op"] == "sync" and is_folder(each))
    assert {"00000.tar", "00000.parquet", "00001.tar"} <= half


def test_files_that_are_not_synced_would_be_found(tmp_path: Path) -> None:
    story = first_run(tmp_path)
    tars = re.compile(rf"{OUTPUT}/\.\d+\.tar\..*\.tmp")
    _, half = findings(story, lambda each: each["op"] == "sync" and bool(tars.match(each["path"])))
    assert half == {"00000.tar", "00001.tar"}


def test_a_marker_that_comes_back_would_be_found(tmp_path: Path) -> None:
    story = retried_rows(tmp_path)
    operations = story.record.operations
    gone = next(at for at, each in enumerate(operations) if each == {"op": "unlink", "path": f"{OUTPUT}/_SUCCESS"})
    assert operations[gone + 1] == {"op": "sync", "path": OUTPUT}
    del operations[gone + 1]
    story.disk = Disk(operations, story.disk.before)
    assert "_SUCCESS" in {name for _, state in story.crashes(1, MOST) for name in story.half_done(state)}


def test_nothing_is_dearer_than_it_must_be(first: Story) -> None:
    """What a batch and a shard cost: each is written, synced, renamed, and its folder synced."""
    part = re.compile(rf"{OUTPUT}/_run/parts/\d+/?(?:\.\d+\.arrow.*)?$")
    per_batch = Counter(each["op"] for each in first.record.operations if part.match(each["path"]))
    batches, shards = 3, 2
    del per_batch["write"]  # what a file holds, told at its sync
    assert per_batch == {
        "mkdir": shards,
        "create": batches,
        "rename": batches,
        "sync": 2 * batches,
        "rmdir": shards,
    }
    shard = re.compile(rf"{OUTPUT}/\.\d+(?:\.tar|\.parquet|_stats\.json)\..*\.tmp")
    per_shard = Counter(each["op"] for each in first.record.operations if shard.match(each["path"]))
    del per_shard["write"]
    assert per_shard == {"create": 3 * shards, "sync": 3 * shards, "rename": 3 * shards}
    # One for each new shard's parts, one for its tar and its index together, one for its stats; and for `_SUCCESS`,
    # for `_run` and for the folder above.
    syncs = Counter(each["path"] for each in first.record.operations if each["op"] == "sync")
    assert syncs[f"{OUTPUT}/_run/parts"] == shards
    assert syncs[OUTPUT] == 2 * shards + 2
    assert syncs["runs"] == 1


@pytest.mark.ray
def test_the_real_job_s_operations_in_all_its_processes_survive_it_too(quick_job: QuickJob, tmp_path: Path) -> None:
    rows = [{"id": f"r{i}", "task": "text2img", "prompt": f"prompt {i}", "seed": i, "num_images": 1} for i in range(10)]
    root, manifest = tmp_path / "disk", tmp_path / "m.parquet"
    root.mkdir()
    options = ("--batch-size", "2", "--shard-size", "4", "--height", "64", "--width", "64", "--embeddings", "none")
    environment = {
        **quick_job.environment,
        "RAY_ADDRESS": "local",
        "PYTHONPATH": f"{ROOT / 'tests' / 'faults' / 'recording'}:{ROOT}",
        "RECORD_ROOT": str(root),
        "RECORD_TO": str(tmp_path / "record"),
    }
    job = QuickJob(write_manifest(manifest, rows), tmp_path, environment, options)
    ended = job.run(root / OUTPUT)
    assert ended.returncode == 0, ended.stderr

    def go_on(folder: Path) -> Any:
        # Its decoder is this one's, and its scorer is not.
        return generate(config_for(folder, manifest).model_copy(update={"keep_clip": False}), Engine())

    record = Record(tmp_path / "record")
    story = Story("the real job", record, Disk(record.operations), shard_files(root), go_on)
    assert len(story.whole) == 9
    assert check(story, tmp_path, RESUMED) > 100
