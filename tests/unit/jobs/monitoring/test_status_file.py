"""The status that a driver renews: there soon, always whole, last word at the end, and never the end of a run."""

from __future__ import annotations

import datetime
import json
import time
from pathlib import Path

import pytest

from jobs.leases.files import Place
from jobs.monitoring import status_file
from jobs.monitoring.status_file import Status, StatusFile, read_statuses
from manifests import storage
from manifests.errors import IncompleteRunError, StorageError
from tests.unit.jobs.monitoring.sample_facts import begun_status, facts

WHOLE = (0, 1)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_file, "EVERY_S", 0.02)
    monkeypatch.setattr(status_file, "EVERY_REMOTE_S", 0.02)
    monkeypatch.setattr(status_file, "LAST_WRITE_S", 0.2)


@pytest.fixture(params=["folder", "memory"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "out") if request.param == "folder" else f"memory://{tmp_path.name}/out"


def seen(output: str, beat: int) -> Status:
    """The status as soon as it was renewed so often."""
    while True:
        for status in read_statuses(output):
            if status.beat >= beat:
                return status
        time.sleep(0.01)


def test_it_is_renewed_while_the_run_lives_and_says_how_it_ended(output: str) -> None:
    told: list[str] = []
    with begun_status(output, WHOLE, told.append):
        first, later = seen(output, 0), seen(output, 3)
        assert (first.state, later.state) == ("running", "running")
        assert later.facts == facts()
        assert later.updated >= first.updated
        assert first.started == later.started
    (last,) = read_statuses(output)
    assert (last.state, last.reason) == ("done", "")
    assert told == []
    assert storage.list_names(storage.join(output, "_run")) == ["status.json"]


def test_a_job_that_finds_nothing_to_do_leaves_the_last_status(output: str) -> None:
    with begun_status(output):
        pass
    before = read_statuses(output)
    with StatusFile(output, WHOLE, facts, print):
        time.sleep(0.1)
    assert read_statuses(output) == before


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (IncompleteRunError("3 of 9 batches are missing\nmore"), "3 of 9 batches are missing"),
        (KeyboardInterrupt("SIGTERM"), "interrupted (SIGTERM)"),
    ],
)
def test_a_run_that_ends_early_leaves_its_reason(output: str, error: BaseException, reason: str) -> None:
    with pytest.raises(type(error)), begun_status(output, WHOLE, print):
        raise error
    (last,) = read_statuses(output)
    assert (last.state, last.reason) == ("ended early", reason)


def test_each_share_has_a_file_and_only_the_newest_cut_of_the_plan_counts(output: str) -> None:
    for share in (WHOLE, (1, 3), (0, 3)):
        with begun_status(output, share, print):
            pass
    names = storage.list_names(storage.join(output, "_run"))
    assert sorted(names) == ["status-00000-of-00003.json", "status-00001-of-00003.json", "status.json"]
    assert [status.share for status in read_statuses(output)] == [(0, 3), (1, 3)]


@pytest.mark.parametrize("hours", [-1, 1])
def test_the_newest_cut_is_told_by_leases_and_not_by_clocks(output: str, hours: int) -> None:
    times = {WHOLE: datetime.timedelta(), (0, 3): datetime.timedelta(hours=hours)}
    for epoch, share in enumerate(times, 1):
        storage.write_atomic(Place(epoch, share).url(output), b"")
        with begun_status(output, share, print):
            pass
        (mine,) = (status for status in read_statuses(output) if status.share == share)
        changed = mine.model_copy(update={"updated": mine.updated + times[share]})
        url = storage.join(output, "_run", "status.json" if share == WHOLE else "status-00000-of-00003.json")
        storage.write_atomic(url, changed.model_dump_json().encode())
    assert [status.share for status in read_statuses(output)] == [(0, 3)]


def test_storage_that_refuses_is_told_once_and_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "_run").write_text("a file where the folder should be")
    told: list[str] = []
    with begun_status(str(tmp_path), WHOLE, told.append) as file:
        while file._beat < 3:
            time.sleep(0.01)
    (words,) = told
    assert "status.json is not up to date" in words
    assert "the run goes on" in words


def test_a_job_that_has_lost_its_output_to_another_writes_nothing(output: str) -> None:
    lost = False

    def check() -> None:
        if lost:
            raise StorageError("taken over")

    told: list[str] = []
    with begun_status(output, WHOLE, told.append, check):
        seen(output, 0)
        lost = True
        time.sleep(0.1)
        (before,) = read_statuses(output)
    assert read_statuses(output) == [before]
    assert told == [], "the run itself meets that, and tells"


def test_what_is_no_status_of_this_version_is_none(tmp_path: Path) -> None:
    assert read_statuses(str(tmp_path / "nowhere")) == []
    (tmp_path / "_run").mkdir()
    (tmp_path / "_run" / "status.json").write_text(json.dumps({"state": "running"}))
    assert read_statuses(str(tmp_path)) == []
