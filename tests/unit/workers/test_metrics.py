"""What is counted for Prometheus: a batch under its stage and bucket, and never more buckets than it can hold."""

from __future__ import annotations

from typing import Any

import pytest

from workers import metrics
from workers.fault_tolerance.guard import PROBE_BUCKET


class Instrument:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[float, dict[str, str]]] = []

    def inc(self, value: float, tags: dict[str, str]) -> None:
        self.told.append((value, tags))

    observe = inc


@pytest.fixture
def instruments(monkeypatch: pytest.MonkeyPatch) -> tuple[Instrument, ...]:
    made = (Instrument(), Instrument(), Instrument(), Instrument())
    known: set[str] = set()
    monkeypatch.setattr(metrics, "_instruments", lambda: made)
    monkeypatch.setattr(metrics, "_told_apart", lambda: known)
    return made


def count(**bucket: Any) -> None:
    metrics.count_batch("decoder", PROBE_BUCKET.model_copy(update=bucket), 3, 1, "failed_to_generate", 2.5)


def test_a_batch_is_counted_under_its_stage_status_and_bucket(instruments: tuple[Instrument, ...]) -> None:
    count(width=192)
    rows, busy, calls, work = (one.told for one in instruments)
    assert rows == [
        (3, {"stage": "decoder", "status": "success"}),
        (1, {"stage": "decoder", "status": "failed_to_generate"}),
    ]
    assert work == []
    assert busy == [(2.5, {"stage": "decoder"})]
    assert calls == [(2.5, {"stage": "decoder", "bucket": "text2img 192 x 128, 2 steps"})]


def test_a_manifest_of_thousands_of_buckets_does_not_make_thousands_of_series(
    instruments: tuple[Instrument, ...],
) -> None:
    for steps in range(1, 1000):
        count(steps=steps)
    count(steps=1)
    names = [tags["bucket"] for _, tags in instruments[2].told]
    assert len(set(names)) == 41
    assert names[-2:] == [metrics.OTHER, "text2img 128 x 128, 1 steps"]


def test_work_is_counted_by_stage(instruments: tuple[Instrument, ...]) -> None:
    metrics.count_work("prior", 12.5)
    assert [one.told for one in instruments] == [[], [], [], [(12.5, {"stage": "prior"})]]
