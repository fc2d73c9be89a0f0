"""A disk that will not hold what is left is told before the start; only what this run has measured refuses it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jobs.cost.step_times import StepTimes
from jobs.limits import disk_space
from manifests.config import RunConfig
from manifests.errors import UsageError
from manifests.planning.plan import Plan, plan
from manifests.storage import listing
from tests.unit import finished_run

#: Four images of 64 x 64 and four of 128 x 64.
ROWS: list[dict[str, Any]] = [
    {"id": f"r{i}", "task": "text2img", "prompt": "x", "height": 64 * (1 + i % 2)} for i in range(8)
]
SMALL = 64 * 64 * 1.5 + disk_space.RECORD_BYTES
LARGE = 128 * 64 * 1.5 + disk_space.RECORD_BYTES


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return finished_run.make_config(tmp_path, ROWS)


@pytest.fixture
def planned(config: RunConfig) -> Plan:
    return plan(config)


def free(monkeypatch: pytest.MonkeyPatch, count: float) -> None:
    monkeypatch.setattr(listing, "shutil", SimpleNamespace(disk_usage=lambda _: SimpleNamespace(free=int(count))))


def times(planned: Plan, bytes_per_image: float) -> tuple[str, StepTimes]:
    """As if one batch of the smaller size had been measured."""
    bucket = min(planned.buckets, key=lambda one: one.height)
    measured = {"bucket": bucket, "batches": 1, "images": 2, "size": 2, "seconds": {"decoder": 1.0}}
    buckets = ({**measured, "bytes_per_image": bytes_per_image},)
    known = {"device": "cpu", "batch_size": 2, "prior_actors": 1, "decoder_actors": 1, "buckets": buckets}
    return "out/_run/times.json", StepTimes.model_validate(known)


def told(config: RunConfig, planned: Plan, left: int, known: tuple[str, StepTimes] | None) -> list[str]:
    said: list[str] = []
    disk_space.check(config, planned, left, known, said.append)
    return said


def test_where_there_is_room_nothing_is_said(config: RunConfig, planned: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 4 * SMALL + 4 * LARGE)
    assert told(config, planned, 8, None) == []
    free(monkeypatch, 1)
    assert told(config, planned, 0, None) == []
    assert told(config.model_copy(update={"output": "memory://out"}), planned, 8, None) == []
    assert told(config.model_copy(update={"stage": "prior"}), planned, 8, None) == []


def test_a_guess_is_a_line_and_refuses_nothing(
    config: RunConfig, planned: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    free(monkeypatch, 4 * SMALL + 4 * LARGE - 1)
    (line,) = told(config, planned, 8, None)
    assert line == (
        "106 kB are free on the disk of the output, and the 8 images that are left take about 106 kB (a rule of thumb "
        "for png; nothing was measured yet); if it is full, the run ends, and the same command goes on when there is "
        "room"
    )
    assert told(config, planned, 7, None) == []
    free(monkeypatch, 1)
    elsewhere = config.model_copy(update={"times_of": "other"})
    assert len(told(elsewhere, planned, 8, times(planned, 1000))) == 1


def test_what_this_run_has_measured_refuses_it(
    config: RunConfig, planned: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Twice the pixels take twice the bytes: 12,000 in all.
    known = times(planned, 1000)
    free(monkeypatch, 11_999)
    assert len(told(config, planned, 8, known)) == 1, "too near to be sure"
    free(monkeypatch, 9_599)
    with pytest.raises(
        UsageError, match=r"9\.6 kB are free .* take about 12 kB .*make a part that fits \(--shards 1/2\)"
    ):
        told(config, planned, 8, known)
    # The four that are left may be the small ones.
    free(monkeypatch, 3_300)
    assert len(told(config, planned, 4, known)) == 1
    free(monkeypatch, 3_100)
    with pytest.raises(UsageError, match="free some space"):
        told(config, planned, 4, known)


def test_the_disk_is_that_of_the_nearest_folder_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free_there, asked = listing.free_bytes(str(tmp_path)), []
    assert free_there is not None
    assert free_there > 0

    def usage(place: Path) -> SimpleNamespace:
        asked.append(place)
        return SimpleNamespace(free=7)

    monkeypatch.setattr(listing, "shutil", SimpleNamespace(disk_usage=usage))
    assert listing.free_bytes(str(tmp_path / "a" / "b")) == 7
    assert asked == [tmp_path]
