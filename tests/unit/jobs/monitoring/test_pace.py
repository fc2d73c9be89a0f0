"""How fast images come: an honest rate, and no silly time left."""

from __future__ import annotations

import random

import pytest

from jobs.monitoring.pace import Pace, duration
from tests.unit.jobs.monitoring.clocks import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_nothing_is_promised_before_a_few_batches_have_come(clock: Clock) -> None:
    pace = Pace(total=100, clock=clock)
    assert pace.rate is None
    clock.now += 60  # pools start, graphs compile
    for _ in range(3):
        pace.add(4)
        clock.now += 2
    assert pace.rate is None
    assert pace.overall_rate is None
    assert pace.left is None


def test_three_small_batches_at_once_claim_no_rate(clock: Clock) -> None:
    pace = Pace(total=100, clock=clock)
    for _ in range(20):
        pace.add(1)
        clock.now += 0.02
    assert pace.rate is None


def test_the_start_of_the_pools_does_not_count_into_the_rate(clock: Clock) -> None:
    pace = Pace(total=100, clock=clock)
    clock.now += 60
    for step in range(5):
        clock.now += 2 if step else 0
        pace.add(4)
    assert pace.rate == pace.overall_rate == 2.0
    assert pace.left is not None
    assert pace.left.likely == 40.0


def test_images_of_an_earlier_run_count_as_done_but_not_into_the_rate(clock: Clock) -> None:
    pace = Pace(total=1000, done=900, clock=clock)
    for step in range(5):
        clock.now += 2 if step else 0
        pace.add(4)
    assert pace.done == 920
    assert pace.rate == 2.0


def test_the_time_left_counts_down_between_batches_but_never_to_nothing(clock: Clock) -> None:
    pace = Pace(total=100, clock=clock)
    for step in range(5):
        clock.now += 2 if step else 0
        pace.add(4)
    clock.now += 5
    assert pace.left is not None
    assert pace.left.likely == 35.0
    clock.now += 1000
    assert pace.left.likely == 20.0


def test_the_rate_follows_the_last_minutes_and_the_overall_rate_does_not(clock: Clock) -> None:
    pace = Pace(total=100_000, clock=clock)
    for images in [1] * 400 + [10] * 400:
        clock.now += 1
        pace.add(images)
    assert pace.rate == pytest.approx(10, rel=0.01)
    assert pace.overall_rate == pytest.approx(5.5, rel=0.01)


def test_the_range_of_the_time_left_is_as_wide_as_the_batches_differ(clock: Clock) -> None:
    steady, uneven = Pace(100_000, clock=clock), Pace(100_000, clock=clock)
    rng = random.Random(0)
    for _ in range(200):
        clock.now += 1
        steady.add(10)
        uneven.add(rng.choice([1, 19]))
    assert steady.left is not None
    assert uneven.left is not None
    assert steady.left.low == pytest.approx(steady.left.high)
    assert uneven.left.low < 0.95 * uneven.left.likely < uneven.left.likely < 0.95 * uneven.left.high


def test_a_run_that_slows_down_widens_its_range_to_both_rates(clock: Clock) -> None:
    pace = Pace(total=10_000, clock=clock)
    for images in [10] * 300 + [2] * 100:
        clock.now += 1
        pace.add(images)
    assert pace.left is not None
    assert pace.rate is not None
    assert pace.left.high >= (10_000 - pace.done) / pace.rate


def test_a_finished_run_has_no_time_left(clock: Clock) -> None:
    pace = Pace(total=20, clock=clock)
    for _ in range(5):
        clock.now += 2
        pace.add(4)
    assert pace.rate == 2.0
    assert pace.left is None


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0s"), (59.4, "59s"), (59.6, "1m 00s"), (245, "4m 05s"), (12_000, "3h 20m")]
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert duration(seconds) == text
